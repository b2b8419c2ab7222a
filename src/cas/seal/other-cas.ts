import * as v from 'valibot';
import { reportData } from '../../attestation/report-data.ts';
import type { Address } from '../../policy/address.ts';
import { callApi, connectApi } from '../../protocol/api-client.ts';
import { checkKey } from '../../protocol/connect.ts';
import { evidenceOf } from '../attest-route.ts';
import { KEY } from '../keyring.ts';
import { ROOT_KEY_EXPORTER } from '../owner/registrations.ts';

/** Another CAS of the same store, or of the one this is a copy of. */
export interface OtherCas {
  address: Address;
  /** SHA-256 of its public key. */
  key: Buffer;
}

const answer = v.object({
  rootKey: v.pipe(
    v.string(),
    v.base64(),
    v.transform((text) => Buffer.from(text, 'base64')),
    v.length(KEY),
  ),
});

/**
 * Has another CAS give the root key, where its owner has registered this one: Evidence is made over this very connection.
 * @throws Failure CAS_*, LAS_*, or Refused with what the other says
 */
export async function askForRootKey(other: OtherCas, lasSocket: string): Promise<Buffer> {
  const connection = await connectApi(other.address);
  checkKey(connection, other.key, 'by --unseal-from');
  const channel = connection.socket.exportKeyingMaterial(32, ROOT_KEY_EXPORTER, Buffer.alloc(0));
  const data = reportData({ role: 'backup', channel, casKey: other.key, configId: '' });
  const body = JSON.stringify(await evidenceOf(lasSocket, data, channel));
  const { rootKey } = await callApi(connection, { method: 'POST', path: '/v1/root-key', body }, answer);
  return rootKey;
}
