import { openSync } from 'node:fs';
import { constants } from 'node:os';
import { setCloseOnExec } from '../platform/libc.ts';
import {
  foregroundGroup,
  hasOthersInGroup,
  isSessionLeader,
  processGroup,
  setForegroundGroup,
} from '../platform/spawn.ts';

const { SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGINT, SIGQUIT, SIGWINCH } = constants.signals;

/** What a terminal sends to all processes of its foreground (termios(3), ISIG). */
export const terminalSignals: readonly number[] = [SIGINT, SIGQUIT, SIGTSTP, SIGWINCH];

/**
 * Job control. The program has a process group of its own, which is in the foreground whenever ours would be, so what is
 * typed reaches it once, and what is sent to envcas is handed on. Where envcas shares its group with others (a pipeline,
 * a script), the program stays in that group, as they would have it, and the terminal's signals reach it there.
 */
export function openTerminal() {
  let terminal: number;
  try {
    terminal = openSync('/dev/tty', 'r+');
  } catch {
    return undefined;
  }
  setCloseOnExec(terminal, true);
  const own = processGroup(0);
  const shared = own !== process.pid || hasOthersInGroup(own);
  const given = new Set<number>();
  const isForeground = () => foregroundGroup(terminal) === own;
  /** Ours, and those of programs that had it from us, also when they have ended. */
  const isOurs = (group: number) => group === own || given.has(group);
  const give = (group: number) => {
    if (!shared && isOurs(foregroundGroup(terminal))) setForegroundGroup(terminal, group);
  };
  const takeBack = () => {
    const present = foregroundGroup(terminal);
    if (!shared && given.has(present)) setForegroundGroup(terminal, own);
  };
  return {
    /** The terminal, where it is ours to give. */
    offer: () => (!shared && isOurs(foregroundGroup(terminal)) ? terminal : undefined),
    isShared: () => shared && isForeground(),
    give(group: number) {
      given.add(group);
      give(group);
    },
    takeBack,
    /** The program was stopped: then so is envcas, for whoever started it to see; or it goes on at once. */
    stopped(pid: number, signal: number) {
      // Who has sent it SIGSTOP will continue it, but who sits before the terminal could not even type that.
      const isForJobControl = [SIGTSTP, SIGTTIN, SIGTTOU].includes(signal);
      if (!isForJobControl && (foregroundGroup(terminal) !== pid || isSessionLeader())) return;
      // It may have asked for the terminal just before it was given to it.
      const wantsTerminal = signal === SIGTTIN || signal === SIGTTOU;
      if (wantsTerminal) give(pid);
      const hasTerminal = foregroundGroup(terminal) === pid;
      if (wantsTerminal ? hasTerminal : isSessionLeader()) return void process.kill(-pid, SIGCONT);
      // Nobody could continue it.
      if (isSessionLeader()) return;
      takeBack();
      process.kill(process.pid, SIGSTOP);
    },
  };
}
