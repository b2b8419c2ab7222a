import { formatTime } from '../../attestation/x509/chain.ts';
import { printable } from '../../protocol/refusal.ts';

/** Values as they are found in Evidence and verdicts. */
type Value = string | number | boolean | undefined | readonly Value[] | object;

/** Times, in milliseconds since 1970, have names that end so. */
const TIME = /(Until|Date|At)$/;

/** A value for people: a line for each field, what belongs to one further to the right. */
export function fields(value: object, indent = ''): string {
  return Object.entries(value)
    .map(([name, each]: [string, Value]) => field(name, each, indent))
    .join('');
}

function field(name: string, value: Value, indent: string): string {
  if (value === undefined) return '';
  const label = `${indent}${printable(name)}:`;
  if (Array.isArray(value) && value.some((each) => typeof each === 'object'))
    return `${label}\n${value.map((each) => listed(each, `${indent}  `)).join('')}`;
  if (Array.isArray(value)) return `${label} ${value.map((each) => text(name, each)).join(', ') || 'none'}\n`;
  if (typeof value === 'object') return `${label}\n${fields(value, `${indent}  `)}`;
  return `${label} ${text(name, value)}\n`;
}

/** An element of a list, with a dash before its first line. */
function listed(value: Value, indent: string): string {
  if (typeof value !== 'object') return `${indent}- ${text('', value)}\n`;
  return fields(value, `${indent}  `).replace(`${indent}  `, () => `${indent}- `);
}

function text(name: string, value: Value): string {
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'number' && TIME.test(name)) return formatTime(value);
  return printable(String(value));
}
