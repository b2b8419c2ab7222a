import { randomBytes } from 'node:crypto';
import * as v from 'valibot';
import type { Claims } from '../../attestation/claims.ts';
import { RUN_AS_OF_CAS, runAs, runAsRefusal } from '../../attestation/credentials.ts';
import { verifyEvidence } from '../../attestation/evidence.ts';
import { hardwareEvidence } from '../../attestation/hardware-evidence.ts';
import { reportData } from '../../attestation/report-data.ts';
import { type Failure, failure } from '../../errors.ts';
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
const kept = v.strictObject({
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
/** Where nobody says as whom it runs, as an owner's command of an older version does not, the usual ones count. */
export const registrationRequest = v.strictObject({
  ...kept.entries,
  runAs: v.optional(v.pipe(v.array(runAs), v.minLength(1), v.maxLength(16)), [...RUN_AS_OF_CAS]),
});
export type RegistrationRequest = v.InferOutput<typeof registrationRequest>;
const rest = { id: v.string(), created: v.number() };
/** Only those of kind upgrade are given the key from the start of one on. */
const upgrading = v.optional(v.boolean(), false);
const stored = v.strictObject({
  registrations: v.array(v.strictObject({ ...registrationRequest.entries, ...rest })),
  upgrading,
});
/** What a version wrote that did not ask as whom a CAS runs, and that it still reads where it runs beside this one. */
const storedBefore = v.strictObject({
  registrations: v.array(v.strictObject({ ...kept.entries, ...rest })),
  upgrading,
});
/** One that does not say as whom is of before, and gives nothing. */
export type Registration = Omit<v.InferOutput<typeof stored>['registrations'][number], 'runAs'> & {
  runAs?: string[];
};

type Kept = { store: State; keyring: Keyring };
const NAME = 'registrations-2';
const NAME_BEFORE = 'registrations';
const MOST = 256;

interface All {
  now: v.InferOutput<typeof stored>;
  before: v.InferOutput<typeof storedBefore>;
}

async function readAll({ store, keyring }: Kept) {
  const read = async <Schema extends v.GenericSchema>(name: string, schema: Schema) => {
    const sealed = await store.readState(name);
    const content = sealed
      ? JSON.parse(keyring.open(sealed, `state/${name}`).toString())
      : { registrations: [] };
    return { sealed, content: v.parse(schema, content) };
  };
  const [now, before] = [await read(NAME, stored), await read(NAME_BEFORE, storedBefore)];
  return {
    all: { now: now.content, before: before.content },
    sealed: { now: now.sealed, before: before.sealed },
  };
}

export async function listRegistrations(cas: Kept): Promise<Registration[]> {
  const { now, before } = (await readAll(cas)).all;
  return [...before.registrations, ...now.registrations];
}

/** Changes the lists, and records it; all of it, or nothing. @throws Failure REGISTRATIONS_CHANGED */
async function change(
  cas: Cas,
  entry: Parameters<Cas['audit']['record']>[0],
  to: (all: All) => Partial<All>,
): Promise<void> {
  const { all, sealed } = await readAll(cas);
  const { now, before } = to(all);
  const rows = [
    { name: NAME, was: sealed.now, becomes: now },
    { name: NAME_BEFORE, was: sealed.before, becomes: before },
  ].flatMap(({ name, was, becomes }) =>
    becomes
      ? { name, was, value: cas.keyring.seal(Buffer.from(JSON.stringify(becomes)), `state/${name}`) }
      : [],
  );
  await cas.audit.recordWith(async (statements) => {
    for (const { name, was, value } of rows) {
      const changed = was
        ? await statements.run('UPDATE state SET value = $2 WHERE name = $1 AND value = $3', name, value, was)
        : await statements.run(
            'INSERT INTO state (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING',
            ...[name, value],
          );
      if (changed === 0) throw failure('REGISTRATIONS_CHANGED');
    }
    return { result: undefined, entries: [entry] };
  });
}

export async function register(
  cas: Cas,
  request: RegistrationRequest,
  certificate: string,
): Promise<Registration> {
  const made = { ...request, id: randomBytes(4).toString('hex'), created: cas.clock() };
  const operation = request.kind === 'backup' ? 'backup_registered' : 'upgrade_registered';
  await change(cas, { operation, ...made, certificate }, ({ now }) => {
    if (now.registrations.length >= MOST)
      throw failure('REQUEST_INVALID', { detail: `there are ${MOST} registrations` });
    return { now: { ...now, registrations: [...now.registrations, made] } };
  });
  return made;
}

/** @throws Failure REGISTRATION_NOT_FOUND */
export async function unregister(cas: Cas, id: string, certificate: string): Promise<void> {
  await change(cas, { operation: 'registration_removed', id, certificate }, ({ now, before }) => {
    if (now.registrations.some((each) => each.id === id)) return { now: without(now, id) };
    if (before.registrations.some((each) => each.id === id)) return { before: without(before, id) };
    throw failure('REGISTRATION_NOT_FOUND', { id });
  });
}

function without<Each extends { id: string }, List extends { registrations: Each[] }>(
  list: List,
  id: string,
): List {
  return { ...list, registrations: list.registrations.filter((each) => each.id !== id) };
}

/** From now on only what was registered as an upgrade is given the key. */
export async function startUpgrade(cas: Cas, certificate: string): Promise<void> {
  await change(cas, { operation: 'upgrade_started', certificate }, ({ now, before }) => {
    if (!now.registrations.some(({ kind }) => kind === 'upgrade')) throw failure('UPGRADE_NOT_REGISTERED');
    return { now: { ...now, upgrading: true }, before: { ...before, upgrading: true } };
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
 * @throws Failure EVIDENCE_MISSING, EVIDENCE_INVALID, NOT_REGISTERED, REGISTRATION_OUTDATED or RUN_AS_UNEXPECTED
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
  const { now, before } = (await readAll(cas)).all;
  // Also where a version before has begun it.
  const isUpgrading = now.upgrading || before.upgrading;
  const fitting = [...now.registrations, ...before.registrations].filter(
    (each: Registration) => (!isUpgrading || each.kind === 'upgrade') && isAsGood(claims, each),
  );
  const { root, measurement, platform, debug, credentials } = claims;
  const entry = { root, measurement, platform, debug, credentials };
  const refusals = fitting.map((each) => refusalBy(each, claims));
  const found = fitting[refusals.indexOf(undefined)];
  if (!found) {
    const refusal = refusals[0] ?? failure('NOT_REGISTERED', { measurement, platform });
    await cas.audit.recordRefusal({ operation: 'service_refused', code: refusal.code, ...entry });
    throw refusal;
  }
  await cas.audit.record({ operation: 'root_key_released', registration: found.id, ...entry });
  cas.log.warn(
    { registration: found.id, name: found.name, ...entry },
    'the root key was given to another CAS',
  );
  return rootKey;
}

/** Why a CAS that fits otherwise is not given the key; an enclave is looked into by no user. */
function refusalBy({ id, runAs }: Registration, { root, credentials }: Claims): Failure | undefined {
  if (root === 'sgx') return undefined;
  return runAs ? runAsRefusal(runAs, credentials) : failure('REGISTRATION_OUTDATED', { id });
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
