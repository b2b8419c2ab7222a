import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import type { Span } from './tracing.ts';

/** Who has the CAS do something: where from, and who he says he is. */
export interface Asker {
  /** As {@link sourceOf} gives it. */
  source: string;
  /** A client's key, or the session of a launcher. */
  identity: string;
  /** Aborted once nobody waits for the answer any more. */
  gone?: AbortSignal;
}

/** What ties together all that is said about one request or one connection of a launcher. */
interface Correlation {
  id: string;
  asker?: Asker | undefined;
  /** The trace that is under way, where traces are kept. */
  span?: Span;
}

const current = new AsyncLocalStorage<Correlation>();

/** Sixteen hexadecimal digits. */
export const newCorrelationId = (): string => randomBytes(8).toString('hex');

/** Does something whose log lines, and whose trace, bear an id, and whose cost is somebody's. */
export const correlated = <Result>(id: string, asker: Asker, work: () => Result): Result =>
  current.run({ id, asker }, work);

export const correlation = (): Correlation | undefined => current.getStore();

const nobody: Asker = { source: '', identity: '' };

/** Whose request this is; what the CAS does by itself is its own. */
export const asker = (): Asker => correlation()?.asker ?? nobody;

/** Does something within a span. */
export const within = <Result>(span: Span, work: () => Result): Result =>
  current.run({ ...correlation(), id: correlation()?.id ?? newCorrelationId(), span }, work);
