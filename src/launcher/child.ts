import { constants } from 'node:os';
import { runAs } from '../platform/identity.ts';
import { unblockSigusr1 } from '../platform/libc.ts';
import { type ChildEvent, nextChildEvent, processGroup, spawn } from '../platform/spawn.ts';
import { restoreBlocking } from '../platform/standard-streams.ts';
import type { Launch } from './assemble.ts';
import { openProgram, programFailure } from './program.ts';
import { signalsToEnd } from './signals.ts';
import { enter, leave, type Prepared } from './start.ts';
import { openTerminal, terminalSignals } from './terminal.ts';

/** Milliseconds that a timer of Node can wait. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** How a process ended. */
export type Ending = { exited: number } | { killed: number };

export interface Child {
  pid: number;
  ended: Promise<Ending>;
  signal(number: number): void;
  /** Signals its whole process group, where it has one of its own. */
  signalGroup(number: number): void;
}

const { SIGCONT, SIGSTOP, SIGTSTP } = constants.signals;

/**
 * Handed on to the program. Not those that tell of an error in a process itself, nor SIGCHLD, nor SIGPIPE, which Node
 * ignores: each is about the process that gets it.
 */
const forwarded = [
  ...(['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGTERM', 'SIGCONT'] as const),
  ...(['SIGTSTP', 'SIGTTIN', 'SIGTTOU', 'SIGURG', 'SIGXCPU', 'SIGVTALRM', 'SIGWINCH', 'SIGIO'] as const),
  ...(['SIGPWR', 'SIGABRT', 'SIGTRAP', 'SIGSYS', 'SIGXFSZ', 'SIGPROF', 'SIGSTKFLT'] as const),
];

/** The children of this process, of which the program is one; orphans that pid 1 inherits are others. */
export interface Children {
  /** Starts a program. @throws Failure as process.execve in start.ts */
  start(launch: Launch, prepared: Prepared, output: readonly { from: number; to: number }[]): Child;
  /**
   * Starts a command beside the program, as the same user and with its environment.
   * @param sha256 that it may have
   * @param output where its output goes, where not where ours does
   * @throws Failure as openProgram
   */
  run(
    command: readonly string[],
    sha256: string[] | undefined,
    launch: Launch,
    output: readonly { from: number; to: number }[],
  ): Child;
  /** Stops handing on signals, and takes the terminal back. */
  release(): void;
}

/**
 * @param present the program that signals are for
 * @param onSignal told of each signal that is handed on
 */
export function openChildren(
  present: () => Child | undefined,
  onSignal: (signal: NodeJS.Signals) => void,
): Children {
  const waiting = new Map<number, (event: ChildEvent) => void>();
  process.on('SIGCHLD', () => {
    for (let event = nextChildEvent(); event; event = nextChildEvent()) waiting.get(event.pid)?.(event);
  });
  const terminal = openTerminal();
  // Children do not keep Node from ending by itself, which must not happen while one runs.
  const held = setInterval(() => {}, LONGEST_TIMER);
  unblockSigusr1();
  for (const signal of forwarded)
    process.on(signal, () => {
      const number = constants.signals[signal];
      const child = present();
      if (!child) {
        // Nothing was written yet.
        if (signalsToEnd.includes(signal)) process.exit(128 + number);
        return;
      }
      onSignal(signal);
      if (terminal?.isShared() && terminalSignals.includes(number)) {
        // The terminal has sent it to the program as well.
        if (number === SIGTSTP) process.kill(process.pid, SIGSTOP);
        return;
      }
      if (number !== SIGCONT) return child.signal(number);
      terminal?.give(child.pid);
      // All of it was stopped.
      child.signalGroup(number);
    });

  const launched = (
    path: string,
    args: readonly string[],
    launch: Launch,
    { descriptors, confirm, terminal: offered }: Rest,
    ownGroup: boolean,
  ): Child => {
    const umask = process.umask();
    let pid: number;
    try {
      if (launch.umask !== undefined) process.umask(launch.umask);
      enter(launch.pwd);
      pid = runAs(launch, false, () => {
        confirm();
        return spawn({
          path,
          arguments: args,
          environment: launch.environment,
          ownGroup,
          terminal: offered,
          descriptors,
        });
      });
    } catch (error) {
      throw programFailure(args[0] ?? '', error);
    } finally {
      process.umask(umask);
      leave();
    }
    let isRunning = true;
    const kill = (target: number, number: number) => {
      // Once it was waited for, another process may have its pid.
      if (!isRunning) return;
      try {
        process.kill(target, number);
      } catch {
        // It has ended, and that is still to be told.
      }
    };
    const ended = new Promise<Ending>((resolve) => {
      waiting.set(pid, ({ exited, killed, stopped }) => {
        if (stopped !== undefined) {
          if (ownGroup && pid === present()?.pid) terminal?.stopped(pid, stopped);
          return;
        }
        isRunning = false;
        waiting.delete(pid);
        resolve(exited !== undefined ? { exited } : { killed: killed ?? 0 });
      });
    });
    return {
      pid,
      ended,
      signal: (number) => kill(pid, number),
      signalGroup(number) {
        if (ownGroup) kill(-pid, number);
        // It may have left its group.
        if (processGroup(pid) !== pid) kill(pid, number);
      },
    };
  };

  return {
    start(launch, { executable, descriptors }, output) {
      if (output.length === 0) restoreBlocking();
      const { program, arguments: args } = launch;
      const ownGroup = !terminal?.isShared();
      const rest = {
        descriptors: [...output, ...descriptors],
        confirm: executable.confirm,
        terminal: ownGroup ? terminal?.offer() : undefined,
      };
      const child = launched(executable.path, [program, ...args], launch, rest, ownGroup);
      if (ownGroup) terminal?.give(child.pid);
      return child;
    },
    run([name = '', ...args], sha256, launch, output) {
      // A program that was checked is not handed over to a command that anybody could have written.
      const least = Math.max(2, ...output.map(({ to }) => to)) + 1;
      const checked = sha256 ?? (launch.sha256 && 'any');
      const executable = openProgram({ program: name, sha256: checked, user: launch.user }, least);
      const { path, descriptor, isScript, confirm } = executable;
      const own = descriptor !== undefined && isScript ? [{ from: descriptor, to: descriptor }] : [];
      try {
        return launched(path, [name, ...args], launch, { descriptors: [...output, ...own], confirm }, true);
      } finally {
        executable.close();
      }
    },
    release() {
      clearInterval(held);
      for (const signal of forwarded) process.removeAllListeners(signal);
      terminal?.takeBack();
    },
  };
}

interface Rest {
  terminal?: number | undefined;
  descriptors: { from: number; to: number }[];
  confirm(): void;
}
