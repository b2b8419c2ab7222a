import type { Automaton } from './automaton.ts';

/** Digits that a line has at least where encoded text was wrapped after it; no tool wraps earlier. */
const SHORTEST_WRAPPED = 24;
/** Line breaks and blanks in a row that encoded text may go on after. It bounds what is held back. */
const WIDEST_GAP = 64;

/** One way to read output as bytes. Positions count from the beginning of all output. */
export interface Reading {
  /** Reads on; `offset` is the position of the chunk. */
  read(chunk: Buffer, offset: number): void;
  /** Where a pattern may have begun that is not at its end yet; infinite where none has. */
  begun(): number;
}

/** Bytes in a row as a reading has them, in which patterns are found. */
export interface Track {
  /** Takes the next byte, which the output has from `start` to `end`, and tells whether a pattern ends with it. */
  add(byte: number, start: number, end: number): boolean;
  /** What comes next does not follow on what was. */
  interrupt(): void;
  /** As {@link Reading.begun}. */
  begun(): number;
  /** The same where the output has the first `count` bits of one more byte, from `start` on. */
  begunWith(bits: number, count: number, start: number): number;
}

/**
 * @param longest bytes of the longest pattern
 * @param take is told where in the output a pattern was found
 */
export function createTrack(
  automaton: Automaton,
  longest: number,
  take: (start: number, end: number) => void,
): Track {
  const { next, found, settle, depth, reach } = automaton;
  /** Where the last bytes begin, in a ring. */
  const starts = new Float64Array(2 ** Math.ceil(Math.log2(longest + 1)));
  const mask = starts.length - 1;
  let count = 0;
  let state = 0;
  const startOf = (back: number) => starts[(count - back) & mask] ?? 0;
  return {
    add(byte, start, end) {
      state = next(state, byte);
      if (state === 0) return false;
      starts[count] = start;
      count = (count + 1) & mask;
      const length = found(state);
      if (length === 0) return false;
      take(startOf(length), end);
      state = settle(state);
      return true;
    },
    interrupt() {
      state = 0;
    },
    begun: () => (state === 0 ? Number.POSITIVE_INFINITY : startOf(depth(state))),
    begunWith(bits, known, start) {
      const back = reach(state, bits, known);
      if (back < 0) return Number.POSITIVE_INFINITY;
      return back === 0 ? start : startOf(back);
    },
  };
}

const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const PERCENT = 0x25;
const COLON = 0x3a;
const EQUALS = 0x3d;
const BACKSLASH = 0x5c;

/** Values of digits by their bytes; -1 is none. */
function digits(...alphabets: string[]): Int8Array {
  const values = new Int8Array(256).fill(-1);
  for (const alphabet of alphabets)
    for (const [value, digit] of Buffer.from(alphabet).entries()) values[digit] = value;
  return values;
}

const HEX = digits('0123456789abcdef', '0123456789ABCDEF');
const LETTERS_AND_NUMERALS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const BASE64 = digits(`${LETTERS_AND_NUMERALS}+/`, `${LETTERS_AND_NUMERALS}-_`);

/** Bytes as they are. */
export function readPlain(track: Track): Reading {
  return {
    read(chunk, offset) {
      let at = offset;
      for (let index = 0; index < chunk.length; index++) {
        const byte = chunk[index] ?? 0;
        track.add(byte, at, at + 1);
        at++;
      }
    },
    begun: () => track.begun(),
  };
}

/**
 * Two hexadecimal digits a byte, next to each other or with a blank or colon in between; wrapped lines.
 * @param tracks one for bytes that begin with an even digit, one for the others
 */
