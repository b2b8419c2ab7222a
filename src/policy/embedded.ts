import { isScalar, parse, type YAMLMap } from 'yaml';
import type { Path } from './problem.ts';
import { LAUNCHER_CONFIGURATION_PATH } from './schema/launcher.ts';

/** Values of a session that are texts with parts of their own. */
interface Embedded {
  /** What it is, for users. */
  name: string;
  /** What it means, to be compared. */
  read(text: string): unknown;
}

const configuration: Embedded = {
  name: LAUNCHER_CONFIGURATION_PATH,
  // Texts as they are written, and what of them is null.
  read: (text) => [
    parse(text, { schema: 'failsafe', logLevel: 'error' }),
    shapeOf(parse(text, { schema: 'core', logLevel: 'error' })),
  ],
};
const sharing: Embedded = {
  name: 'what is shared with whom',
  read(text) {
    const at = text.indexOf('/');
    const pieces = text.slice(at + 1).split(',');
    return [
      text.slice(0, Math.max(0, at)),
      ...pieces.map((piece) => /^([^=]*)(=?)(.*)$/s.exec(piece)?.slice(1)),
    ];
  },
};

/** What a value is, if it has parts of its own. @param within what it stands in, with its variables or without */
export function embeddedAt(path: Path, within: YAMLMap | undefined, fill: (text: string) => string) {
  const [above, last] = path.slice(-2);
  if (last === 'import' || last === 'export' || above === 'export') return sharing;
  const file = within?.get('path', true);
  const isConfiguration = isScalar(file) && fill(String(file.value)) === LAUNCHER_CONFIGURATION_PATH;
  return last === 'content' && isConfiguration ? configuration : undefined;
}

/**
 * Whether values that were filled into a text are values there, and not further parts of it.
 * @param values by name
 */
export function staysValue(
  { read }: Embedded,
  template: (values: (name: string) => string) => string,
  values: ReadonlyMap<string, string>,
): boolean {
  const meaning = (text: string) => {
    try {
      return JSON.stringify(read(text), (_, value) => value ?? '');
    } catch {
      return undefined;
    }
  };
  // Letters alone, which no value has.
  const unlike = longestRunOf('z', [...values.values(), template(() => '')]);
  const stands = new Map([...values.keys()].map((name, at) => [name, `q${unlike}${'y'.repeat(at + 1)}q`]));
  let expected = meaning(template((name) => stands.get(name) ?? ''));
  // What is not well formed without values is told of as that.
  if (expected === undefined) return true;
  for (const [name, stand] of stands)
    expected = expected.replaceAll(stand, () => JSON.stringify(values.get(name) ?? '').slice(1, -1));
  return meaning(template((name) => values.get(name) ?? '')) === expected;
}

const longestRunOf = (letter: string, texts: readonly string[]) =>
  letter.repeat(
    1 +
      Math.max(
        0,
        ...texts.flatMap((text) => text.match(new RegExp(`${letter}+`, 'g')) ?? []).map((run) => run.length),
      ),
  );

/** What is null, and what is not. */
const shapeOf = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(shapeOf);
  if (typeof value !== 'object' || value === null) return value === null;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, shapeOf(item)]));
};
