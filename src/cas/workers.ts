import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { isSea } from 'node:sea';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { causes } from '../errors.ts';
import type { ListeningSocket } from '../platform/listening-socket.ts';
import { Refused, toRefusal } from '../protocol/refusal.ts';
import type { Log } from './cas.ts';

/**
 * A CAS on all cores: processes of the same program that accept connections on the same sockets, and know each other by the
 * database alone. The one that has started them accepts none; it starts another where one ends, and ends them all. Node's own
 * clusters would do the same by variables of the environment that a LAS vouches for no process with.
 */
export interface Workers<Ready> {
  /** What the first one said when it was ready. */
  ready: Ready;
  /** Resolves when one of them says this. */
  said(what: string): Promise<void>;
  /** Tells all of them something. */
  tell(message: object): void;
  /** Asks each of them something, and gives the answers of those that answer in time, by process. */
  ask(question: string): Promise<Map<number, unknown>>;
  /** Ends them in order, and what is left after a while at once. */
  stop(): Promise<void>;
}

/** Milliseconds: how soon one that has ended is followed, at first and at most; and how long an answer and the end may take. */
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 10_000;
const ANSWER = 2_000;
const END = 40_000;
const EX_SOFTWARE = 70;
/** Descriptors of a worker: what it is told comes on standard input, and goes out beside the sockets. */
const SAYS = 3;
const FIRST_SOCKET = 4;
const WORKER = 'SCONE_CAS_WORKER';

/** What a worker is told, and says: one object of JSON a line. */
type Told =
  | { work: object }
  | { told: object }
  | { asked: string; number: number }
  | { served: unknown; number: number }
  | { notServed: string; number: number }
  | { end: true };
type Said<Ready> =
  | { ready: Ready }
  | { failed: ReturnType<typeof toRefusal> }
  | { said: string }
  | { wanted: unknown; number: number }
  | { answer: unknown; number: number };

/**
 * Starts workers, the first one alone, so that it says what is wrong with the settings.
 * @param work what each is told first; it may hold keys, and goes through a pipe that only the two have
 * @param serve does for one of them what is better done in one place
 * @throws Refused with what the first one failed with
 */
export async function startWorkers<Ready>(
  count: number,
  work: object,
  sockets: readonly ListeningSocket[],
  serve: (wanted: unknown) => Promise<unknown>,
  log: Log,
): Promise<Workers<Ready>> {
  let isStopping = false;
  const running = new Set<ChildProcess>();
  const heard = new Map<string, () => void>();
  const waiting = new Map<number, (answer: unknown) => void>();
  let questions = 0;
  const send = (child: ChildProcess, message: Told) =>
    void child.stdin?.write(`${JSON.stringify(message)}\n`);

  const answer = async (child: ChildProcess, { wanted, number }: { wanted: unknown; number: number }) => {
    try {
      send(child, { served: (await serve(wanted)) ?? null, number });
    } catch (error) {
      send(child, { notServed: causes(error).join(': '), number });
    }
  };

  const start = () => {
    const args = [...(isSea() ? [] : process.execArgv), ...process.argv.slice(isSea() ? 2 : 1)];
    const child = spawn(process.execPath, args, {
      env: { ...process.env, [WORKER]: '1' },
      stdio: ['pipe', 'inherit', 'inherit', 'pipe', ...sockets.map(({ fd }) => fd)],
    });
    running.add(child);
    child.stdin?.on('error', () => {});
    const ended = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('exit', (code, signal) => resolve(signal ?? `status ${code}`));
    });
    void ended.then(() => running.delete(child));
    const ready = new Promise<Ready>((resolve, reject) => {
      createInterface({ input: child.stdio[SAYS] as Readable }).on('line', (line) => {
        const said: Said<Ready> = JSON.parse(line);
        if ('ready' in said) resolve(said.ready);
        if ('failed' in said) reject(new Refused(said.failed));
        if ('said' in said) heard.get(said.said)?.();
        if ('wanted' in said) void answer(child, said);
        if ('answer' in said) waiting.get(said.number)?.(said.answer);
      });
      void ended.then((how) => reject(new Error(`a worker ended with ${how}`)));
    });
    send(child, { work });
    return { child, ready, ended };
  };
  const keep = async (its: ReturnType<typeof start>): Promise<void> => {
    let pause = FIRST_PAUSE;
    for (let now = its; ; now = start()) {
      const isReady = await now.ready.then(
        () => true,
        () => false,
      );
      if (isReady) pause = FIRST_PAUSE;
      const how = await now.ended;
      if (isStopping) return;
      log.error({ pid: now.child.pid, how }, 'a worker has ended, and another follows');
      await sleep(pause);
      pause = Math.min(LONGEST_PAUSE, pause * 2);
      if (isStopping) return;
    }
  };

  const first = start();
  const ready = await first.ready.catch(async (error: unknown) => {
    for (const socket of sockets) socket.close();
    await first.ended;
    throw error;
  });
  const others = Array.from({ length: count - 1 }, start);
  await Promise.allSettled(others.map((each) => each.ready));
  const slots = [first, ...others].map(keep);
  return {
    ready,
    said: (what) => new Promise((resolve) => heard.set(what, resolve)),
    tell: (message) => {
      for (const child of running) send(child, { told: message });
    },
    async ask(question) {
      const answers = new Map<number, unknown>();
      await Promise.all(
        [...running].map(async (child) => {
          const number = ++questions;
          send(child, { asked: question, number });
          const answer = new Promise<unknown>((resolve) => waiting.set(number, resolve));
          const its = await Promise.race([answer, sleep(ANSWER, undefined, { ref: false })]);
          waiting.delete(number);
          if (its !== undefined && its !== null && child.pid !== undefined) answers.set(child.pid, its);
        }),
      );
      return answers;
    },
    async stop() {
      isStopping = true;
      for (const child of running) send(child, { end: true });
      const late = setTimeout(() => {
        for (const child of running) child.kill('SIGKILL');
      }, END).unref();
      await Promise.all(slots);
      clearTimeout(late);
      for (const socket of sockets) socket.close();
    },
  };
}

