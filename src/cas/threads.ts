import { getRawAsset, isSea } from 'node:sea';
import { Worker } from 'node:worker_threads';
import { Failure, failure } from '../errors.ts';
import { createAllowances } from '../platform/allowances.ts';
import { InvalidText } from '../policy/problem.ts';
import { SecretUnusable } from '../secrets/kinds.ts';
import { createTurns } from './limits/turns.ts';
import { asker } from './observe/correlation.ts';
import type { Job, Jobs, Outcome } from './thread.ts';

/** Milliseconds for one job in the thread for short ones, and in the other: the longest takes a few seconds. */
const SHORT = 250;
const LONG = 30_000;
/** Milliseconds that a short job may take; and what those of one source that take longer may take at once, and each second. */
const FREE = 50;
const SLOW = 500;
const SLOW_A_SECOND = 10;
/** Milliseconds after which a thread without work ends. */
const IDLE = 60_000;
/** Mebibytes of objects that a thread may have; a text that needs more is refused. */
const MEMORY = 512;

const slow = createAllowances(SLOW, SLOW_A_SECOND);

/**
 * Threads for what takes long, so that everybody else is answered meanwhile. There are two, each with a queue of its own:
 * what takes milliseconds does not wait for what takes seconds.
 */
const threads = {
  short: createThread(SHORT, (milliseconds) => {
    if (milliseconds > FREE) slow.take(asker().source, milliseconds);
  }),
  long: createThread(LONG),
};

/**
 * Does a job in a thread, when it is the turn of who asks for it. Jobs may be done twice: one that turns out to take long in the thread
 * for short ones is done anew in the other. Whose short jobs often take long has all of them done in the other.
 * @throws what the job throws, or Failure CAS_BUSY
 */
export async function inThread<Name extends Job>(
  thread: keyof typeof threads,
  job: Name,
  input: Parameters<Jobs[Name]>[0],
): Promise<Awaited<ReturnType<Jobs[Name]>>> {
  const isShort = thread === 'short' && slow.left(asker().source) > 0;
  const inShort = isShort ? await threads.short(job, input) : 'late';
  const outcome = inShort === 'late' ? await threads.long(job, input) : inShort;
  if (outcome === 'late') throw failure('CAS_BUSY');
  if ('invalidText' in outcome) throw new InvalidText(outcome.invalidText);
  if ('secretUnusable' in outcome) throw new SecretUnusable(outcome.secretUnusable);
  if ('failure' in outcome) throw new Failure(outcome.failure.code, outcome.failure.values);
  if ('failed' in outcome) throw new Error(outcome.failed);
  return outcome.done as Awaited<ReturnType<Jobs[Name]>>;
}

/**
 * @param most milliseconds for one job
 * @param took is told of the milliseconds that a job has taken, on behalf of who asked for it
 */
function createThread(
  most: number,
  took = (_milliseconds: number): void => {},
): (job: Job, input: unknown) => Promise<Outcome | 'late'> {
  const turns = createTurns(1);
  let worker: Worker | undefined;
  let idle: NodeJS.Timeout | undefined;
  let underWay: { begun: () => void; ended: PromiseWithResolvers<Outcome | 'late'> } | undefined;
  const start = () => {
    const its = startWorker();
    its.on('message', (message: Outcome | 'begun') => {
      // What one that was ended still says is about another job.
      if (worker !== its) return;
      if (message === 'begun') underWay?.begun();
      else underWay?.ended.resolve(message);
    });
    // An end is heard of by `exit` in any case.
    its.on('error', () => {});
    its.on('exit', () => {
      if (worker !== its) return;
      worker = undefined;
      // Mostly since a text took all of its memory.
      underWay?.ended.reject(failure('CAS_BUSY'));
    });
    return its;
  };
  const end = () => {
    void worker?.terminate();
    worker = undefined;
  };
  return (job, input) =>
    turns(async () => {
      const { gone } = asker();
      clearTimeout(idle);
      worker ??= start();
      const its = worker;
      its.ref();
      const ended = Promise.withResolvers<Outcome | 'late'>();
      let late: NodeJS.Timeout | undefined;
      const endIn = (milliseconds: number) => {
        clearTimeout(late);
        late = setTimeout(() => {
          end();
          ended.resolve('late');
        }, milliseconds).unref();
      };
      // Whoever asked may go before that, and then it is soon for nothing.
      const leave = () => endIn(SHORT);
      // A thread that has yet to start takes longer for that than for most jobs.
      endIn(LONG);
      let begun: number | undefined;
      const begin = () => {
        begun = performance.now();
        endIn(gone?.aborted ? SHORT : most);
      };
      underWay = { begun: begin, ended };
      gone?.addEventListener('abort', leave);
      try {
        its.postMessage({ job, input });
        return await ended.promise;
      } finally {
        clearTimeout(late);
        if (begun !== undefined) took(performance.now() - begun);
        gone?.removeEventListener('abort', leave);
        its.unref();
        idle = setTimeout(end, IDLE).unref();
      }
    });
}

/** The thread has the same programs as its process, without its environment. */
function startWorker(): Worker {
  const options = {
    env: {},
    execArgv: ['--disable-warning=ExperimentalWarning'],
    resourceLimits: { maxOldGenerationSizeMb: MEMORY },
  };
  if (!isSea()) return new Worker(new URL('./thread.ts', import.meta.url), options);
  return new Worker(Buffer.from(getRawAsset('main.cjs')).toString(), { ...options, eval: true });
}
