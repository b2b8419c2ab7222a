import { accessSync, existsSync, constants as modes, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { failure, reason } from '../errors.ts';

/** What a command prints: a text for people, and with `--json` a value for programs. A string is good for both. */
export type Output = string | { text: string; json: unknown };

type Action<Arguments extends unknown[], Result> = (...args: Arguments) => Result | Promise<Result>;

/**
 * Makes an action for commander of a function that gives what is to be printed. It goes to standard output, or to
 * the file that `-o` names, and only once the function has succeeded.
 * @param load brings in the function, so that a command costs the others no time at start
 */
export function prints<Arguments extends unknown[]>(load: () => Promise<Action<Arguments, Output>>) {
  return async function (this: Command, ...args: Arguments): Promise<void> {
    const { json = false, output } = this.optsWithGlobals<{ json?: boolean; output?: string }>();
    if (output !== undefined) checkWritable(output);
    const action = await load();
    const text = render(await action(...args), json);
    if (output === undefined) await print(text);
    else save(output, text);
  };
}

/** Makes an action of a server, which prints by itself when it is ready, and goes on until it is told to stop. */
export function serves<Arguments extends unknown[]>(load: () => Promise<Action<Arguments, void>>) {
  return async function (this: Command, ...args: Arguments): Promise<void> {
    if (this.optsWithGlobals().output !== undefined)
      throw failure('USAGE', {
        detail: '-o is written when a command has ended; redirect a server with > FILE',
      });
    const action = await load();
    await action(...args);
  };
}

function render(output: Output, json: boolean): string {
  if (json) return `${JSON.stringify(typeof output === 'string' ? output : output.json, null, 2)}\n`;
  return typeof output === 'string' ? output : output.text;
}

/** Finds out before a command has effects; what goes wrong later is told later. */
function checkWritable(path: string): void {
  try {
    accessSync(existsSync(path) ? path : dirname(path), modes.W_OK);
  } catch (error) {
    throw unwritable(path, error);
  }
}

/** What is printed may be private, so a new file is. */
function save(path: string, text: string): void {
  try {
    writeFileSync(path, text, { mode: 0o600 });
  } catch (error) {
    throw unwritable(path, error);
  }
}

/**
 * Prints to standard output. Where nobody reads on there, as before `| head`, the process ends as others do by SIGPIPE,
 * which Node ignores.
 * @throws Failure OUTPUT_UNWRITABLE
 */
export function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(128 + constants.signals.SIGPIPE);
      reject(unwritable('standard output', error));
    };
    process.stdout.once('error', refuse);
    process.stdout.write(text, (error) => (error ? refuse(error) : resolve()));
  });
}

function unwritable(path: string, error: unknown): unknown {
  return failure('OUTPUT_UNWRITABLE', { path, detail: reason(error) });
}
