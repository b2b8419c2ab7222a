import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { version } from '../version.ts';
import { assemble } from './assemble.ts';
import { materialise } from './materialise.ts';
import { exitStatus, formatFailure, writeError } from './report.ts';
import { obtain } from './retry.ts';
import { readSettings, type Settings } from './settings.ts';
import { signalsToEnd } from './signals.ts';
import { prepare, start, wipe } from './start.ts';

/**
 * envcas: starts the program that a service of a session names, with what the CAS releases for it.
 * It has no options; its arguments are the host arguments that the policy may admit.
 */
async function launch(settings: Settings): Promise<never> {
  const heed = heedAsFirst();
  const { session, configuration } = await obtain(settings);
  heed();
  const plan = await assemble(configuration, settings);
  if (plan.supervise) {
    const { supervise } = await import('./supervise.ts');
    return supervise(settings, session, plan);
  }
  session.close();
  const prepared = await prepare(plan);
  const written = materialise(plan);
  wipe(plan.files);
  try {
    return start(plan, prepared);
  } catch (error) {
    const failed = written.undo();
    if (failed !== undefined && error instanceof Error) error.cause = failed;
    throw error;
  }
}

/**
 * To the first process of a container, signals mean nothing unless it handles them.
 * @returns what leaves them to the program
 */
function heedAsFirst(): () => void {
  if (process.pid !== 1) return () => {};
  const end = (_: NodeJS.Signals, number: number) => process.exit(128 + number);
  for (const signal of signalsToEnd) process.on(signal, end);
  return () => {
    for (const signal of signalsToEnd) process.off(signal, end);
  };
}

/** SHA-256 of this executable file: what a LAS measures, and what policies name as `mrenclave`. */
function ownMeasurement(): string {
  const hash = createHash('sha256');
  const fd = openSync('/proc/self/exe', 'r');
  const chunk = Buffer.allocUnsafe(1 << 20);
  for (let count = 1; count > 0; ) {
    count = readSync(fd, chunk);
    hash.update(chunk.subarray(0, count));
  }
  closeSync(fd);
  return hash.digest('hex');
}

function describe(env: NodeJS.ProcessEnv): string {
  const shown = (name: string) => env[name] || '<not specified>';
  return [
    `SCONE_CONFIG_ID: ${shown('SCONE_CONFIG_ID').replace(/@.*/s, '@<one-time password>')}`,
    `SCONE_CAS_ADDR: ${shown('SCONE_CAS_ADDR')}`,
    `SCONE_CAS_KEY: ${shown('SCONE_CAS_KEY')}`,
    `SCONE_LAS_ADDR: ${shown('SCONE_LAS_ADDR')}`,
    `envcas version: ${version}`,
    `Enclave hash: ${ownMeasurement()}`,
    '',
  ].join('\n');
}

async function main(): Promise<void> {
  const { env } = process;
  if (env.SCONE_HASH === '1') return void writeSync(1, `${ownMeasurement()}\n`);
  if (env.SCONE_VERSION === '1') return void writeSync(1, describe(env));
  let settings: Settings | undefined;
  try {
    settings = readSettings(env, process.argv.slice(2));
    await launch(settings);
  } catch (error) {
    writeError(formatFailure(error, settings));
    process.exit(exitStatus(error));
  }
}

void main();
