import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startServer, startStack } from '../test/support/stack.ts';

/**
 * Start-up of an attested launch beside what it is compared with, in turn on one machine in one run:
 *
 *     npm run bench [ROUNDS]
 */
const rounds = Number(process.argv[2] ?? 60);
const root = resolve(import.meta.dirname, '..');
const work = mkdtempSync(join(tmpdir(), 'envcas-bench-'));

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

interface Contender {
  name: string;
  command: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  milliseconds: number[];
}

const stack = await startStack();
const minimal = join(root, 'dist', 'bench', 'minimal');
try {
  execFileSync(process.execPath, [
    join(root, 'scripts/build.ts'),
    join(root, 'dist/bench'),
    'minimal=bench/minimal.ts',
  ]);
  const server = await startServer(process.execPath, [join(root, 'bench/minimal-server.ts')], /^(\d+)$/m);
  writeFileSync(join(work, 'bench.yaml'), policy(stack.envcasMeasurement));
  stack.scone('session', 'create', join(work, 'bench.yaml'));
  writeFileSync(join(work, '.env'), 'TOKEN=01234567890123456789012345678901\n');

  const contender = (
    name: string,
    command: string,
    args: string[],
    env: NodeJS.ProcessEnv = {},
  ): Contender => ({
    name,
    command,
    args,
    env: { PATH: process.env.PATH, HOME: work, ...env },
    milliseconds: [],
  });
  const ours = contender('attested launch of /bin/true', stack.envcas, [], {
    ...stack.env,
    SCONE_CONFIG_ID: 'bench/true',
  });
  const port = server.match[1] ?? '';
  const contenders = [
    ours,
    contender('bare `node -e 0`', process.execPath, ['-e', '0']),
    contender('minimal executable: TLS to localhost, one request, exec', minimal, ['localhost', port]),
    contender('the same, tuned: TLS to 127.0.0.1', minimal, ['127.0.0.1', port]),
    contender('`dotenvx run -- /bin/true`', process.execPath, [
      join(root, 'node_modules/@dotenvx/dotenvx/src/cli/dotenvx.js'),
      'run',
      '--quiet',
      '-f',
      join(work, '.env'),
      '--',
      '/bin/true',
    ]),
  ];
  for (let round = -3; round < rounds; round++)
    for (const { name, command, args, env, milliseconds } of contenders) {
      const before = process.hrtime.bigint();
      const { status, stderr } = spawnSync(command, args, {
        env,
        cwd: work,
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      const took = Number(process.hrtime.bigint() - before) / 1e6;
      if (status !== 0) throw new Error(`${name} failed with ${status}: ${stderr}`);
      if (round >= 0) milliseconds.push(took);
    }
  server.stop();

  const quantile = (values: number[], q: number) =>
    [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ??
    Number.NaN;
  console.log(
    `Node ${process.versions.node}, ${cpus().length} × ${cpus()[0]?.model}, ${rounds} rounds in turn\n`,
  );
  console.log('| what | median | p90 | our launch, as a multiple (median of pairs) |');
  console.log('|---|---|---|---|');
  for (const { name, milliseconds } of contenders) {
    const ratios = milliseconds.map((other, index) => (ours.milliseconds[index] ?? Number.NaN) / other);
    console.log(
      `| ${name} | ${quantile(milliseconds, 0.5).toFixed(1)} ms | ${quantile(milliseconds, 0.9).toFixed(1)} ms | ${quantile(ratios, 0.5).toFixed(2)} |`,
    );
  }
} finally {
  await stack.stop();
  rmSync(work, { recursive: true, force: true });
}
