import { createHmac, randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import { causes, reason } from '../errors.ts';
import { makeNonDumpable, restoreSignals } from '../platform/libc.ts';
import { restoreBlocking } from '../platform/standard-streams.ts';
import { supervisionDefaults } from '../policy/schema/launcher.ts';
import type { Configuration } from '../protocol/launch.ts';
import { parseDuration } from '../secrets/duration.ts';
import { assemble, type Launch } from './assemble.ts';
import { type Child, type Ending, openChildren } from './child.ts';
import { materialise, removeFiles } from './materialise.ts';
import type { CasSession } from './obtain.ts';
import { type Output, redactedOutput } from './output.ts';
import { pauseBefore } from './retry.ts';
import type { Settings } from './settings.ts';
import { letGo, type Prepared, prepare, wipe } from './start.ts';
import { watch } from './watch.ts';

const { signals } = constants;
/** By which somebody wants the program to end, and not to be started again, while it is about to be. */
const toEnd: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGQUIT'];

/** How long a command may take to tell a program of a change, in milliseconds. */
const COMMAND_TIMEOUT = 60_000;

/** Doublings of the pause before what could not be taken up is tried again, and the longest pause. */
const FIRST_REPETITION = 4;
const LONGEST_REPETITION = 3_600_000;

/** What is asked for, and what holds otherwise; durations in milliseconds. */
function optionsOf({ supervise = {} }: Launch) {
  const usual = supervisionDefaults;
  const milliseconds = (duration: string) => parseDuration(duration) ?? 0;
  return {
    onChange: supervise.on_change ?? usual.on_change,
    killSignal: supervise.kill_signal ?? usual.kill_signal,
    killTimeout: milliseconds(supervise.kill_timeout ?? usual.kill_timeout),
    splay: milliseconds(supervise.splay ?? ''),
    debounce: milliseconds(supervise.debounce ?? usual.debounce),
    removeFiles: supervise.remove_files ?? usual.remove_files,
  };
}

/**
 * Runs the program as a child, keeps what it was given up to date with its session, and ends as it ends.
 * @throws Failure where it cannot be started, or not started again
 */
export async function supervise(settings: Settings, session: CasSession, first: Launch): Promise<never> {
  const { log } = settings;
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

/** The one program of a supervisor, which may be replaced by itself. */
function superviseProgram({ log }: Settings) {
  let child: Child | undefined;
  let output: Output | undefined;
  let isReplacing = false;
  let isToEnd = false;
  let hasEnded = false;
  let startedWith = '';
  const { promise: ended, resolve } = Promise.withResolvers<Ending>();

  const children = openChildren(
    () => child,
    (signal) => {
      log('DEBUG', `${signal} is for the program`);
      // A program may take its time to end.
      if (signal === 'SIGTERM' || (isReplacing && toEnd.includes(signal))) isToEnd = true;
    },
  );
  const finish = async (ending: Ending) => {
    hasEnded = true;
    await output?.finished();
    resolve(ending);
  };
  const start = (launch: Launch, prepared: Prepared, fingerprint: string) => {
    output = launch.redact && redactedOutput(launch.redact);
    try {
      child = children.start(launch, prepared, output?.descriptors ?? []);
    } finally {
      output?.started();
      letGo(prepared);
    }
    startedWith = fingerprint;
    log('INFO', `${launch.program} runs as process ${child.pid}`);
    void child.ended.then((ending) => (isReplacing ? undefined : finish(ending)));
  };

  /** As the program's user, with its environment and working directory. The next change waits for it. */
  const runCommand = async (command: readonly string[], launch: Launch) => {
    const [name = ''] = command;
    try {
      const running = children.run(command, launch);
      const timer = setTimeout(() => {
        log('WARNING', `${name} has not ended after ${COMMAND_TIMEOUT} ms, so it is killed`);
        running.signalGroup(signals.SIGKILL);
      }, COMMAND_TIMEOUT);
      const ending = await Promise.race([running.ended, ended]);
      clearTimeout(timer);
      if (hasEnded) return running.signalGroup(signals.SIGKILL);
      if ('exited' in ending && ending.exited === 0) return;
      const how = 'exited' in ending ? `exit status ${ending.exited}` : `signal ${ending.killed}`;
      log('ERROR', `${name} has failed: ${how}`);
    } catch (error) {
      log('ERROR', `${name} cannot be started: ${causes(error).join(': ')}`);
    }
  };

  return {
    ended,
    start,
    release: children.release,
    /** Keeps what is about to be released to the running program out of its output. */
    redact(secrets: readonly Buffer[]) {
      output?.add(secrets);
    },
    /** Whether the program would be started otherwise than it was, files aside. */
    isOther: (fingerprint: string) => fingerprint !== startedWith,
    fingerprint: fingerprints(),
    async replace(launch: Launch, prepared: Prepared, fingerprint: string) {
      if (!child || hasEnded || isToEnd) {
        log('INFO', 'the program is about to end, so it is not started again');
        return letGo(prepared);
      }
      isReplacing = true;
      const { killSignal, killTimeout } = optionsOf(launch);
      const { signalGroup, signal, ended: last } = child;
      signal(signals[killSignal]);
      const timer = setTimeout(() => {
        log('WARNING', `the program has not ended ${killTimeout} ms after ${killSignal}, so it is killed`);
        signalGroup(signals.SIGKILL);
      }, killTimeout);
      const ending = await last;
      clearTimeout(timer);
      await output?.finished();
      // The terminal may have sent it to the program alone.
      const wasEndedByOther =
        'killed' in ending &&
        ending.killed !== signals[killSignal] &&
        [signals.SIGINT, signals.SIGQUIT, signals.SIGHUP].includes(ending.killed);
      if (isToEnd || wasEndedByOther) {
        letGo(prepared);
        return finish(ending);
      }
      isReplacing = false;
      start(launch, prepared, fingerprint);
    },
    /** Tells the running program that its files have changed, in the way it wants to be told. */
    async tell(launch: Launch) {
      const { onChange } = optionsOf(launch);
      if (typeof onChange === 'string') return log('INFO', 'files have changed');
      if ('signal' in onChange) {
        log('INFO', `files have changed; ${onChange.signal} tells the program`);
        return child?.signal(signals[onChange.signal]);
      }
      log('INFO', `files have changed; ${onChange.command[0]} tells the program`);
      return runCommand(onChange.command, launch);
    },
  };
}

/** Tells whether two launches start a program alike, and keeps nothing of what they start it with. */
function fingerprints(): (launch: Launch) => string {
  const key = randomBytes(32);
  return ({ files, directories: _, supervise: __, redact, ...launch }) => {
    const isRedacted = redact !== undefined;
    const hash = createHmac('sha256', key).update(JSON.stringify({ ...launch, isRedacted }));
    for (const { to, content, ...ownership } of files)
      if (typeof to !== 'string')
        hash.update(JSON.stringify([to, ownership, content.length])).update(content);
    return hash.digest('hex');
  };
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
