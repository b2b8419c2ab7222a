import { createCounts } from './limits/counts.ts';

/** What the answer to a launcher depends on. */
export interface Interest {
  /** The newest version of a session; said before that is read, so that none is missed in between. */
  session(name: string): void;
  /** Something that will be another at a time, in milliseconds since 1970. */
  time(at: number): void;
}

/** One connection that is told of changes. */
export interface Watch extends Interest {
  /** Forgets what the answer before depended on. */
  begin(): void;
  /** False where the answer depends on more than can be watched. */
  isComplete(): boolean;
  /** Resolves once something that was said since `begin` is another. */
  changed(): Promise<void>;
  /** Gives up the place. */
  end(): void;
}

/**
 * Who waits for which sessions. It is kept in memory alone: the connections that wait end with the process as well, and
 * whoever comes back asks anew.
 */
export interface Watches {
  /**
   * A place for a connection, or undefined where there is none.
   * @param session that it came for
   * @param source where it came from, such as an address
   */
  open(session: string, source: string): Watch | undefined;
  /** There is a new version of a session. */
  changed(session: string): void;
  /** Everything may be another. */
  allChanged(): void;
}

/** Connections that wait: in all, and for one session and from one source, so that others find room. */
export const PLACES = 4096;
const PLACES_OF_SESSION = PLACES / 2;
const PLACES_OF_SOURCE = PLACES / 4;
/** Sessions waited for, each counted for every connection: in all, and from one source. */
const INTERESTS = 16 * PLACES;
const INTERESTS_OF_SOURCE = INTERESTS / 4;

/** Milliseconds. What is renewed more often than once a second is told of that often. */
const SHORTEST_WAIT = 1000;
/** The clock is looked at again then: it may have been set, and no timer runs while a machine sleeps. */
const LONGEST_WAIT = 3600 * 1000;

/** @param clock milliseconds since 1970 */
export function createWatches(clock: () => number): Watches {
  /** By session, what to call. */
  const waiting = new Map<string, Set<() => void>>();
  let interests = 0;
  /** Places that are taken, by the session that a connection came for, and by its source. */
  const ofSession = createCounts();
  const ofSource = createCounts();
  const interestsOfSource = createCounts();
  let taken = 0;

  const open = (home: string, source: string): Watch => {
    const sessions = new Set<string>();
    let due = Number.POSITIVE_INFINITY;
    let timer: NodeJS.Timeout | undefined;
    let isChanged = false;
    let isTooMuch = false;
    let tell: (() => void) | undefined;

    const forget = () => {
      clearTimeout(timer);
      due = Number.POSITIVE_INFINITY;
      for (const name of sessions) {
        const others = waiting.get(name);
        others?.delete(change);
        if (others?.size === 0) waiting.delete(name);
      }
      interests -= sessions.size;
      interestsOfSource.add(source, -sessions.size);
      sessions.clear();
    };
    const change = () => {
      forget();
      isChanged = true;
      tell?.();
    };
    const waitUntilDue = () => {
      const pause = Math.min(Math.max(due - clock(), SHORTEST_WAIT), LONGEST_WAIT);
      timer = setTimeout(() => (clock() < due ? waitUntilDue() : change()), pause).unref();
    };

    return {
      begin() {
        forget();
        isChanged = isTooMuch = false;
        tell = undefined;
      },
      session(name) {
        if (isChanged || sessions.has(name)) return;
        if (interests >= INTERESTS || interestsOfSource.of(source) >= INTERESTS_OF_SOURCE) {
          isTooMuch = true;
          return;
        }
        const all = waiting.get(name) ?? new Set();
        waiting.set(name, all.add(change));
        sessions.add(name);
        interests++;
        interestsOfSource.add(source, 1);
      },
      time(at) {
        due = Math.min(due, at);
      },
      isComplete: () => !isTooMuch,
      changed: () =>
        new Promise((resolve) => {
          if (isChanged) return resolve();
          tell = resolve;
          if (due < Number.POSITIVE_INFINITY) waitUntilDue();
        }),
      end() {
        forget();
        taken--;
        ofSession.add(home, -1);
        ofSource.add(source, -1);
      },
    };
  };

  return {
    open(session, source) {
      if (taken >= PLACES) return undefined;
      if (ofSession.of(session) >= PLACES_OF_SESSION) return undefined;
      if (ofSource.of(source) >= PLACES_OF_SOURCE) return undefined;
      taken++;
      ofSession.add(session, 1);
      ofSource.add(source, 1);
      return open(session, source);
    },
    allChanged() {
      for (const changes of [...waiting.values()]) for (const change of [...changes]) change();
    },
    changed(session) {
      // A copy, since whoever is told takes himself out.
      for (const change of [...(waiting.get(session) ?? [])]) change();
    },
  };
}
