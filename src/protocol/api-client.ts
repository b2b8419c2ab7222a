import { request } from 'node:https';
import * as v from 'valibot';
import { failure, reason } from '../errors.ts';
import { type Address, formatAddress } from '../policy/address.ts';
import type { Identity } from './certificate.ts';
import { type CasConnection, connectCas } from './connect.ts';
import { Refused } from './refusal.ts';

const PATIENCE = 30_000;
const ANSWER_LIMIT = 16 * 1024 * 1024;

/**
 * Connects to the REST interface of a CAS; the connection is good for one request.
 * @param identity the client's own, where one is to be shown
 * @param patience milliseconds
 * @throws Failure CAS_UNREACHABLE or CAS_PROTOCOL
 */
export function connectApi(
  address: Address,
  identity?: Identity,
  patience = PATIENCE,
): Promise<CasConnection> {
  const own = identity && { key: identity.key, cert: identity.certificate };
  return connectCas(address, { minVersion: 'TLSv1.2', ...own }, Date.now() + patience);
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
  connection: CasConnection,
  call: { method: 'GET' | 'POST' | 'PUT'; path: string; body?: string },
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
  { socket, address }: CasConnection,
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
    outgoing.setTimeout(PATIENCE, () => outgoing.destroy(Object.assign(new Error(), { code: 'ETIMEDOUT' })));
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
