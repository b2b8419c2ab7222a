import { causes, reason } from '../errors.ts';
import { makeNonDumpable, restoreSignals, unlockMemory } from '../platform/libc.ts';
import { restoreBlocking } from '../platform/standard-streams.ts';
import type { Configuration } from '../protocol/launch.ts';
import { assemble, type Launch } from './assemble.ts';
import type { Ending } from './child.ts';
import { materialise, removeFiles } from './materialise.ts';
import type { CasSession } from './obtain.ts';
import { pauseBefore } from './retry.ts';
import type { Settings } from './settings.ts';
import { letGo, type Prepared, prepare, wipe } from './start.ts';
import { optionsOf, superviseProgram } from './supervised-program.ts';
import { watch } from './watch.ts';

/** Doublings of the pause before what could not be taken up is tried again, and the longest pause. */
const FIRST_REPETITION = 4;
const LONGEST_REPETITION = 3_600_000;

/**
 * Runs the program as a child, keeps what it was given up to date with its session, and ends as it ends.
 * @throws Failure where it cannot be started, or not started again
 */
export async function supervise(settings: Settings, session: CasSession, first: Launch): Promise<never> {
  const { log } = settings;
  unlockMemory();
  const program = superviseProgram(settings);
  const prepared = await prepare(first);
  const written = materialise(first);
  /** All files that were written, also those of which newer versions of the session know nothing. */
  const places = new Map<string, Pick<Launch, 'files' | 'directories'>>();
  try {
    program.start(first, prepared, program.fingerprint(first));
  } catch (error) {
    written.undo();
    throw error;
  }
  remember(first);

  function remember({ files, directories }: Launch) {
    const bare = files.map((file) => ({ ...file, content: Buffer.alloc(0) }));
    for (const file of bare)
      if (typeof file.to === 'string') places.set(file.to, { files: [file], directories });
    wipe(files);
  }

  let present = first;
  /** @returns why it could not be taken up, in which case all is as before */
  const take = async (configuration: Configuration): Promise<unknown> => {
    let next: Launch;
    let again: Prepared | undefined;
    let changes: ReturnType<typeof materialise>;
    try {
      next = await assemble(configuration, settings);
      if (next.redact) program.redact(next.redact);
      if (optionsOf(next).onChange === 'restart') again = await prepare(next);
      changes = materialise(next);
    } catch (error) {
      if (again) letGo(again);
      return error;
    }
    const fingerprint = program.fingerprint(next);
    const isOther = program.isOther(fingerprint);
    remember(next);
    present = next;
    if (again && (changes.changed || isOther)) await program.replace(next, again, fingerprint);
    else {
      if (again) letGo(again);
      if (changes.changed) await program.tell(next);
      if (isOther && !again)
        log(
          'WARNING',
          'arguments, environment or descriptors have changed; the program has them at its next start',
        );
    }
    return undefined;
  };

  let inWork = Promise.resolve();
  let newest = 0;
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  const apply = (configuration: Configuration, number = ++newest, attempt = 0): Promise<void> => {
    inWork = inWork.then(async () => {
      if (number !== newest) return; // A newer one has come.
      const error = await take(configuration);
      if (error === undefined) return;
      // What stands in its way, such as a full disk, may go; a certificate must not run out meanwhile.
      const pause = pauseBefore(FIRST_REPETITION + attempt, LONGEST_REPETITION);
      const seconds = Math.ceil(pause / 1000);
      log('ERROR', `the program goes on as it is: ${causes(error).join(': ')} (tried again in ${seconds} s)`);
      setTimeout(() => apply(configuration, number, attempt + 1).catch(fail), pause);
    });
    return inWork;
  };
  const pause = () => {
    const { debounce, splay } = optionsOf(present);
    return debounce + Math.random() * splay;
  };

  const ending = await Promise.race([
    program.ended,
    failed,
    watch(settings, session, pause, (it) => apply(it)),
  ]).finally(() => {
    if (!optionsOf(present).removeFiles) return;
    for (const [path, place] of places) {
      const failed = removeFiles(place);
      if (failed !== undefined) log('ERROR', `${path} cannot be removed: ${reason(failed)}`);
    }
  });
  program.release();
  return endAs(ending);
}

/** Ends this process as another one has ended. */
function endAs(ending: Ending): never {
  if ('exited' in ending) process.exit(ending.exited);
  restoreSignals();
  restoreBlocking();
  // Of the program's memory its own limits decide; no dump is made of ours.
  makeNonDumpable();
  process.kill(process.pid, ending.killed);
  // As the first process of a namespace, it has to say it in words.
  process.exit(128 + ending.killed);
}
