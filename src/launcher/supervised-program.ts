import { createHmac, randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import { causes } from '../errors.ts';
import { supervisionDefaults } from '../policy/schema/launcher.ts';
import { parseDuration } from '../secrets/duration.ts';
import type { Launch } from './assemble.ts';
import { type Child, type Ending, openChildren } from './child.ts';
import { type Output, redactedOutput } from './output.ts';
import type { Settings } from './settings.ts';
import { letGo, type Prepared } from './start.ts';

const { signals } = constants;
/** By which somebody wants the program to end, and not to be started again, while it is about to be. */
const toEnd: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGQUIT'];

/** How long a command may take to tell a program of a change, in milliseconds. */
const COMMAND_TIMEOUT = 60_000;

/** What is asked for, and what holds otherwise; durations in milliseconds. */
export function optionsOf({ supervise = {} }: Launch) {
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

/** The one program of a supervisor, which may be replaced by itself. */
export function superviseProgram({ log }: Settings) {
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
  const runCommand = async (command: readonly string[], sha256: string[] | undefined, launch: Launch) => {
    const [name = ''] = command;
    const printed = launch.redact && redactedOutput(launch.redact);
    try {
      let running: Child;
      try {
        running = children.run(command, sha256, launch, printed?.descriptors ?? []);
      } finally {
        printed?.started();
      }
      const timer = setTimeout(() => {
        log('WARNING', `${name} has not ended after ${COMMAND_TIMEOUT} ms, so it is killed`);
        running.signalGroup(signals.SIGKILL);
      }, COMMAND_TIMEOUT);
      const ending = await Promise.race([running.ended, ended]);
      clearTimeout(timer);
      if (hasEnded) running.signalGroup(signals.SIGKILL);
      await printed?.finished();
      if (hasEnded) return;
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
      return runCommand(onChange.command, onChange.sha256, launch);
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
