import cluster from 'node:cluster';
import { isSea } from 'node:sea';
import { setTimeout as sleep } from 'node:timers/promises';
import { Refused, toRefusal } from '../protocol/refusal.ts';
import type { Log } from './cas.ts';

/**
 * A CAS on all cores: processes of the same program that listen on the same ports, and know each other by the database alone.
 * The one that has started them listens on nothing; it starts another where one ends, and ends them all.
 */
export interface Workers<Ready> {
  /** What the first one said when it was ready. */
  ready: Ready;
  /** Resolves when one of them says this. */
  said(what: string): Promise<void>;
  /** Tells all of them something. */
  tell(message: object): void;
  /** Ends them in order, and what is left after a while at once. */
  stop(): Promise<void>;
}

/** Milliseconds: how soon one that has ended is followed, at first and at most; and how long the end may take. */
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 10_000;
const END = 40_000;

const EX_SOFTWARE = 70;

/** What a worker says of itself. */
type Report<Ready> = { ready: Ready } | { failed: ReturnType<typeof toRefusal> } | { said: string };

/**
 * Starts workers, the first one alone, so that it says what is wrong with the settings.
 * @param work what each is told first; it may hold keys, and goes through a pipe that only the two have
 * @throws Refused with what the first one failed with
 */
export async function startWorkers<Ready>(count: number, work: object, log: Log): Promise<Workers<Ready>> {
  // An executable has no script: what stands there is the first of its arguments.
  const [script = '', ...rest] = process.argv.slice(isSea() ? 2 : 1);
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  cluster.setupPrimary({ exec: script, args: rest, ...(isSea() && { execArgv: [] }) });
  let isStopping = false;
  const heard = new Map<string, () => void>();

  const start = () => {
    const worker = cluster.fork();
    worker.on('online', () => worker.send({ work }));
    const ended = new Promise<string>((resolve) =>
      worker.on('exit', (code, signal) => resolve(signal ?? `status ${code}`)),
    );
    const ready = new Promise<Ready>((resolve, reject) => {
      worker.on('message', (report: Report<Ready>) => {
        if ('ready' in report) resolve(report.ready);
        if ('failed' in report) reject(new Refused(report.failed));
        if ('said' in report) heard.get(report.said)?.();
      });
      void ended.then((how) => reject(new Error(`a worker ended with ${how}`)));
    });
    return { worker, ready, ended };
  };
  const keep = async (running: ReturnType<typeof start>): Promise<void> => {
    let pause = FIRST_PAUSE;
    for (;;) {
      const isReady = await running.ready.then(
        () => true,
        () => false,
      );
      if (isReady) pause = FIRST_PAUSE;
      const how = await running.ended;
      if (isStopping) return;
      log.error({ pid: running.worker.process.pid, how }, 'a worker has ended, and another follows');
      await sleep(pause);
      pause = Math.min(LONGEST_PAUSE, pause * 2);
      if (isStopping) return;
      running = start();
    }
  };

  const first = start();
  const ready = await first.ready;
  const others = Array.from({ length: count - 1 }, start);
  await Promise.allSettled(others.map((each) => each.ready));
  const slots = [first, ...others].map(keep);
  const all = () => Object.values(cluster.workers ?? {}).flatMap((worker) => worker ?? []);
  return {
    ready,
    said: (what) => new Promise((resolve) => heard.set(what, resolve)),
    tell: (message) => {
      for (const worker of all()) worker.send({ told: message });
    },
    async stop() {
      isStopping = true;
      for (const worker of all()) worker.send({ end: true });
      const late = setTimeout(
        () => all().forEach((worker) => void worker.process.kill('SIGKILL')),
        END,
      ).unref();
      await Promise.all(slots);
      clearTimeout(late);
    },
  };
}

/** Whether this process is a worker. */
export const { isWorker } = cluster;

/** Says something to the one that has started this worker. */
export const say = (said: string): void => void process.send?.({ said });

/** What runs in a worker. */
export interface Work<Ready> {
  ready: Ready;
  told(message: object): void;
  end(): Promise<void>;
}

/**
 * Does a worker's work until it is to end, or the one that has started it is gone.
 * @param begin is given what the worker is told first
 */
export async function work<Told, Ready>(begin: (told: Told) => Promise<Work<Ready>>): Promise<void> {
  const report = (its: Report<Ready>) => process.send?.(its);
  const told = await new Promise<Told>((resolve) =>
    process.once('message', (message: { work: Told }) => resolve(message.work)),
  );
  let running: Work<Ready>;
  try {
    running = await begin(told);
  } catch (error) {
    report({ failed: toRefusal(error) });
    if (process.connected) process.disconnect?.();
    return;
  }
  const end = new Promise<void>((resolve) => {
    process.on('message', (message: { told?: object; end?: true }) => {
      if (message.told) running.told(message.told);
      if (message.end) resolve();
    });
    // Whoever is started in the place of one that was killed needs the ports.
    process.on('disconnect', () => process.exit(EX_SOFTWARE));
  });
  // The one that has started it says when: a terminal sends these to all processes at once.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  report({ ready: running.ready });
  await end;
  process.removeAllListeners('disconnect');
  await running.end();
  if (process.connected) process.disconnect?.();
}
