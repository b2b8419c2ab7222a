import { randomBytes, timingSafeEqual } from 'node:crypto';
import * as v from 'valibot';
import { base64 } from '../attestation/hardware-evidence.ts';
import { makeCredential, verifyEndorsementKey } from '../attestation/tpm/credential.ts';
import { parsePublicArea } from '../attestation/tpm/structures.ts';
import { failure } from '../errors.ts';
import type { Cas } from './cas.ts';

/**
 * Enrolment of a TPM's attestation key (TPM 2.0 Part 1 §24): the CAS encrypts a secret so that just the TPM with the
 * endorsement key can read it, and only if it has the attestation key too. Until it comes back nothing is kept: what
 * the CAS has to remember goes along, sealed.
 */
const bytes = (most: number) =>
  v.pipe(
    base64(most),
    v.transform((text) => Buffer.from(text, 'base64')),
  );

export const enrolmentRequest = v.strictObject({
  /** TPMT_PUBLIC of both keys. */
  endorsementKey: bytes(1024),
  attestationKey: bytes(1024),
  /** Of the endorsement key, in DER, where the TPM has one. */
  certificate: v.optional(bytes(4096)),
});

export const enrolmentAnswer = v.strictObject({ ticket: bytes(1024), secret: bytes(64) });

const PLACE = 'ticket/tpm-enrolment';
const GOOD_FOR = 60_000;
const ticketContents = v.strictObject({
  endorsementKey: v.string(),
  attestationKey: v.string(),
  secret: v.string(),
  until: v.number(),
});

/**
 * @returns what the TPM is to show that it can open, and the ticket to bring back with it
 * @throws Failure TPM_UNTRUSTED or EVIDENCE_INVALID
 */
export function challengeTpm(
  cas: Cas,
  request: v.InferOutput<typeof enrolmentRequest>,
): { credentialBlob: string; encryptedSecret: string; ticket: string } {
  const { endorsementKey, attestationKey, certificate } = request;
  const now = cas.clock();
  const { ek } = verifyEndorsementKey({ endorsementKey, certificate }, { ...cas.trustedTpms, at: now });
  const { name } = parsePublicArea(attestationKey);
  const secret = randomBytes(32);
  const { credentialBlob, encryptedSecret } = makeCredential(endorsementKey, name, secret);
  const contents: v.InferInput<typeof ticketContents> = {
    endorsementKey: ek,
    attestationKey: name.toString('hex'),
    secret: secret.toString('hex'),
    until: now + GOOD_FOR,
  };
  return {
    credentialBlob: credentialBlob.toString('base64'),
    encryptedSecret: encryptedSecret.toString('base64'),
    ticket: cas.keyring.seal(Buffer.from(JSON.stringify(contents)), PLACE).toString('base64'),
  };
}

/**
 * Keeps the attestation key of a TPM that has opened its secret. One that has another is not enrolled until an owner has
 * removed it: whoever reaches the TPM could make one.
 * @throws Failure TPM_UNPROVEN or TPM_ENROLLED
 */
export async function enrolTpm(
  cas: Cas,
  { ticket, secret }: v.InferOutput<typeof enrolmentAnswer>,
): Promise<{ platform: string; attestationKey: string }> {
  const contents = openTicket(cas, ticket);
  const expected = Buffer.from(contents.secret, 'hex');
  if (cas.clock() > contents.until || secret.length !== expected.length || !timingSafeEqual(secret, expected))
    throw failure('TPM_UNPROVEN');
  const { endorsementKey, attestationKey } = contents;
  if (!(await cas.store.enrol(Buffer.from(endorsementKey, 'hex'), Buffer.from(attestationKey, 'hex')))) {
    const code = 'TPM_ENROLLED';
    await cas.audit.recordRefusal({ operation: 'service_refused', code, endorsementKey, attestationKey });
    throw failure(code, { key: endorsementKey });
  }
  await cas.audit.record({ operation: 'tpm_enrolled', endorsementKey, attestationKey });
  cas.log.info({ endorsementKey, attestationKey }, 'a TPM was enrolled');
  return { platform: `TPM_EK:${endorsementKey}`, attestationKey };
}

/** Forgets a TPM, so that it can be enrolled with another key, as after it was cleared. @throws Failure TPM_NOT_ENROLLED */
export async function removeTpm(cas: Cas, key: string, certificate: string): Promise<void> {
  const name = /^TPM_EK:([0-9a-f]{64})$/.exec(key)?.[1];
  await cas.audit.recordWith(async (statements) => {
    const removed =
      name === undefined
        ? 0
        : await statements.run(
            'DELETE FROM attestation_key WHERE endorsement_key = $1',
            Buffer.from(name, 'hex'),
          );
    if (removed === 0) throw failure('TPM_NOT_ENROLLED', { key });
    const entry = { operation: 'registration_removed', endorsementKey: name, certificate } as const;
    return { result: undefined, entries: [entry] };
  });
  cas.log.info({ endorsementKey: name, certificate }, 'a TPM was removed');
}

function openTicket(cas: Cas, ticket: Buffer): v.InferOutput<typeof ticketContents> {
  try {
    return v.parse(ticketContents, JSON.parse(cas.keyring.open(ticket, PLACE).toString()));
  } catch {
    throw failure('TPM_UNPROVEN');
  }
}
