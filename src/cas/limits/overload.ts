import { getHeapStatistics } from 'node:v8';
import { failure } from '../../errors.ts';
import { lateness } from '../observe/event-loop.ts';

/** Milliseconds that timers may be late, and part of the heap that may be taken, before a CAS takes on no more. */
const LATE = 2_500;
const FULL = 0.8;
/** Milliseconds that a look at the heap is believed. */
const GOOD = 500;

let until = 0;
let isFull = false;

/** Refuses more work while what there is cannot be done in time, or has taken the memory. @throws Failure CAS_BUSY */
export function requireRoom(): void {
  const now = performance.now();
  if (now > until) {
    const { used_heap_size, heap_size_limit } = getHeapStatistics();
    isFull = used_heap_size > FULL * heap_size_limit;
    until = now + GOOD;
  }
  if (isFull || lateness() > LATE) throw failure('CAS_BUSY');
}