/** Whether this process is a worker. */
export const isWorker = process.env[WORKER] === '1';

/** Descriptor of one of the sockets that this worker was given. */
export const socketOfWorker = (number: number): number => FIRST_SOCKET + number;

/** What runs in a worker. */
export interface Work<Ready> {
  ready: Ready;
  told(message: object): void;
  asked(question: string): Promise<unknown>;
  end(): Promise<void>;
}

/**
 * Does a worker's work until it is to end, or the one that has started it is gone.
 * @param begin is given what the worker is told first, and how to say something by itself, and to want something; that fails
 *   with an Error that says why
 */
export async function work<First extends object, Ready>(
  begin: (
    first: First,
    say: (what: string) => void,
    want: (what: unknown) => Promise<unknown>,
  ) => Promise<Work<Ready>>,
  log: Log,
): Promise<void> {
  const output = new Socket({ fd: SAYS });
  output.on('error', () => {});
  const report = (said: Said<Ready>) => void output.write(`${JSON.stringify(said)}\n`);
  // The one that has started it says when: a terminal sends these to all processes at once.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  let running: Work<Ready> | undefined;
  let wishes = 0;
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  const want = (wanted: unknown) => {
    const answer = Promise.withResolvers<unknown>();
    waiting.set(++wishes, answer);
    report({ wanted, number: wishes });
    return answer.promise;
  };
  const told = async (message: Told): Promise<void> => {
    if ('work' in message)
      try {
        running = await begin(message.work as First, (said) => report({ said }), want);
        report({ ready: running.ready });
      } catch (error) {
        log.error({ error: causes(error).join(': ') }, 'this worker cannot begin');
        report({ failed: toRefusal(error) });
        output.end(() => process.exit(EX_SOFTWARE));
      }
    if ('told' in message) running?.told(message.told);
    if ('asked' in message)
      report({
        answer: (await running?.asked(message.asked).catch(() => null)) ?? null,
        number: message.number,
      });
    if ('served' in message) waiting.get(message.number)?.resolve(message.served);
    if ('notServed' in message) waiting.get(message.number)?.reject(new Error(message.notServed));
    if ('served' in message || 'notServed' in message) waiting.delete(message.number);
    if ('end' in message) {
      await running?.end();
      process.exit(0);
    }
  };
  const input = createInterface({ input: process.stdin }).on('line', (line) => void told(JSON.parse(line)));
  await once(input, 'close');
  // Whoever is started in the place of one that was killed needs the ports.
  process.exit(EX_SOFTWARE);
}
