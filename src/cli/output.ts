import { constants } from 'node:os';
import type { Command } from 'commander';
import { failure, reason } from '../errors.ts';
import { escapeUnseen } from '../unseen.ts';

/** Takes what is printed; a `picture` is made here, and goes to a terminal as it is. */
export type Say = (text: string, kind?: 'picture') => Promise<void>;

/** What a command prints: a text for people, and with `--json` a value for programs. A string is good for both. */
export type Output = string | { text: string; json: unknown; picture?: string };
/** What is too long to be held, and is printed as it comes. */
export type LongOutput = { tell: (say: Say, inJson: boolean) => Promise<void> };

type Action<Arguments extends unknown[], Result> = (...args: Arguments) => Result | Promise<Result>;

/**
 * Makes an action for commander of a function that gives what is to be printed. It goes to standard output, or to
 * the file that `-o` names, and only once the function has succeeded.
 * @param load brings in the function, so that a command costs the others no time at start
 */
export function prints<Arguments extends unknown[]>(
  load: () => Promise<Action<Arguments, Output | LongOutput>>,
) {
  return async function (this: Command, ...args: Arguments): Promise<void> {
    const { json = false, output } = this.optsWithGlobals<{ json?: boolean; output?: string }>();
    if (output === undefined) return tell(await (await load())(...args), json, say);
    const { checkDestination, openDestination } = await import('./destination.ts');
    // Before a command has effects; what goes wrong later is told later.
    checkDestination(output);
    const result = await (await load())(...args);
    const destination = openDestination(output);
    try {
      await tell(result, json, async (text, kind) => {
        if (destination.descriptor === process.stdout.fd) return say(text, kind);
        destination.write(destination.isTerminal && kind !== 'picture' ? escapeUnseen(text) : text);
      });
      destination.finish();
    } finally {
      destination.close();
    }
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

async function tell(output: Output | LongOutput, inJson: boolean, say: Say): Promise<void> {
  if (typeof output === 'string') return say(inJson ? formatJson(output) : output);
  if ('tell' in output) return output.tell(say, inJson);
  if (inJson) return say(formatJson(output.json));
  if (output.picture !== undefined) await say(output.picture, 'picture');
  return say(output.text);
}

/** Prints a list in JSON, an element at a time, as {@link formatJson} would as a whole. */
export function jsonList(say: Say): { add(value: unknown): Promise<void>; end(): Promise<void> } {
  let isBegun = false;
  return {
    add(value) {
      const element = JSON.stringify(value, null, 2).replaceAll(/^/gm, '  ');
      const before = isBegun ? ',\n' : '[\n';
      isBegun = true;
      return say(before + element);
    },
    end: () => say(isBegun ? '\n]\n' : '[]\n'),
  };
}

export const formatJson = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;

/** A terminal does what it is sent, so it is sent what can be seen; a pipe is given the bytes as they are. */
const say: Say = (text, kind) =>
  print(process.stdout.isTTY && kind !== 'picture' ? escapeUnseen(text) : text);

/**
 * Prints to standard output. Where nobody reads on there, as before `| head`, the process ends as others do by SIGPIPE,
 * which Node ignores.
 * @throws Failure OUTPUT_UNWRITABLE
 */
export function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(128 + constants.signals.SIGPIPE);
      reject(failure('OUTPUT_UNWRITABLE', { path: 'standard output', detail: reason(error) }));
    };
    process.stdout.once('error', refuse);
    process.stdout.write(text, (error) => {
      // An error is told as an event as well, after this.
      if (error) return refuse(error);
      process.stdout.off('error', refuse);
      resolve();
    });
  });
}
