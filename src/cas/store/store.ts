import type { Statements } from './database.ts';

/** Values of the CAS itself. */
export interface State {
  /** A value, or undefined. */
  readState(name: string): Promise<Buffer | undefined>;
  /** Keeps the value unless there is one; gives the one that is kept. */
  createState(name: string, value: Buffer): Promise<Buffer>;
  /** Replaces a value, if it is still the one that was read. @returns whether it was */
  replaceState(name: string, value: Buffer, before: Buffer): Promise<boolean>;
}

/**
 * What a CAS keeps. Each method is one transaction; whatever must happen once is decided by a constraint of
 * the database, never by reading first. Secrets come here sealed.
 */
export interface Store extends State {
  /** The newest version of a session, or undefined. */
  activeVersion(session: string): Promise<StoredVersion | undefined>;
  /** Numbers of the newest versions of those sessions that are there. */
  newest(sessions: readonly string[]): Promise<Map<string, number>>;
  /** The version of a session with this pseudonym of its hash, or undefined. */
  versionByHash(session: string, hash: Buffer): Promise<StoredVersion | undefined>;
  /** What was issued last for a secret, or undefined. */
  issued(session: string, number: number, name: string): Promise<Generation | undefined>;
  /** Keeps what was issued in place of an earlier generation; gives what is kept then. */
  keepIssued(issue: StoredIssue): Promise<Generation>;
  /**
   * Adds a version.
   * @param parent the namespace by whose rules a first version is added
   * @returns what became of it: taken, where the session has a version of that number already, or where the root
   *   namespace comes after another session
   * @param statements of the transaction that this is a part of, where there is one
   */
  addVersion(
    version: StoredVersion,
    parent?: Parent,
    statements?: Statements,
  ): Promise<'added' | 'taken' | 'parent changed'>;
  /** How many sessions have this pseudonym of who created them. @param statements as in addVersion */
  sessionsOf(creator: Buffer, statements?: Statements): Promise<number>;
  /** What names the versions of a session with numbers below `before`, newest first. */
  heads(session: string, before: number, limit: number): Promise<VersionHead[]>;
  /** Names of the sessions just below a namespace (`/` is the root) that come after a name, in order of their bytes. */
  sessionsIn(namespace: string, after: string, limit: number): Promise<string[]>;
  /** Counts a wrong proof of knowledge; takes a right one, unless too many wrong ones came before it. */
  attempt(attempt: Attempt): Promise<AttemptResult>;
  /**
   * Spends what a process may ask a session for once.
   * @param now milliseconds since 1970
   * @returns how often its launch came before; undefined where it may not come again
   */
  admitProcess(session: string, process: Buffer, now: number, comer?: Comer): Promise<number | undefined>;
  /** Notes that a launch has its answer: with what it has spent, nobody comes again. */
  complete(spent: Spent): Promise<void>;
  /** What makers of hardware publish, in order of the keys. */
  collateral(): Promise<StoredCollateral[]>;
  /** Keeps a document unless there is a newer one with its key; of certificates of chips, the last {@link MOST_CHIPS}. */
  keepCollateral(document: StoredCollateral): Promise<boolean>;
  /** The endorsement key of the TPM that has the attestation key with this name, or undefined. */
  endorsementKey(name: Buffer): Promise<Buffer | undefined>;
  /**
   * Keeps a TPM's attestation key, unless it has another one: who reaches the TPM as well would take its host's place.
   * @returns false where it has another one
   */
  enrol(endorsementKey: Buffer, name: Buffer): Promise<boolean>;
  /**
   * Keeps how often a TPM was reset, and resumed since.
   * @returns false where it has been more often already, or the key is not enrolled
   */
  noteBoot(name: Buffer, resetCount: number, restartCount: number): Promise<boolean>;
}

/** A version of a session, without its content. */
export interface VersionHead {
  session: string;
  number: number;
  /** Pseudonym of the session hash: the hash itself would let a guess at a written secret be checked. */
  hash: Buffer;
  /** When it was uploaded and by whom, sealed; null where that was not kept yet. */
  upload: Buffer | null;
}

/** One version of a session. Versions count from 1 and are never changed or deleted. */
export interface StoredVersion extends VersionHead {
  sealed: Buffer;
  /** Pseudonym of who created the session, by which those of one client are counted. */
  creator?: Buffer | null;
}

/** A namespace, and the number of the version that it must still have; 0 is none. */
export interface Parent {
  session: string;
  number: number;
}

/** A certificate or token, each time it is issued anew; counted from 1. */
export interface Generation {
  generation: number;
  sealed: Buffer;
}

/** What is issued for a secret. */
export interface StoredIssue extends Generation {
  session: string;
  /** Of the version; 0 for all of them. */
  number: number;
  /** Of the secret. */
  name: string;
}

/** A document of a maker of hardware (attestation/documents.ts). Times are in milliseconds since 1970. */
export interface StoredCollateral {
  key: string;
  issued: number;
  until: number;
  /** When it came here. */
  kept: number;
  content: Buffer;
}

export const MOST_CHIPS = 4096;

/** Someone shows to know a secret: a one-time password or an access token. */
export interface Attempt {
  /** What is asked for, and from where: wrong attempts are counted for the pair. */
  account: string;
  source: string;
  right: boolean;
  /** For what is good once only: pseudonym of the shared secret, and the time step of the code. */
  once?: { secret: Buffer; step: number };
  /** Whose launch may come again with the same code. */
  comer?: Comer | undefined;
  /** Milliseconds since 1970. */
  now: number;
}

/** A launch that spends what is good once, and may come again with it while it has no answer. */
export interface Comer {
  /** Pseudonym of 32 bytes: of its number, its service, and its process where that is known. */
  launch: Buffer;
  /** It comes again from the same one. */
  source: string;
  /** For how many milliseconds it may come again. */
  patience: number;
}

/** What is good once, by what names its row. */
export type Spent =
  | { table: 'one_time_password'; key: { secret: Buffer; step: number } }
  | { table: 'process'; key: { session: string; process: Buffer } };

/**
 * How often a launch comes with what is good once, where it never says that it has the answer. An honest one was cut off
 * three times by then.
 */
export const MOST_TIMES = 4;

export type AttemptResult =
  /** `repetition`: how often the same launch came before. */
  | { outcome: 'accepted'; repetition?: number }
  | { outcome: 'used' }
  | { outcome: 'invalid' }
  | { outcome: 'throttled'; seconds: number };

/** Wrong attempts that cost nothing. */
const FREE_GUESSES = 5;
const FIRST_PAUSE = 30;
const LONGEST_PAUSE = 3600;

/** Seconds to wait after so many wrong attempts in a row: none, then 30 doubling up to an hour. */
export function pauseAfter(wrong: number): number {
  if (wrong < FREE_GUESSES) return 0;
  return Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (wrong - FREE_GUESSES));
}
