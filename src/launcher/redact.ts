import { createAutomaton } from './automaton.ts';
import { createTrack, readBackslash, readBase64, readHex, readPercent, readPlain } from './readings.ts';

/**
 * Shorter secrets stay: in any output their bytes stand by chance, and what is then missing from a known text tells
 * them.
 */
const SHORTEST_SECRET = 4;
/** Shorter lines of a secret stay where they stand alone, as they may be anything: `{`, `host: localhost`. */
const SHORTEST_LINE = 16;
const PEM_BOUNDARY = /^-----(BEGIN|END) [^-]*-----$/;
/** By terminals, in forms, and by shells within single quotes. */
const RESPELLINGS: [from: RegExp, to: string][] = [
  [/\r?\n/g, '\r\n'],
  [/ /g, '+'],
  [/'/g, "'\\''"],
  [/'/g, `'"'"'`],
];
const REDACTED = Buffer.from('[redacted]');

/** Takes output in pieces, and gives it without secrets. */
export interface Redactor {
  /**
   * Gives all but the end that may be the beginning of a secret. One letter or digit often is, as base64 of something
   * and a secret.
   */
  push(chunk: Buffer): Buffer;
  /** Gives what is left. */
  end(): Buffer;
}

/**
 * Puts `[redacted]` in the place of secrets, where the output has them
 *
 * - as they are, with CR LF for LF, without the line breaks at their end, and each longer line of them by itself;
 * - in hexadecimal of either case, also with a blank or colon between bytes, and wrapped;
 * - in base64 or base64url, also inside a longer encoded text, and wrapped;
 * - percent-encoded, with any bytes encoded, and with `+` for a blank;
 * - with backslashes: JSON, `printf %q`, `$'…'`, and most of what programming languages show strings as;
 * - in single quotes of a shell.
 *
 * One encoding inside another, other encodings, and parts of a secret are not found. A bordering or overlapping
 * second secret gets no mark of its own. Takes time in proportion to the output, and memory to the secrets.
 */
export function createRedactor(secrets: readonly Buffer[]): Redactor {
  const patterns = patternsOf(secrets);
  if (patterns.length === 0) return { push: (chunk) => chunk, end: () => Buffer.alloc(0) };
  const automaton = createAutomaton(patterns);
  const longest = patterns.reduce((most, { length }) => Math.max(most, length), 0);
  /** What is to be taken out of the rest of the output. Positions count from the beginning of all output. */
  let ranges: Range[] = [];
  const take = (start: number, end: number) => {
    const last = ranges.at(-1);
    if (!last || start > last.end || end < last.start) ranges.push({ start, end });
    else {
      last.start = Math.min(last.start, start);
      last.end = Math.max(last.end, end);
    }
  };
  const track = () => createTrack(automaton, longest, take);
  const readings = [
    readPlain(track()),
    readHex([track(), track()]),
    readBase64([track(), track(), track(), track()], take),
    readPercent(track()),
    readBackslash(track()),
  ];

  let held: Buffer = Buffer.alloc(0);
  /** Position of the first byte that was not given yet, and that up to which the last mark goes. */
  let front = 0;
  let marked = -1;
  const release = (limit: number): Buffer => {
    const base = front;
    const given: Buffer[] = [];
    const giveUpTo = (position: number) => {
      if (position <= front) return;
      given.push(held.subarray(front - base, position - base));
      front = position;
    };
    ranges = merge(ranges);
    const due = ranges.filter(({ start }) => start <= limit);
    for (const { start, end } of due) {
      giveUpTo(start);
      if (end <= front) continue;
      if (front !== marked) given.push(REDACTED);
      front = end;
      marked = end;
    }
    ranges = ranges.slice(due.length);
    giveUpTo(limit);
    held = held.subarray(front - base);
    return Buffer.concat(given);
  };

  return {
    push(chunk) {
      const offset = front + held.length;
      held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
      for (const { read } of readings) read(chunk, offset);
      return release(Math.min(offset + chunk.length, ...readings.map(({ begun }) => begun())));
    },
    end: () => release(front + held.length),
  };
}

interface Range {
  start: number;
  end: number;
}

function merge(ranges: Range[]): Range[] {
  const merged: Range[] = [];
  for (const range of ranges.sort((one, other) => one.start - other.start)) {
    const last = merged.at(-1);
    if (last && range.start <= last.end) last.end = Math.max(last.end, range.end);
    else merged.push(range);
  }
  return merged;
}

/** What to look for, where encodings that are undone byte by byte are undone already. */
function patternsOf(secrets: readonly Buffer[]): Buffer[] {
  const found = new Set<string>();
  for (const secret of secrets) {
    // One character a byte.
    const text = secret.toString('latin1');
    const trimmed = text.replace(/[\r\n]+$/, '');
    const lines = trimmed.split(/\r?\n/).map((line) => line.replace(/^[ \t]+|[ \t]+$/g, ''));
    const alone = lines.filter((line) => line.length >= SHORTEST_LINE && !PEM_BOUNDARY.test(line));
    for (const part of [text, trimmed, ...(lines.length > 1 ? alone : [])]) {
      found.add(part);
      for (const [from, to] of RESPELLINGS) found.add(part.replaceAll(from, to));
    }
  }
  return [...found]
    .map((pattern) => Buffer.from(pattern, 'latin1'))
    .filter(({ length }) => length >= SHORTEST_SECRET);
}
