import { resolve } from 'node:path';
import * as v from 'valibot';
import { openTpm } from '../las/tpm.ts';
import { type NetworkOptions, openCas } from './connect.ts';
import type { Output } from './output.ts';

const base64 = v.pipe(
  v.string(),
  v.transform((text) => Buffer.from(text, 'base64')),
);
const challenge = v.object({ credentialBlob: base64, encryptedSecret: base64, ticket: v.string() });
const enrolment = v.object({ platform: v.string(), attestationKey: v.string() });

/** `scone las enrol`: makes the attestation key of this host's TPM known to a CAS. */
export async function enrolTpm({ dir, ...options }: NetworkOptions & { dir: string }): Promise<Output> {
  const cas = await openCas(options);
  const tpm = await openTpm({ directory: resolve(dir), env: process.env });
  const { publicArea, certificate } = await tpm.endorsementKey();
  const request = {
    endorsementKey: publicArea.toString('base64'),
    attestationKey: tpm.attestationKey.toString('base64'),
    ...(certificate && { certificate: certificate.toString('base64') }),
  };
  const { ticket, ...credential } = await cas.call(
    { method: 'POST', path: '/v1/tpm/challenges', body: JSON.stringify(request) },
    challenge,
  );
  const secret = await tpm.activate(credential);
  const answer = { ticket, secret: secret.toString('base64') };
  const enrolled = await cas.call(
    { method: 'POST', path: '/v1/tpm/enrolments', body: JSON.stringify(answer) },
    enrolment,
  );
  return {
    text:
      `The CAS ${cas.name} knows this TPM\n` +
      `Platform: ${enrolled.platform}\nAttestation key: ${enrolled.attestationKey}\n` +
      'A LAS that runs takes it once it is started again\n',
    json: { cas: cas.name, ...enrolled },
  };
}
