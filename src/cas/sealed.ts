import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { hostname } from 'node:os';
import * as v from 'valibot';
import { failure, reason } from '../errors.ts';
import { publicKeyDigest } from '../policy/key-hash.ts';
import { type Identity, selfSignedCertificate } from '../protocol/certificate.ts';
import { version } from '../version.ts';
import { addAttestRoute } from './attest-route.ts';
import type { Log } from './cas.ts';
import { createHttps } from './http.ts';
import { listen } from './listen.ts';
import { body } from './routes.ts';
import { openSlot, readShare, type Slot } from './seal/methods.ts';
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

/** @throws Failure ADDRESS_IN_USE */
export async function serveSealed(options: SealedOptions): Promise<SealedCas> {
  const { host, seal, log } = options;
  const identity = await makeIdentity(options.names);
  const key = publicKeyDigest(createPublicKey(identity.certificate));
  const opened = Promise.withResolvers<Buffer>();
  const shares = new Map<number, string>();
  const slotOf = (method: Slot['method']): Slot => {
    const found = seal.slots.find((slot) => slot.method === method);
    if (found) return found;
    throw failure('UNSEAL_REFUSED', { method, detail: 'the store has no such method' });
  };
  const status = () => ({
    sealed: true,
    methods: seal.slots.map(({ method, ...rest }) => ({
      method,
      ...('threshold' in rest && { threshold: rest.threshold, total: rest.total, given: shares.size }),
    })),
  });

  let wrong = 0;
  let pauseUntil = 0;
  let isBusy = false;
  const guarded = async (attempt: () => Promise<Buffer>): Promise<Buffer> => {
    const left = pauseUntil - performance.now();
    if (isBusy || left > 0)
      throw failure('UNSEAL_THROTTLED', { seconds: Math.max(1, Math.ceil(left / 1000)) });
    isBusy = true;
    try {
      const rootKey = await attempt();
      openSeal(seal, rootKey);
      return rootKey;
    } catch (error) {
      pauseUntil = performance.now() + 1000 * Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** wrong++);
      log.warn({ error: reason(error) }, 'the store did not open');
      throw error;
    } finally {
      isBusy = false;
    }
  };
  const openByShare = async (share: string): Promise<Buffer | undefined> => {
    const slot = slotOf('shares');
    if (slot.method !== 'shares') return undefined;
    shares.set(readShare(slot, share).index, share);
    if (shares.size < slot.threshold) return undefined;
    const given = [...shares.values()];
    shares.clear();
    return guarded(() => openSlot(slot, { method: 'shares', shares: given }));
  };

  const app = createHttps(identity, log, () => failure('CAS_SEALED'));
  addAttestRoute(app, {
    ...{ casKey: key, certificate: () => identity.certificate, lasSocket: options.lasSocket, log },
  });
  app.get('/v1/version', async () => ({ version }));
  app.get('/v1/seal', async () => status());
  app.post('/v1/unseal', async (request, reply) => {
    const given = body(request, unsealRequest);
    const rootKey =
      'share' in given
        ? await openByShare(given.share)
        : await guarded(() =>
            openSlot(slotOf('passphrase'), {
              method: 'passphrase',
              passphrase: Buffer.from(given.passphrase),
            }),
          );
    if (!rootKey) return status();
    reply.raw.once('close', () => opened.resolve(rootKey));
    return { sealed: false, methods: [] };
  });
  await app.ready();
  return {
    apiPort: await listen(app.server, { host, port: options.apiPort }),
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