export function readHex(tracks: [Track, Track]): Reading {
  const [even, odd] = tracks;
  const wrapping = createWrapping();
  /** The track of which the last digit is the first of two, unless something stands after it. */
  let open = even;
  let other = odd;
  let last = 0;
  let lastAt = 0;
  let adjacent = false;
  const interruptOpen = () => {
    if (adjacent) open.interrupt();
    adjacent = false;
  };
  return {
    read(chunk, offset) {
      let at = offset;
      for (let index = 0; index < chunk.length; index++) {
        const byte = chunk[index] ?? 0;
        const value = HEX[byte] ?? -1;
        if (value >= 0) {
          if (adjacent) open.add((last << 4) | value, lastAt, at + 1);
          [open, other] = [other, open];
          last = value;
          lastAt = at;
          adjacent = true;
          wrapping.digit();
        } else if ((adjacent && (byte === SPACE || byte === COLON)) || wrapping.goesOn(byte)) interruptOpen();
        else {
          even.interrupt();
          odd.interrupt();
          adjacent = false;
          wrapping.interrupt();
        }
        at++;
      }
    },
    begun: () => Math.min(other.begun(), adjacent ? open.begunWith(last, 4, lastAt) : open.begun()),
  };
}

type Tracks = [Track, Track, Track, Track];

/**
 * Six bits a character, of the alphabets of base64 and base64url alike; wrapped lines. Where a byte ends in a
 * character, the padding after it belongs to it.
 * @param tracks one for each of the characters that a group of four may begin with, counted from anywhere
 */
export function readBase64(tracks: Tracks, take: (start: number, end: number) => void): Reading {
  const wrapping = createWrapping();
  const [one] = tracks;
  /** The place of the last character in its group of four is `turn` less the number of the track, modulo 4. */
  let turn = 0;
  /** Of the last two characters. */
  let bits = 0;
  let lastAt = 0;
  let started = false;
  let padding = 0;
  return {
    read(chunk, offset) {
      let at = offset;
      for (let index = 0; index < chunk.length; index++) {
        const byte = chunk[index] ?? 0;
        const value = BASE64[byte] ?? -1;
        if (value >= 0) {
          turn = (turn + 1) & 3;
          bits = ((bits << 6) | value) & 0xfff;
          padding = 0;
          if (started) {
            for (let place = 3; place > 0; place--) {
              const track = tracks[(turn - place) & 3] ?? one;
              if (track.add((bits >> (6 - 2 * place)) & 0xff, lastAt, at + 1)) padding = 3 - place;
            }
          }
          started = true;
          lastAt = at;
          wrapping.digit();
        } else if (!wrapping.goesOn(byte)) {
          if (byte === EQUALS && padding > 0) {
            take(at, at + 1);
            padding--;
          } else padding = 0;
          if (started) for (const track of tracks) track.interrupt();
          started = false;
          wrapping.interrupt();
        } else padding = 0;
        at++;
      }
    },
    begun() {
      if (!started) return Number.POSITIVE_INFINITY;
      const begins = tracks.map((track, number) => {
        const place = (turn - number) & 3;
        const known = 6 - 2 * place;
        return known === 0 ? track.begun() : track.begunWith(bits & ((1 << known) - 1), known, lastAt);
      });
      return Math.min(...begins);
    },
  };
}

/** Tells whether encoded text may go on after what is not a digit: a line break after a line long enough, and blanks. */
function createWrapping() {
  let inLine = 0;
  let gap = 0;
  return {
    digit() {
      inLine++;
      gap = 0;
    },
    goesOn(byte: number): boolean {
      const isBreak = byte === LF || byte === CR;
      if (gap === 0) {
        if (!isBreak || inLine < SHORTEST_WRAPPED) return false;
        inLine = 0;
      } else if ((!isBreak && byte !== SPACE && byte !== TAB) || gap === WIDEST_GAP) return false;
      gap++;
      return true;
    },
    interrupt() {
      inLine = 0;
      gap = 0;
    },
  };
}

