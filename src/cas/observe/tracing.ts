import { type ErrorCode, Failure } from '../../errors.ts';
import { Challenge } from '../evidence.ts';
import { correlation, within } from './correlation.ts';

/**
 * One trace for each release, where somebody collects them. What is not configured is not loaded, and costs a comparison.
 * Spans tell which step took how long and how it ended; nothing that is secret, and no name that a client has chosen.
 */
export interface Span {
  child(step: Step): Span;
  end(code?: ErrorCode | 'INTERNAL'): void;
}

/** The steps of a decision (release.ts). */
export type Step =
  | 'session'
  | 'admission'
  | 'evidence'
  | 'appraisal'
  | 'mode'
  | 'factors'
  | 'second factors'
  | 'secrets'
  | 'configuration'
  | 'audit';

export interface Tracer {
  /** @param id that the log lines have */
  begin(name: 'release', id: string): Span;
  /** Sends what is left, for a second at most. */
  close(): Promise<void>;
}

let tracer: Tracer | undefined;

/**
 * Traces from now on.
 * @param endpoint of an OTLP collector over HTTP, without `/v1/traces`
 */
export async function startTracing(endpoint: string): Promise<void> {
  const { openTracer } = await import('./otlp.ts');
  tracer = openTracer(endpoint);
}

export async function stopTracing(): Promise<void> {
  const its = tracer;
  tracer = undefined;
  await its?.close();
}

/** Does something as a trace of its own. */
export function traced<Result>(name: 'release', work: () => Promise<Result>): Promise<Result> {
  if (!tracer) return work();
  const span = tracer.begin(name, correlation()?.id ?? '');
  return within(span, () => ended(span, work));
}

/** Does a step of the trace that is under way, if there is one. */
export function step<Result>(name: Step, work: () => Promise<Result>): Promise<Result> {
  const parent = correlation()?.span;
  if (!parent) return work();
  const span = parent.child(name);
  return within(span, () => ended(span, work));
}

async function ended<Result>(span: Span, work: () => Promise<Result>): Promise<Result> {
  try {
    const result = await work();
    span.end();
    return result;
  } catch (error) {
    // To be asked for more is no error.
    if (error instanceof Challenge) span.end();
    else span.end(error instanceof Failure ? error.code : 'INTERNAL');
    throw error;
  }
}
