import { isDeepStrictEqual } from 'node:util';
import type { Session } from '../../policy/session.ts';

/** Lists whose entries go by their names. */
const named = ['services', 'images', 'secrets', 'volumes'] as const;
type Named = (typeof named)[number];
const isNamed = (key: string): key is Named => (named as readonly string[]).includes(key);

/**
 * What differs between two sessions: keys at the top, and for lists and mappings what in them, such as
 * `services (web, +admin)`, where + is new, - gone, and anything else changed. Who created them, and which version is
 * before each, are no differences.
 */
export function changedSections(before: Session, after: Session): string[] {
  const [old, now] = [contentsOf(before), contentsOf(after)];
  const keys = [...new Set([...Object.keys(now), ...Object.keys(old)])] as (keyof typeof now)[];
  return keys.flatMap((key) => {
    if (isDeepStrictEqual(old[key], now[key])) return [];
    const inside = isNamed(key)
      ? entriesChanged(byName(old[key]), byName(now[key]))
      : isMapping(old[key]) && isMapping(now[key])
        ? entriesChanged(new Map(Object.entries(old[key])), new Map(Object.entries(now[key])))
        : [];
    return [inside.length > 0 ? `${key} (${inside.join(', ')})` : key];
  });
}

function contentsOf({ creator: _, predecessor: __, ...contents }: Session) {
  return contents;
}

function entriesChanged(old: Map<string, unknown>, now: Map<string, unknown>): string[] {
  const isEqual = (name: string) => isDeepStrictEqual(old.get(name), now.get(name));
  const added = [...now.keys()].filter((name) => !old.has(name)).map((name) => `+${name}`);
  const kept = [...old.keys()].filter((name) => !isEqual(name));
  return [...kept.map((name) => (now.has(name) ? name : `-${name}`)), ...added];
}

function byName(list: readonly { name: string }[]): Map<string, unknown> {
  return new Map(list.map((entry) => [entry.name, entry]));
}

function isMapping(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
