import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import type { BlockList } from 'node:net';
import { hostname } from 'node:os';
import { setImmediate as tick } from 'node:timers/promises';
import * as v from 'valibot';
import { failure, reason } from '../errors.ts';
import { publicKeyDigest } from '../policy/key-hash.ts';
import { type Identity, selfSignedCertificate } from '../protocol/certificate.ts';
import { version } from '../version.ts';
import { addAttestRoute } from './attest-route.ts';
import type { Log } from './cas.ts';
import { createHttps } from './http.ts';
import { sourceOf } from './limits/source.ts';
import { createTurns } from './limits/turns.ts';
import { listen } from './listen.ts';
import { body, SMALL } from './routes.ts';
import { type Given, openSlot, readShare, type Slot } from './seal/methods.ts';
import { openSeal, type Seal } from './seal/record.ts';

/**
 * A CAS that waits for people to open its store. It answers one port alone, with a key of its own for as long as it is sealed:
 * whoever gives it a passphrase or a share first has it attested.
 */
export interface SealedCas {
  apiPort: number;
  /** SHA-256 of its key. */
  key: Buffer;
  /** Resolves once the store is open. */
  rootKey: Promise<Buffer>;
  close(): Promise<void>;
}

export interface SealedOptions {
  host: string;
  apiPort: number;
  names: readonly string[];
  lasSocket: string;
  balancers?: BlockList | undefined;
  seal: Seal;
  log: Log;
}

const unsealRequest = v.union([
  v.strictObject({ passphrase: v.pipe(v.string(), v.minLength(1), v.maxLength(1024)) }),
  v.strictObject({ share: v.pipe(v.string(), v.maxLength(256)) }),
]);
const DAY = 24 * 3600 * 1000;
/** Seconds until the next guess counts: after the first that was wrong, and at most. */
const FIRST_PAUSE = 1;
const LONGEST_PAUSE = 60;
/** Sources whose guesses wait for their turn, each a tenth of a second; and that are remembered. */
const MOST_WAITING = 64;
const MOST_SOURCES = 65_536;
/** Shares of one source that wait to be tried, each time up to a fifth of a second. */
const MOST_WAITING_OF_SOURCE = 4;
/** Shares that are kept; and which of them are tried together, each in less than a millisecond. */
const MOST_SHARES = 32;
const MOST_TRIED = 200;

interface GivenShare {
  index: number;
  text: string;
  source: string;
}

const distinct = (shares: readonly GivenShare[]) => new Set(shares.map(({ index }) => index)).size;

/** Those of the sources that have brought most come first. */
function byInsistence(shares: readonly GivenShare[]): GivenShare[] {
  const brought = (by: string) => shares.filter(({ source }) => source === by).length;
  return shares.toSorted((a, b) => brought(b.source) - brought(a.source));
}

/** Lets the oldest share go of the source that has brought most. */
function makeRoom(shares: GivenShare[], threshold: number): void {
  while (shares.length > Math.max(MOST_SHARES, 2 * threshold)) {
    const [most] = byInsistence(shares);
    shares.splice(
      shares.findIndex(({ source }) => source === most?.source),
      1,
    );
  }
}

/** Choices of so many shares with different numbers, the last ones first; each is found without a search that ends nowhere. */
function* chosen(
  shares: readonly GivenShare[],
  count: number,
  taken: readonly number[],
): Generator<GivenShare[]> {
  if (count === 0) return yield [];
  const left = shares.filter(({ index }) => !taken.includes(index));
  for (let at = left.length - 1; at >= 0; at--) {
    const share = left[at];
    const before = left.slice(0, at);
    if (!share || distinct(before.filter(({ index }) => index !== share.index)) < count - 1) continue;
    for (const rest of chosen(before, count - 1, [...taken, share.index])) yield [share, ...rest];
  }
}

