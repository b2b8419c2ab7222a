import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { startServer, startStack } from '../test/support/stack.ts';
import { comparePrograms } from './measure.ts';

const ROUNDS = 60;

const policy = (measurement: string) => `
name: bench
version: "0.3.10"
security: {attestation: {tolerate: [debug-mode]}}
images:
  - name: image
    injection_files:
      - path: /etc/envcas/config.yaml
        content: |
          program: /bin/true
services:
  - name: "true"
    image_name: image
    attestation: {mrenclave: ${measurement}}
    command: envcas
    environment: {TOKEN: $$SCONE::token$$}
secrets:
  - {name: token, kind: ascii, size: 32}
`;

const FILES = 10;
const VARIABLES = 100;

/** A service that is given many files and variables, each with a secret in it. */
const manyPolicy = (measurement: string, folder: string) => {
  const numbers = (count: number) => Array.from({ length: count }, (_, index) => index);
  return JSON.stringify({
    name: 'many',
    version: '0.3.10',
    security: { attestation: { tolerate: ['debug-mode'] } },
    images: [
      {
        name: 'image',
        injection_files: [
          {
            path: '/etc/envcas/config.yaml',
            content: JSON.stringify({
              program: '/bin/true',
              injection_files: numbers(FILES).map((number) => ({
                from: `/in/${number}`,
                to: `${folder}/${number}`,
                mode: '0440',
              })),
            }),
          },
          ...numbers(FILES).map((number) => ({
            path: `/in/${number}`,
            content: 'key: $$SCONE::token$$',
          })),
        ],
      },
    ],
    services: [
      {
        name: 'true',
        image_name: 'image',
        attestation: { mrenclave: measurement },
        command: 'envcas',
        environment: Object.fromEntries(
          numbers(VARIABLES).map((number) => [`TOKEN_${number}`, `${number} $$SCONE::token$$`]),
        ),
      },
    ],
    secrets: [{ name: 'token', kind: 'ascii', size: 32 }],
  });
};

/** How long an attested launch takes. */
export async function launch(): Promise<void> {
  const root = resolve(import.meta.dirname, '..');
  const folder = join(root, 'dist', 'bench');
  execFileSync(process.execPath, [join(root, 'scripts/build.ts'), folder, 'minimal=bench/minimal.ts']);
  const minimal = join(folder, 'minimal');
  const stack = await startStack();
  const server = await startServer(
    process.execPath,
    [join(root, 'bench/minimal-server.ts'), '2048'],
    /^(\d+)$/m,
  );
  try {
    const port = server.match[1] ?? '';
    stack.create(policy(stack.envcasMeasurement));
    stack.create(manyPolicy(stack.envcasMeasurement, stack.files));
    const dotenv = join(stack.files, '.env');
    writeFileSync(dotenv, 'TOKEN=01234567890123456789012345678901\n');
    const dotenvx = join(root, 'node_modules/@dotenvx/dotenvx/src/cli/dotenvx.js');

    const env = { PATH: process.env.PATH, HOME: stack.files };
    const node = process.execPath;
    const programs = [
      {
        name: 'attested launch of /bin/true',
        command: stack.envcas,
        args: [],
        env: { ...env, ...stack.env, SCONE_CONFIG_ID: 'bench/true' },
      },
      {
        name: `the same with ${FILES} files and ${VARIABLES} variables`,
        command: stack.envcas,
        args: [],
        env: { ...env, ...stack.env, SCONE_CONFIG_ID: 'many/true' },
      },
      { name: 'bare `node -e 0`', command: node, args: ['-e', '0'], env },
      {
        name: 'minimal executable: TLS to localhost, one request, exec',
        command: minimal,
        args: ['localhost', port],
        env,
      },
      { name: 'the same, tuned: TLS to 127.0.0.1', command: minimal, args: ['127.0.0.1', port], env },
      {
        name: '`dotenvx run -- /bin/true`',
        command: node,
        args: [dotenvx, 'run', '--quiet', '-f', dotenv, '--', '/bin/true'],
        env,
      },
    ];
    await comparePrograms('Launch', programs, ROUNDS);
  } finally {
    await server.stop();
    await stack.stop();
  }
}
