import { randomBytes, timingSafeEqual } from 'node:crypto';
import * as v from 'valibot';
import { failure } from '../../errors.ts';
import type { Cas } from '../cas.ts';
import type { Keyring } from '../keyring.ts';
import { metrics } from '../observe/metrics.ts';
import type { State } from '../store/store.ts';
import { type OwnerConfiguration, ownerConfiguration } from './configuration.ts';

/** Who a CAS belongs to, and what they have said about it. It begins without: then it works, and nobody commands it. */
export interface Owner {
  /** Counts the configurations, from 1. */
  version: number;
  /** Digests of the keys of the owners, hexadecimal; the first is whoever provisioned the CAS. */
  keys: readonly string[];
  configuration: OwnerConfiguration;
}

type Kept = { store: State; keyring: Keyring };

const NAME = 'owner';
const PLACE = `state/${NAME}`;
const stored = v.strictObject({
  version: v.pipe(v.number(), v.integer(), v.minValue(1)),
  first: v.string(),
  configuration: v.unknown(),
});

/** The owner that is kept, or undefined. */
export async function readOwner({ store, keyring }: Kept): Promise<Owner | undefined> {
  const sealed = await store.readState(NAME);
  return sealed && openOwner(keyring, sealed);
}

/**
 * The owner of a CAS, or undefined of one that never had any.
 * @throws Failure STORE_DAMAGED where it had one, who is gone
 */
export async function presentOwner(cas: Kept & Pick<Cas, 'facts'>): Promise<Owner | undefined> {
  const owner = await readOwner(cas);
  if (!owner && (await cas.facts.has('provisioned')))
    throw failure('STORE_DAMAGED', { store: 'of the CAS', detail: 'its owner is missing' });
  return owner;
}

/** The last one that was read, so that it is not read anew for each launch. */
const last = new WeakMap<Keyring, { sealed: Buffer; owner: Owner }>();

function openOwner(keyring: Keyring, sealed: Buffer): Owner {
  const known = last.get(keyring);
  if (known?.sealed.equals(sealed)) return known.owner;
  const owner = parseOwner(keyring, sealed);
  last.set(keyring, { sealed, owner });
  return owner;
}

function parseOwner(keyring: Keyring, sealed: Buffer): Owner {
  const { version, first, configuration } = v.parse(
    stored,
    JSON.parse(keyring.open(sealed, PLACE).toString()),
  );
  const parsed = v.parse(ownerConfiguration, configuration);
  return { version, keys: [first, ...parsed.owners], configuration: parsed };
}

/**
 * LAS keys that operator and owner trust for all sessions, hexadecimal: as the owner has said last, to whichever process.
 * @throws Failure STORE_DAMAGED, or of the store
 */
export async function trustedPlatforms(
  cas: Kept & Pick<Cas, 'facts' | 'operator'>,
): Promise<readonly string[]> {
  const owner = await presentOwner(cas);
  return [...cas.operator.trustedPlatforms, ...(owner?.configuration.trusted_platforms ?? [])];
}

/**
 * Sees to it that somebody is an owner.
 * @param certificate digest of the client's key, hexadecimal
 * @throws Failure NOT_PROVISIONED, NOT_OWNER or STORE_DAMAGED
 */
export async function authorizeOwner(cas: Kept & Pick<Cas, 'facts'>, certificate: string): Promise<Owner> {
  const owner = await presentOwner(cas);
  if (!owner) throw failure('NOT_PROVISIONED');
  if (!owner.keys.includes(certificate)) throw failure('NOT_OWNER');
  return owner;
}

const TOKEN = 'provisioning-token';
const TOKEN_PLACE = `state/${TOKEN}`;

/** What whoever provisions the CAS must know: 32 hexadecimal digits, made once; undefined once it was provisioned. */
export async function provisioningToken(cas: Kept & Pick<Cas, 'facts'>): Promise<string | undefined> {
  if ((await cas.facts.has('provisioned')) || (await cas.store.readState(NAME))) return undefined;
  const fresh = () => cas.keyring.seal(Buffer.from(randomBytes(16).toString('hex')), TOKEN_PLACE);
  const sealed = (await cas.store.readState(TOKEN)) ?? (await cas.store.createState(TOKEN, fresh()));
  return cas.keyring.open(sealed, TOKEN_PLACE).toString();
}

/**
 * Makes somebody the owner, once.
 * @param source whom wrong tokens are counted against
 * @throws Failure PROVISIONED_ALREADY, TOKEN_INVALID or TOKEN_THROTTLED
 */
export async function provision(
  cas: Cas,
  request: { token: string; configuration: OwnerConfiguration },
  certificate: string,
  source: string,
): Promise<{ version: number }> {
  const token = await provisioningToken(cas);
  if (token === undefined) throw failure('PROVISIONED_ALREADY');
  const [actual, expected] = [request.token, token].map((text) => cas.keyring.pseudonym(Buffer.from(text)));
  const right = actual !== undefined && expected !== undefined && timingSafeEqual(actual, expected);
  const result = await cas.store.attempt({ account: 'provisioning', source, right, now: cas.clock() });
  metrics.attempted({ factor: 'provisioning-token', outcome: result.outcome });
  if (result.outcome === 'throttled') throw failure('TOKEN_THROTTLED', { seconds: result.seconds });
  if (result.outcome !== 'accepted') throw failure('TOKEN_INVALID');
  const owner = { version: 1, first: certificate, configuration: request.configuration };
  const sealed = cas.keyring.seal(Buffer.from(JSON.stringify(owner)), PLACE);
  await cas.audit.recordWith(async (statements) => {
    const added = await statements.run(
      'INSERT INTO state (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING',
      NAME,
      sealed,
    );
    if (added === 0) throw failure('PROVISIONED_ALREADY');
    // The token is spent by the seal; the row could be put back.
    await cas.facts.note(['provisioned'], statements);
    await statements.run('DELETE FROM state WHERE name = $1', TOKEN);
    return { result: undefined, entries: [{ operation: 'provisioned', owner: certificate }] };
  });
  cas.log.info({ owner: certificate }, 'this CAS is provisioned');
  return { version: 1 };
}

/**
 * Replaces the configuration.
 * @param expected version that it must still have
 * @throws Failure NOT_PROVISIONED, NOT_OWNER or CONFIGURATION_CHANGED
 */
export async function updateOwnerConfiguration(
  cas: Cas,
  certificate: string,
  configuration: OwnerConfiguration,
  expected: number,
): Promise<{ version: number }> {
  await authorizeOwner(cas, certificate);
  const before = await cas.store.readState(NAME);
  if (!before) throw failure('NOT_PROVISIONED');
  const { version, keys } = openOwner(cas.keyring, before);
  if (version !== expected) throw failure('CONFIGURATION_CHANGED', { version });
  const owner = { version: version + 1, first: keys[0], configuration };
  const sealed = cas.keyring.seal(Buffer.from(JSON.stringify(owner)), PLACE);
  await cas.audit.recordWith(async (statements) => {
    const changed = await statements.run(
      'UPDATE state SET value = $2 WHERE name = $1 AND value = $3',
      ...[NAME, sealed, before],
    );
    if (changed === 0) throw failure('CONFIGURATION_CHANGED', { version });
    const entry = { operation: 'owner_configuration_updated', version: owner.version, certificate } as const;
    return { result: undefined, entries: [entry] };
  });
  cas.log.info({ version: owner.version, certificate }, 'the configuration of the owner was updated');
  return { version: owner.version };
}
