import { getHeapStatistics } from 'node:v8';
import { failure } from '../../errors.ts';
import { lateness } from '../observe/event-loop.ts';

/** Milliseconds that timers may be late, and part of the memory that may be taken, before a CAS takes on no more. */
const LATE = 2_500;
const FULL = 0.8;

/**
 * Refuses more work while what there is cannot be done in time, or has taken the memory: buffers lie outside the heap, and
 * count with it. @throws Failure CAS_BUSY
 */
export function requireRoom(): void {
  const { used_heap_size, external_memory, heap_size_limit } = getHeapStatistics();
  const isFull = used_heap_size + external_memory > FULL * heap_size_limit;
  if (isFull || lateness() > LATE) throw failure('CAS_BUSY');
}
