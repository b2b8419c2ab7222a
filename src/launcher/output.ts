import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { pipe } from '../platform/spawn.ts';
import { createRedactor } from './redact.ts';

/** How long after the end of the program what still writes to its output is listened to. */
const GRACE = 1000;

/** Standard output and error of a program, passed on without the secrets it was given. */
export interface Output {
  /** Write ends of the pipes, by the descriptors they become. */
  descriptors: { from: number; to: number }[];
  /** To be called once the program has the write ends. */
  started(): void;
  /** Further secrets, released to the same program. */
  add(secrets: readonly Buffer[]): void;
  /** Resolves when all is passed on. */
  finished(): Promise<void>;
}

export function redactedOutput(initial: readonly Buffer[]): Output {
  let secrets = [...initial];
  const streams = [passOn(process.stdout, secrets), passOn(process.stderr, secrets)];
  return {
    descriptors: streams.map(({ write }, index) => ({ from: write, to: index + 1 })),
    started() {
      for (const { write } of streams) closeSync(write);
    },
    add(more) {
      secrets = [...secrets, ...more];
      for (const stream of streams) stream.redact(secrets);
    },
    async finished() {
      await Promise.all(streams.map(({ finish }) => finish()));
    },
  };
}

const ignore = () => {};

function passOn(target: Writable, secrets: readonly Buffer[]) {
  const { read, write } = pipe();
  let redactor = createRedactor(secrets);
  const source = new Socket({ fd: read, readable: true, writable: false });
  const forward = (bytes: Buffer) => {
    if (bytes.length === 0 || target.write(bytes)) return;
    source.pause();
    target.once('drain', () => source.resume());
  };
  // Who reads our output has gone: the program is to notice as it would by itself.
  const fail = () => source.destroy();
  target.on('error', fail);
  source.on('error', ignore);
  source.on('data', (chunk: Buffer) => forward(redactor.push(chunk)));
  const closed = new Promise<void>((resolve) => {
    source.on('close', () => {
      forward(redactor.end());
      target.off('error', fail);
      // What is still to be written can fail later.
      target.off('error', ignore).on('error', ignore);
      resolve();
    });
  });
  return {
    write,
    redact(all: readonly Buffer[]) {
      // What may be the beginning of a secret may still go on.
      const held = redactor.end();
      redactor = createRedactor(all);
      forward(redactor.push(held));
    },
    async finish() {
      const late = setTimeout(() => source.destroy(), GRACE);
      await closed;
      clearTimeout(late);
    },
  };
}
