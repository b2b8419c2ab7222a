import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import type { Span } from './tracing.ts';

/** What ties together all that is said about one request or one connection of a launcher. */
interface Correlation {
  id: string;
  /** The trace that is under way, where traces are kept. */
  span?: Span;
}

const current = new AsyncLocalStorage<Correlation>();

/** Sixteen hexadecimal digits. */
export const newCorrelationId = (): string => randomBytes(8).toString('hex');

/** Does something whose log lines, and whose trace, bear an id. */
export const correlated = <Result>(id: string, work: () => Result): Result => current.run({ id }, work);

export const correlation = (): Correlation | undefined => current.getStore();

/** Does something within a span. */
export const within = <Result>(span: Span, work: () => Result): Result =>
  current.run({ id: correlation()?.id ?? newCorrelationId(), span }, work);