/** @throws Failure ADDRESS_IN_USE */
export async function serveSealed(options: SealedOptions): Promise<SealedCas> {
  const { host, seal, log } = options;
  const identity = await makeIdentity(options.names);
  const key = publicKeyDigest(createPublicKey(identity.certificate));
  const opened = Promise.withResolvers<Buffer>();
  const shares: GivenShare[] = [];
  const slotOf = (method: Slot['method']): Slot => {
    const found = seal.slots.find((slot) => slot.method === method);
    if (found) return found;
    throw failure('UNSEAL_REFUSED', { method, detail: 'the store has no such method' });
  };
  const status = () => ({
    sealed: true,
    methods: seal.slots.map(({ method, ...rest }) => ({
      method,
      ...('threshold' in rest && { threshold: rest.threshold, total: rest.total, given: distinct(shares) }),
    })),
  });

  const open = async (slot: Slot, given: Given): Promise<Buffer> => {
    const rootKey = await openSlot(slot, given);
    openSeal(seal, rootKey);
    return rootKey;
  };
  const takeTurn = createTurns(1, MOST_WAITING_OF_SOURCE);
  const guesses = new Map<string, { wrong: number; until: number; isWaiting: boolean }>();
  /** Passphrases are guessed at, each source by itself; they are tried one after the other, one of a source at a time. */
  const openByPassphrase = async (passphrase: string, source: string): Promise<Buffer> => {
    const slot = slotOf('passphrase');
    const guess = guesses.get(source) ?? { wrong: 0, until: 0, isWaiting: false };
    const left = guess.until - performance.now();
    const isCrowded = [...guesses.values()].filter((each) => each.isWaiting).length >= MOST_WAITING;
    if (guess.isWaiting || left > 0 || isCrowded)
      throw failure('UNSEAL_THROTTLED', { seconds: Math.max(1, Math.ceil(left / 1000)) });
    guess.isWaiting = true;
    guesses.delete(source);
    guesses.set(source, guess);
    // Whoever has waited longest is forgotten first.
    if (guesses.size > MOST_SOURCES) guesses.delete(guesses.keys().next().value ?? source);
    try {
      const given = { method: 'passphrase', passphrase: Buffer.from(passphrase) } as const;
      return await takeTurn(() => open(slot, given));
    } catch (error) {
      guess.until = performance.now() + 1000 * Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** guess.wrong++);
      log.warn({ error: reason(error), source }, 'the store did not open');
      throw error;
    } finally {
      guess.isWaiting = false;
    }
  };
  /**
   * Shares cannot be guessed at, nor told right from wrong one by one. So all are kept, and those that come together with each
   * new one are tried: somebody who brings wrong ones keeps nobody's right ones from opening the store.
   */
  const openByShare = async (text: string, source: string): Promise<Buffer | undefined> => {
    const slot = slotOf('shares');
    if (slot.method !== 'shares') return undefined;
    const share = { ...readShare(slot, text), text, source };
    if (!shares.some((each) => each.text === text)) shares.push(share);
    makeRoom(shares, slot.threshold);
    if (distinct(shares) < slot.threshold) return undefined;
    return takeTurn(() => tryWith(slot, share));
  };
  const tryWith = async (slot: Extract<Slot, { method: 'shares' }>, share: GivenShare): Promise<Buffer> => {
    let tried = 0;
    for (const others of chosen(byInsistence(shares), slot.threshold - 1, [share.index])) {
      if (++tried > MOST_TRIED) break;
      const rootKey = await open(slot, {
        method: 'shares',
        shares: [share.text, ...others.map((each) => each.text)],
      }).catch(() => undefined);
      if (rootKey) return rootKey;
      // Others are answered meanwhile.
      if (tried % 16 === 0) await tick();
    }
    log.warn({ source: share.source }, 'the store did not open: one of the shares is wrong');
    throw failure('UNSEAL_REFUSED', { method: 'shares', detail: 'one of the shares is wrong' });
  };

  const app = createHttps(identity, log, () => failure('CAS_SEALED'));
  addAttestRoute(app, {
    ...{ casKey: key, certificate: () => identity.certificate, lasSocket: options.lasSocket, log },
  });
  app.get('/v1/version', async () => ({ version }));
  app.get('/v1/seal', async () => status());
  app.post('/v1/unseal', SMALL, async (request, reply) => {
    const given = body(request, unsealRequest);
    const source = sourceOf(request.raw.socket);
    const rootKey =
      'share' in given
        ? await openByShare(given.share, source)
        : await openByPassphrase(given.passphrase, source);
    if (!rootKey) return status();
    reply.raw.once('close', () => opened.resolve(rootKey));
    return { sealed: false, methods: [] };
  });
  await app.ready();
  return {
    apiPort: await listen(app.server, { host, port: options.apiPort }, options.balancers, log),
    key,
    rootKey: opened.promise,
    close: () =>
      new Promise((resolve) => {
        app.server.close(() => resolve());
        // Nobody keeps an open store waiting.
        app.server.closeAllConnections();
      }),
  };
}

async function makeIdentity(names: readonly string[]): Promise<Identity> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    certificate: await selfSignedCertificate({
      key: privateKey,
      commonName: 'cas (sealed)',
      names: [...new Set(['localhost', '127.0.0.1', hostname(), ...names])],
      notBefore: new Date(Date.now() - DAY),
      notAfter: new Date(Date.now() + 365 * DAY),
    }),
  };
}
