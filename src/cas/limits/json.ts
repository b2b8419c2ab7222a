import { BYTES_OF_STEP, type Pace } from './pace.ts';

/** Characters that are encoded at once. */
const PIECE = 64 * 1024;
/** Steps that a name or a short value takes. */
const SHORT = 0.25;

/**
 * What JSON.stringify gives, in UTF-8 and in pieces, made while others are served. A Map is written as an object is.
 * @throws Failure CAS_BUSY
 */
export async function jsonInPieces(pace: Pace, value: unknown): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  let text = '';
  for (const part of partsOf(value)) {
    text += part;
    if (text.length >= PIECE) {
      pieces.push(Buffer.from(text));
      text = '';
    }
    const turn = pace(SHORT + part.length / BYTES_OF_STEP);
    if (turn) await turn;
  }
  if (text !== '') pieces.push(Buffer.from(text));
  return pieces;
}

function* partsOf(value: unknown): Generator<string> {
  if (typeof value === 'string' && value.length > PIECE) {
    yield '"';
    for (let from = 0, end = 0; from < value.length; from = end) {
      end = from + PIECE;
      // A character of two units is not taken apart.
      if (isFirstOfTwo(value.charCodeAt(end - 1))) end++;
      yield JSON.stringify(value.slice(from, end)).slice(1, -1);
    }
    yield '"';
  } else if (Array.isArray(value)) {
    let before = '[';
    for (const item of value) {
      yield before;
      yield* partsOf(item ?? null);
      before = ',';
    }
    yield before === '[' ? '[]' : ']';
  } else if (typeof value === 'object' && value !== null) {
    let before = '{';
    for (const [name, item] of value instanceof Map ? value : Object.entries(value)) {
      if (item === undefined) continue;
      yield `${before}${JSON.stringify(name)}:`;
      yield* partsOf(item);
      before = ',';
    }
    yield before === '{' ? '{}' : '}';
  } else yield JSON.stringify(value);
}

const isFirstOfTwo = (unit: number) => unit >= 0xd800 && unit < 0xdc00;
