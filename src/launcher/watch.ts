import { setTimeout as sleep } from 'node:timers/promises';
import { causes, Failure } from '../errors.ts';
import type { Configuration } from '../protocol/launch.ts';
import { type CasSession, openSession } from './obtain.ts';
import { decisiveCode } from './report.ts';
import { isTemporary, pauseBefore } from './retry.ts';
import type { Settings } from './settings.ts';

/** Hands on a configuration that may be another one than before. */
export type Apply = (configuration: Configuration) => Promise<void>;

/**
 * Waits on the held connection for the configuration to change and hands on each new one, attested anew; for ever,
 * whether the CAS is away or not.
 * @param debounce milliseconds to wait before a change is taken up
 * @throws only what `apply` does
 */
export async function watch(
  settings: Settings,
  first: CasSession,
  debounce: () => number,
  apply: Apply,
): Promise<never> {
  const { oneTimePassword: _, ...configId } = settings.configId;
  // A code that is spent would be counted as a wrong one.
  const again = { ...settings, configId };
  for (let session = first, attempts = 0; ; ) {
    const since = performance.now();
    await follow(session, settings, debounce, apply);
    session.close();
    // A CAS that has no room for one who waits closes the connection after every answer.
    attempts = performance.now() - since < SHORT ? attempts + 1 : 0;
    session = await reconnect(again, debounce, apply, attempts);
    settings.log('INFO', 'the CAS is back');
  }
}

/** Follows the changes that one connection tells of, until it ends. */
async function follow(
  session: CasSession,
  settings: Settings,
  debounce: () => number,
  apply: Apply,
): Promise<void> {
  for (;;) {
    let configuration: Configuration | undefined;
    try {
      await session.changed();
      settings.log('INFO', 'the session has changed');
      await sleep(debounce());
      configuration = await askAgain(session, settings);
    } catch (error) {
      return warn(settings, error);
    }
    if (configuration) await apply(configuration);
  }
}

/** @returns undefined where the CAS refuses: the next change may bring better */
async function askAgain(session: CasSession, settings: Settings): Promise<Configuration | undefined> {
  for (let attempt = 0; ; attempt++)
    try {
      return await session.ask();
    } catch (error) {
      if (!(error instanceof Failure && error.code === 'LAUNCH_REFUSED')) throw error;
      if (attempt === 0) warn(settings, error);
      if (!isTemporary(error)) return undefined;
      await sleep(pauseBefore(attempt));
    }
}

/** A connection that ended within so many milliseconds was of no use. */
const SHORT = 10_000;

/** Doublings of the pause that one refusal is worth, and the longest pause after refusals. */
const REFUSAL = 9;
const LONGEST_PAUSE_OF_REFUSED = 3_600_000;

/** @param attempts that have come to little just before */
async function reconnect(
  settings: Settings,
  debounce: () => number,
  apply: Apply,
  attempts: number,
): Promise<CasSession> {
  let pause = pauseBefore(attempts);
  let told: string | undefined;
  for (let attempt = attempts + 1, refusals = 0; ; ) {
    await sleep(pause);
    let session: CasSession | undefined;
    let configuration: Configuration;
    try {
      session = await openSession(settings);
      configuration = await session.ask();
    } catch (error) {
      session?.close();
      const code = decisiveCode(error);
      if (code !== told) warn(settings, error);
      else settings.log('DEBUG', `the CAS: ${causes(error).join(': ')}`);
      told = code;
      // Somebody may correct what a policy refuses; nobody is helped by being asked often meanwhile.
      pause = isTemporary(error)
        ? pauseBefore(attempt++)
        : pauseBefore(REFUSAL + refusals++, LONGEST_PAUSE_OF_REFUSED);
      continue;
    }
    // All launchers of a CAS come back at the same time.
    await sleep(debounce());
    await apply(configuration);
    return session;
  }
}

function warn({ log }: Settings, error: unknown): void {
  log('WARNING', `the program goes on as it is: ${causes(error).join(': ')}`);
}
