/** The systems in which both commands of the README must pass: a release of Debian, Node and npm, and a user. */

export const commands = ['npm ci && npm run demo', 'npm cit'] as const;
export type Command = (typeof commands)[number];

interface Runtime {
  node: string;
  npm: string;
  /** The packages of Debian that are installed: what Node needs, or Debian's own Node and npm. */
  packages: string[];
}

export interface Combination extends Runtime {
  release: string;
  user: string;
}

const everywhere = ['bookworm', 'trixie'];

const runtimes: (Runtime & { releases: string[] })[] = [
  { releases: ['bookworm'], node: '18.20', npm: '9.2.0', packages: ['nodejs', 'npm'] },
  { releases: ['trixie'], node: '20.19', npm: '9.2.0', packages: ['nodejs', 'npm'] },
  { releases: everywhere, node: '20.20.2', npm: '10.8.2', packages: ['libstdc++6'] },
  { releases: everywhere, node: '20.20.2', npm: '11.19.1', packages: ['libstdc++6'] },
  { releases: everywhere, node: '22.23.5', npm: '10.9.9', packages: ['libstdc++6'] },
  { releases: everywhere, node: '24.22.3', npm: '11.6.2', packages: ['libstdc++6'] },
  // This Node does not start without libatomic1.
  { releases: everywhere, node: '26.10.0', npm: '11.19.1', packages: ['libstdc++6', 'libatomic1'] },
];

export const combinations: Combination[] = runtimes.flatMap(({ releases, ...runtime }) =>
  releases.flatMap((release) => ['root', 'user'].map((user) => ({ ...runtime, release, user }))),
);

/** The first cells of a combination's row in docs/platforms.md. */
export function row({ release, node, npm, user, packages }: Combination): string {
  return `| ${release} | ${node}${packages.includes('nodejs') ? " (Debian's)" : ''} | ${npm} | ${user} |`;
}

/** Tried with each run of the tests. */
export const everyRun: Record<Command, string[]> = {
  'npm ci && npm run demo': [
    "| bookworm | 18.20 (Debian's) | 9.2.0 | user |",
    '| bookworm | 20.20.2 | 10.8.2 | user |',
    '| trixie | 22.23.5 | 10.9.9 | root |',
    '| trixie | 24.22.3 | 11.6.2 | user |',
    '| bookworm | 26.10.0 | 11.19.1 | root |',
  ],
  // It takes as long as all other tests.
  'npm cit': ['| bookworm | 20.20.2 | 10.8.2 | user |'],
};

/** Too old for the commands, which say so. */
export const tooOld: Combination = {
  release: 'bookworm',
  node: '16.20.2',
  npm: '8.19.4',
  packages: ['libstdc++6'],
  user: 'user',
};
