import { formatPath, type Path, type Problem } from './problem.ts';
import type { Value } from './yaml.ts';

/**
 * What is left of a session's document when what has the wrong shape is put aside, so that the rest can be looked at
 * in the same go: an author is told all mistakes at once. What is put aside leaves something behind that nobody
 * stumbles over.
 *
 * @param paths of what is wrong
 * @returns undefined where too much is wrong for the rest to mean anything
 */
export function remainderOf(document: Value, paths: readonly Path[]): Remainder | undefined {
  if (!isMapping(document)) return undefined;
  const value = structuredClone(document);
  const aside: Path[] = [];
  for (const [section, index, key] of paths) {
    if (typeof section !== 'string') return undefined;
    const list = value[section];
    const entry = Array.isArray(list) ? list[Number(index)] : undefined;
    if (isMapping(entry) && isLoose(section) && typeof key === 'string' && key !== 'name') {
      delete entry[key];
      // Something may be missing there now, which is told of the name.
      aside.push([section, Number(index), key], [section, Number(index), 'name']);
    } else if (typeof index === 'number' && Array.isArray(list) && section in standIns) {
      list[index] = standIns[section as keyof typeof standIns](nameOf(list[index], index));
      aside.push([section, index]);
    } else if (section === 'security') {
      // What mode it means to ask for is not known.
      value.security = '$$SCONE::unknown$$';
      aside.push([section]);
    } else if (section === 'name' || section === 'secrets' || section === 'images') {
      return undefined;
    } else if (section === 'version') {
      value.version = '0.3';
    } else {
      delete value[section];
      aside.push([section]);
    }
  }
  const starts = aside.map(formatPath);
  const isAside = ({ path }: Problem) =>
    starts.some((start) => path === start || path.startsWith(`${start}.`) || path.startsWith(`${start}[`));
  return { value, isAside };
}

export interface Remainder {
  value: Value;
  /** Whether a problem is about something that was put aside. */
  isAside(problem: Problem): boolean;
}

/** Sections whose entries make sense without one of their keys. */
const isLoose = (section: string) => section === 'services' || section === 'images';

/** The least that can be said of an entry of a list, under its name, so that others may refer to it. */
const standIns = {
  secrets: (name: string): Value => ({ name, import: { session: '/', secret: 'unknown' } }),
  services: (name: string): Value => ({ name }),
  images: (name: string): Value => ({ name }),
  volumes: (name: string): Value => ({ name }),
};

function nameOf(entry: Value | undefined, index: number): string {
  const name = isMapping(entry) ? entry.name : undefined;
  return typeof name === 'string' && /^[A-Za-z0-9_.~-]{1,512}$/.test(name) ? name : `~${index}`;
}

function isMapping(value: Value | undefined): value is { [key: string]: Value } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
