const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** The mean year of the Julian calendar; a month is its twelfth part. */
const YEAR = 365.25 * DAY;
const LONGEST = 10_000 * YEAR;

/** Spellings of each unit, and its milliseconds. `m` is a minute and `M` a month. */
const units: [spelling: RegExp, milliseconds: number][] = [
  [/^(ms|millis)$/, 1],
  [/^(s|secs?|seconds?)$/, SECOND],
  [/^(m|mins?|minutes?)$/, MINUTE],
  [/^(h|hrs?|hours?)$/, HOUR],
  [/^(d|days?)$/, DAY],
  [/^(w|wks?|weeks?)$/, 7 * DAY],
  [/^(M|months?)$/, YEAR / 12],
  [/^(y|yrs?|years?)$/, YEAR],
];

/**
 * Reads a duration such as `90 days`, `24h` or `1 year 6 months`: numbers and units in turn. A year has 365.25 days
 * and a month a twelfth of that.
 * @returns milliseconds; undefined where it is malformed, nothing, or longer than 10,000 years
 */
export function parseDuration(text: string): number | undefined {
  if (text.length > 256 || !/^\s*([0-9]{1,15}\s*[A-Za-z]{1,10}\s*)+$/.test(text)) return undefined;
  let total = 0;
  for (const [, number, unit = ''] of text.matchAll(/([0-9]+)\s*([A-Za-z]+)/g)) {
    const known = units.find(([spelling]) => spelling.test(unit));
    if (!known) return undefined;
    total += Number(number) * known[1];
  }
  return total > 0 && total <= LONGEST ? total : undefined;
}
