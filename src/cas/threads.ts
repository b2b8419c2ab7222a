import { getRawAsset, isSea } from 'node:sea';
import { Worker } from 'node:worker_threads';
import { Failure, failure } from '../errors.ts';
import { InvalidText } from '../policy/problem.ts';
import { SecretUnusable } from '../secrets/kinds.ts';
import { createTurns } from './limits/turns.ts';
import type { Job, Jobs, Outcome } from './thread.ts';

/**
 * Threads for what takes long, so that everybody else is answered meanwhile. There are two, each with a queue of its own:
 * what takes milliseconds does not wait for what takes seconds.
 */
const threads = { short: createThread(), long: createThread() };

/** Milliseconds for one job; the longest takes a few seconds. */
const DEADLINE = 30_000;
/** Milliseconds after which a thread without work ends. */
const IDLE = 60_000;
/** Mebibytes of objects that a thread may have; a text that needs more is refused. */
const MEMORY = 512;

/**
 * Does a job in a thread, when it is the turn of who asks for it.
 * @throws what the job throws, or Failure CAS_BUSY
 */
export async function inThread<Name extends Job>(
  thread: keyof typeof threads,
  job: Name,
  input: Parameters<Jobs[Name]>[0],
): Promise<Awaited<ReturnType<Jobs[Name]>>> {
  const outcome = await threads[thread](job, input);
  if ('invalidText' in outcome) throw new InvalidText(outcome.invalidText);
  if ('secretUnusable' in outcome) throw new SecretUnusable(outcome.secretUnusable);
  if ('failure' in outcome) throw new Failure(outcome.failure.code, outcome.failure.values);
  if ('failed' in outcome) throw new Error(outcome.failed);
  return outcome.done as Awaited<ReturnType<Jobs[Name]>>;
}

function createThread(): (job: Job, input: unknown) => Promise<Outcome> {
  const turns = createTurns(1);
  let worker: Worker | undefined;
  let idle: NodeJS.Timeout | undefined;
  let underWay: PromiseWithResolvers<Outcome> | undefined;
  const start = () => {
    const its = startWorker();
    its.on('message', (outcome: Outcome) => underWay?.resolve(outcome));
    // An end is heard of by `exit` in any case.
    its.on('error', () => {});
    its.on('exit', () => {
      if (worker !== its) return;
      worker = undefined;
      // Mostly since a text took all of its memory.
      underWay?.reject(failure('CAS_BUSY'));
    });
    return its;
  };
  const end = () => {
    void worker?.terminate();
    worker = undefined;
  };
  return (job, input) =>
    turns(async () => {
      clearTimeout(idle);
      worker ??= start();
      const its = worker;
      its.ref();
      const ended = Promise.withResolvers<Outcome>();
      underWay = ended;
      const late = setTimeout(() => {
        end();
        ended.reject(failure('CAS_BUSY'));
      }, DEADLINE).unref();
      try {
        its.postMessage({ job, input });
        return await ended.promise;
      } finally {
        clearTimeout(late);
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
