import { constants, readFileSync } from 'node:fs';
import { makeBlocking } from './libc.ts';

/** Whether writes to a descriptor fail where they would have to wait (proc_pid_fdinfo(5)). */
function isNonBlocking(fd: number): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0';
  return (Number.parseInt(flags, 8) & constants.O_NONBLOCK) !== 0;
}

const outputs = [1, 2];
const changeable = outputs.filter((fd) => !isNonBlocking(fd));

/**
 * Has writes to standard output and error wait again where they did when this process was started. Node changes that
 * for all who share these, and as soon as any socket is closed, since it then looks at `process.stderr`.
 */
export function restoreBlocking(): void {
  for (const fd of changeable) if (isNonBlocking(fd)) makeBlocking(fd);
}
