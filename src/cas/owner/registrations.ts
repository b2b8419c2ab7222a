import { randomBytes } from 'node:crypto';
import * as v from 'valibot';
import type { Claims } from '../../attestation/claims.ts';
import { verifyEvidence } from '../../attestation/evidence.ts';
import { hardwareEvidence } from '../../attestation/hardware-evidence.ts';
import { reportData } from '../../attestation/report-data.ts';
import { failure } from '../../errors.ts';
import type { Cas } from '../cas.ts';
import { endorse } from '../evidence.ts';
import type { Keyring } from '../keyring.ts';
import type { State } from '../store/store.ts';

/**
 * Other CAS programs that are given the root key of this store, since the owner has attested and named them: to stand by with
 * a copy of the store, or to take over as the next version.
 */
const hex = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const words = v.pipe(v.array(v.pipe(v.string(), v.maxLength(64))), v.maxLength(64));
export const registrationRequest = v.strictObject({
  kind: v.picklist(['backup', 'upgrade']),
  /** For people. */
  name: v.pipe(v.string(), v.maxLength(300)),
  root: v.picklist(['software', 'sgx', 'tdx', 'sev-snp', 'tpm']),
  measurement: hex,
  platform: v.pipe(v.string(), v.maxLength(300)),
  debug: v.boolean(),
  weaknesses: words,
  advisories: words,
});
export type RegistrationRequest = v.InferOutput<typeof registrationRequest>;
const registration = v.strictObject({ ...registrationRequest.entries, id: v.string(), created: v.number() });
export type Registration = v.InferOutput<typeof registration>;
const stored = v.strictObject({
  registrations: v.array(registration),
  /** Only those of kind upgrade are given the key since then. */
  upgrading: v.optional(v.boolean(), false),
});

type Kept = { store: State; keyring: Keyring };
const NAME = 'registrations';
const PLACE = `state/${NAME}`;
const MOST = 256;

async function readAll({ store, keyring }: Kept) {
  const before = await store.readState(NAME);
  const all = before
    ? v.parse(stored, JSON.parse(keyring.open(before, PLACE).toString()))
    : { registrations: [], upgrading: false };
  return { before, ...all };
}

export async function listRegistrations(cas: Kept): Promise<Registration[]> {
  return (await readAll(cas)).registrations;
}

/** Changes the list, and records it; both, or neither. @throws Failure REGISTRATIONS_CHANGED */
async function change(
  cas: Cas,
  entry: Parameters<Cas['audit']['record']>[0],
  to: (now: v.InferOutput<typeof stored>) => v.InferInput<typeof stored>,
): Promise<void> {
  const { before, ...now } = await readAll(cas);
  const sealed = cas.keyring.seal(Buffer.from(JSON.stringify(to(now))), PLACE);
  await cas.audit.recordWith(async (statements) => {
    const changed = before
      ? await statements.run(
          'UPDATE state SET value = $2 WHERE name = $1 AND value = $3',
          NAME,
          sealed,
          before,
        )
      : await statements.run(
          'INSERT INTO state (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING',
          ...[NAME, sealed],
        );
    if (changed === 0) throw failure('REGISTRATIONS_CHANGED');
    return { result: undefined, entries: [entry] };
  });
}

export async function register(
  cas: Cas,
  request: RegistrationRequest,
  certificate: string,
): Promise<Registration> {
  const made: Registration = { ...request, id: randomBytes(4).toString('hex'), created: cas.clock() };
  const operation = request.kind === 'backup' ? 'backup_registered' : 'upgrade_registered';
  await change(cas, { operation, ...made, certificate }, ({ registrations, ...rest }) => {
    if (registrations.length >= MOST)
      throw failure('REQUEST_INVALID', { detail: `there are ${MOST} registrations` });
    return { ...rest, registrations: [...registrations, made] };
  });
  return made;
}

/** @throws Failure REGISTRATION_NOT_FOUND */
export async function unregister(cas: Cas, id: string, certificate: string): Promise<void> {
  await change(cas, { operation: 'registration_removed', id, certificate }, ({ registrations, ...rest }) => {
    if (!registrations.some((each) => each.id === id)) throw failure('REGISTRATION_NOT_FOUND', { id });
    return { ...rest, registrations: registrations.filter((each) => each.id !== id) };
  });
}

/** From now on only what was registered as an upgrade is given the key. */
export async function startUpgrade(cas: Cas, certificate: string): Promise<void> {
  await change(cas, { operation: 'upgrade_started', certificate }, (now) => {
    if (!now.registrations.some(({ kind }) => kind === 'upgrade')) throw failure('UPGRADE_NOT_REGISTERED');
    return { ...now, upgrading: true };
  });
}

export const rootKeyRequest = v.strictObject({
  evidence: v.optional(v.pipe(v.string(), v.maxLength(128 * 1024))),
  hardware: v.optional(hardwareEvidence),
});
/** Label of the bytes that Evidence is made over (RFC 8446 §7.5). */
export const ROOT_KEY_EXPORTER = 'EXPERIMENTAL-envcas-root-key';

/**
 * Gives the root key to a CAS that shows to be one that was registered, on the connection that the Evidence was made for.
 * @param channel exporter value of the connection
 * @throws Failure EVIDENCE_MISSING, EVIDENCE_INVALID or NOT_REGISTERED
 */
export async function releaseRootKey(
  cas: Cas,
  rootKey: Buffer,
  request: v.InferOutput<typeof rootKeyRequest>,
  channel: Buffer,
): Promise<Buffer> {
  const claims = await verifyEvidence(request, (each) => endorse(cas, each), cas.clock());
  const expected = reportData({ role: 'backup', channel, casKey: cas.key, configId: '' });
  if (!claims.reportData.equals(expected))
    throw failure('EVIDENCE_INVALID', { detail: 'it was made for another connection or CAS' });
  const { registrations, upgrading } = await readAll(cas);
  const found = registrations
    .filter(({ kind }) => !upgrading || kind === 'upgrade')
    .find((each) => isAsGood(claims, each));
  const { root, measurement, platform, debug } = claims;
  const entry = { root, measurement, platform, debug };
  if (!found) {
    await cas.audit.recordRefusal({ operation: 'service_refused', code: 'NOT_REGISTERED', ...entry });
    throw failure('NOT_REGISTERED', { measurement, platform });
  }
  await cas.audit.record({ operation: 'root_key_released', registration: found.id, ...entry });
  cas.log.warn(
    { registration: found.id, name: found.name, ...entry },
    'the root key was given to another CAS',
  );
  return rootKey;
}

/** The same program on the same platform, and no weaker than when the owner looked at it. */
function isAsGood(claims: Claims, its: Registration): boolean {
  const { root, measurement, platform, debug, weaknesses = [], advisories = [] } = claims;
  return (
    root === its.root &&
    measurement === its.measurement &&
    platform === its.platform &&
    (!debug || its.debug) &&
    weaknesses.every((each) => its.weaknesses.includes(each)) &&
    advisories.every((each) => its.advisories.includes(each))
  );
}