/** Bytes, any of them as a percent sign and two hexadecimal digits (RFC 3986, 2.1). */
export function readPercent(track: Track): Reading {
  /** Characters of an escape so far. */
  let length = 0;
  let start = 0;
  let high = 0;
  return {
    read(chunk, offset) {
      let at = offset;
      for (let index = 0; index < chunk.length; index++) {
        const byte = chunk[index] ?? 0;
        const value = HEX[byte] ?? -1;
        if (length > 0 && value < 0) {
          track.interrupt();
          length = 0;
        }
        if (length === 2) {
          track.add((high << 4) | value, start, at + 1);
          length = 0;
        } else if (length === 1) {
          high = value;
          length = 2;
        } else if (byte === PERCENT) {
          start = at;
          length = 1;
        } else track.add(byte, at, at + 1);
        at++;
      }
    },
    begun: () =>
      length === 2
        ? track.begunWith(high, 4, start)
        : Math.min(track.begun(), length === 1 ? start : Number.POSITIVE_INFINITY),
  };
}

/** Escapes of one character that stand for another one; all others stand for themselves. */
const ESCAPED = new Map(
  Object.entries({ a: 7, b: 8, t: TAB, n: LF, v: 11, f: 12, r: CR, e: 27, E: 27 }).map(([name, byte]) => [
    name.charCodeAt(0),
    byte,
  ]),
);

/** Escapes of a number: how many digits it has, of how many bits each, and whether it is a unit of UTF-16. */
const UNIT = { digits: 4, bits: 4, unit: true };
const BYTE = { digits: 2, bits: 4, unit: false };
const OCTAL = { digits: 3, bits: 3, unit: false };

/** Bytes, any of them after a backslash: `\n`, `\"`, `\xhh`, `\ooo`, `\uhhhh` (in UTF-8), and what stands for itself. */
export function readBackslash(track: Track): Reading {
  let start = 0;
  let afterBackslash = false;
  let number: typeof UNIT | undefined;
  let digits = 0;
  let value = 0;
  /** The first half of a character of two units, and where it begins. */
  let high = 0;
  let highStart = 0;

  const interrupt = () => {
    track.interrupt();
    high = 0;
    number = undefined;
  };
  const add = (byte: number, from: number, end: number) => {
    if (high !== 0) interrupt();
    track.add(byte, from, end);
  };
  const addUnit = (unit: number, end: number) => {
    const isLow = unit >= 0xdc00 && unit <= 0xdfff;
    if (isLow !== (high !== 0)) interrupt();
    if (unit >= 0xd800 && unit <= 0xdbff) {
      high = unit;
      highStart = start;
    } else if (!isLow) for (const byte of Buffer.from(String.fromCharCode(unit))) track.add(byte, start, end);
    else if (high !== 0) {
      for (const byte of Buffer.from(String.fromCharCode(high, unit))) track.add(byte, highStart, end);
      high = 0;
    }
  };
  const beginNumber = (kind: typeof UNIT) => {
    number = kind;
    digits = 0;
    value = 0;
  };
  const addDigit = (kind: typeof UNIT, digit: number, end: number) => {
    value = (value << kind.bits) | digit;
    digits++;
    if (digits < kind.digits) return;
    number = undefined;
    if (kind.unit) addUnit(value, end);
    else add(value & 0xff, start, end);
  };

  return {
    read(chunk, offset) {
      let at = offset;
      for (let index = 0; index < chunk.length; index++) {
        const byte = chunk[index] ?? 0;
        at++;
        const digit = HEX[byte] ?? -1;
        if (number) {
          if (digit >= 0 && digit < 1 << number.bits) {
            addDigit(number, digit, at);
            continue;
          }
          interrupt();
        }
        if (afterBackslash) {
          afterBackslash = false;
          if (byte === 0x75) beginNumber(UNIT);
          else if (byte === 0x78) beginNumber(BYTE);
          else if (digit >= 0 && digit <= 7 && byte < 0x38) {
            beginNumber(OCTAL);
            addDigit(OCTAL, digit, at);
          } else add(ESCAPED.get(byte) ?? byte, start, at);
        } else if (byte === BACKSLASH) {
          afterBackslash = true;
          start = at - 1;
        } else add(byte, at - 1, at);
      }
    },
    begun: () =>
      Math.min(
        track.begun(),
        high !== 0 ? highStart : afterBackslash || number ? start : Number.POSITIVE_INFINITY,
      ),
  };
}
