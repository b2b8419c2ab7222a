import { type KeyObject, X509Certificate } from 'node:crypto';
import { request } from 'node:https';
import { connect, type TLSSocket } from 'node:tls';
import * as v from 'valibot';
import { failure, reason } from '../errors.ts';
import { type Address, connectOptions, formatAddress } from '../protocol/address.ts';
import type { Identity } from '../protocol/certificate.ts';
import { formatKeyHash, publicKeyDigest } from '../protocol/key-hash.ts';
import { Refused } from '../protocol/refusal.ts';

const PATIENCE = 30_000;
const ANSWER_LIMIT = 16 * 1024 * 1024;

/** A TLS connection to the REST interface of a CAS, good for one request. */
export interface ApiConnection {
  socket: TLSSocket;
  address: Address;
  /** The certificate the CAS showed, and its key. */
  certificate: X509Certificate;
  key: KeyObject;
}

/**
 * Connects to the REST interface of a CAS.
 * @param identity the client's own, where one is to be shown
 * @param pinned digest of the key that the CAS must have; without it the caller has to check the key
 * @throws Failure CAS_UNREACHABLE, CAS_PROTOCOL or CAS_KEY_MISMATCH
 */
export function connectApi(
  address: Address,
  identity: Identity | undefined,
  pinned: Buffer | undefined,
): Promise<ApiConnection> {
  const shown = formatAddress(address);
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...connectOptions(address),
      ca: [],
      minVersion: 'TLSv1.2',
      rejectUnauthorized: false,
      ...(identity ? { key: identity.key, cert: identity.certificate } : {}),
    });
    socket.setTimeout(PATIENCE, () => socket.destroy(Object.assign(new Error(), { code: 'ETIMEDOUT' })));
    socket.once('error', (error) =>
      reject(failure('CAS_UNREACHABLE', { address: shown, detail: reason(error) })),
    );
    socket.once('secureConnect', () => {
      const certificate = socket.getPeerX509Certificate();
      if (!certificate) {
        reject(failure('CAS_PROTOCOL', { address: shown, detail: 'it shows no certificate' }));
        return void socket.destroy();
      }
      const key = certificate.publicKey;
      const actual = publicKeyDigest(key);
      if (pinned && !pinned.equals(actual)) {
        socket.destroy();
        reject(
          failure('CAS_KEY_MISMATCH', {
            address: shown,
            actual: formatKeyHash(actual),
            expected: formatKeyHash(pinned),
            source: 'by `scone cas attest`',
          }),
        );
      } else resolve({ socket, address, certificate: new X509Certificate(certificate.raw), key });
    });
  });
}

const errorBody = v.object({
  msg: v.pipe(v.array(v.string()), v.minLength(1)),
  code: v.optional(v.string(), 'INTERNAL'),
  hint: v.optional(v.string()),
});

/**
 * Makes one request and checks its answer.
 * @throws Failure CAS_UNREACHABLE or CAS_PROTOCOL, or Refused with what the CAS said
 */
export async function callApi<Schema extends v.GenericSchema>(
  connection: ApiConnection,
  call: { method: 'GET' | 'POST'; path: string; body?: string },
  answer: Schema,
): Promise<v.InferOutput<Schema>> {
  const address = formatAddress(connection.address);
  const { status, text } = await send(connection, call).catch((error) => {
    throw failure('CAS_UNREACHABLE', { address, detail: reason(error) });
  });
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw failure('CAS_PROTOCOL', { address, detail: `status ${status} without JSON` });
  }
  if (status >= 400) {
    const parsed = v.safeParse(errorBody, body);
    if (!parsed.success) throw failure('CAS_PROTOCOL', { address, detail: `status ${status}` });
    const { msg, code, hint } = parsed.output;
    throw new Refused({ refusal: { code, messages: msg, hint } });
  }
  const parsed = v.safeParse(answer, body);
  if (!parsed.success) throw failure('CAS_PROTOCOL', { address, detail: 'an answer of another form' });
  return parsed.output;
}

function send(
  { socket, address }: ApiConnection,
  { method, path, body }: { method: string; path: string; body?: string },
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({
      createConnection: () => socket,
      host: address.host,
      port: address.port,
      method,
      path,
      headers: {
        connection: 'close',
        ...(body === undefined
          ? {}
          : { 'content-type': 'application/yaml', 'content-length': Buffer.byteLength(body) }),
      },
    });
    outgoing.on('error', reject);
    outgoing.on('response', (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > ANSWER_LIMIT) outgoing.destroy(new Error('the answer is too large'));
        else chunks.push(chunk);
      });
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }),
      );
    });
    outgoing.end(body);
  });
}
