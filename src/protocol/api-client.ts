import { request } from 'node:https';
import type { Readable } from 'node:stream';
import * as v from 'valibot';
import { failure, reason } from '../errors.ts';
import { type Address, formatAddress } from '../policy/address.ts';
import type { Identity } from './certificate.ts';
import { type CasConnection, connectCas } from './connect.ts';
import { boundHandshake } from './handshake.ts';
import { Refused } from './refusal.ts';

const PATIENCE = 30_000;
const ANSWER_LIMIT = 16 * 1024 * 1024;

/** Nobody else has to be served. */
const readAtOnce = async (read: () => void): Promise<void> => read();

/**
 * Connects to the REST interface of a CAS; the connection is good for one request.
 * @param identity the client's own, where one is to be shown
 * @param patience milliseconds
 * @param inTurn reads a record of the handshake, as {@link boundHandshake} has it
 * @throws Failure CAS_UNREACHABLE or CAS_PROTOCOL
 */
export function connectApi(
  address: Address,
  identity?: Identity,
  patience = PATIENCE,
  inTurn = readAtOnce,
): Promise<CasConnection> {
  const own = identity && { key: identity.key, cert: identity.certificate };
  return connectCas(address, own ?? {}, Date.now() + patience, (socket) =>
    boundHandshake(socket, 'server', inTurn),
  );
}

const errorBody = v.object({
  msg: v.pipe(v.array(v.string()), v.minLength(1), v.maxLength(64)),
  code: v.optional(v.string(), 'INTERNAL'),
  hint: v.optional(v.string()),
});

/**
 * Makes one request and checks its answer.
 * @param limit bytes that the answer may have
 * @throws Failure CAS_UNREACHABLE or CAS_PROTOCOL, or Refused with what the CAS said
 */
export async function callApi<Schema extends v.GenericSchema>(
  connection: CasConnection,
  call: { method: 'GET' | 'POST' | 'PUT' | 'DELETE'; path: string; body?: string },
  answer: Schema,
  limit = ANSWER_LIMIT,
): Promise<v.InferOutput<Schema>> {
  const address = formatAddress(connection.address);
  const { status, text } = await send(connection, call, limit).catch((error) => {
    throw failure('CAS_UNREACHABLE', { address, detail: reason(error) });
  });
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw failure('CAS_PROTOCOL', { address, detail: `status ${status} without JSON` });
  }
  if (isDeep(body)) throw failure('CAS_PROTOCOL', { address, detail: 'an answer that is nested too deep' });
  if (status >= 400) throw refusedWith(body, status, address);
  const parsed = v.safeParse(answer, body);
  if (!parsed.success) throw failure('CAS_PROTOCOL', { address, detail: 'an answer of another form' });
  return parsed.output;
}

/** Levels of an answer, of which whatever is called for each takes a part of the stack. */
const DEEPEST = 128;

function isDeep(body: unknown): boolean {
  let level = [body];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > DEEPEST) return true;
    level = level.flatMap((each) => (typeof each === 'object' && each !== null ? Object.values(each) : []));
  }
  return false;
}

/** What a CAS says where it refuses. */
function refusedWith(body: unknown, status: number, address: string): Error {
  const parsed = v.safeParse(errorBody, body);
  if (!parsed.success) return failure('CAS_PROTOCOL', { address, detail: `status ${status}` });
  const { msg, code, hint } = parsed.output;
  return new Refused({ refusal: { code, messages: msg, hint } });
}

const LONGEST_REFUSAL = 1024 * 1024;

/**
 * Makes one request whose body, or answer, is too large to be held; it takes as long as it takes.
 * @param take is given the answer
 * @throws as {@link callApi}
 */
export function transfer(
  { socket, address }: CasConnection,
  call: { method: 'GET' | 'POST'; path: string; type?: string; content?: Readable },
  take: (answer: Readable) => Promise<void>,
): Promise<void> {
  const shown = formatAddress(address);
  return new Promise((resolve, reject) => {
    const lost = (error: unknown) =>
      reject(failure('CAS_UNREACHABLE', { address: shown, detail: reason(error) }));
    const outgoing = request({
      ...{ createConnection: () => socket, host: address.host, port: address.port },
      ...{ method: call.method, path: call.path },
      headers: { connection: 'close', ...(call.type !== undefined && { 'content-type': call.type }) },
    });
    outgoing.on('error', lost);
    outgoing.on('response', (response) => {
      const { statusCode: status = 0 } = response;
      if (status < 400) return void take(response).then(resolve, lost);
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        if (text.length < LONGEST_REFUSAL) text += chunk;
      });
      response.on('end', () => {
        let body: unknown;
        try {
          body = JSON.parse(text);
        } catch {
          body = undefined;
        }
        reject(refusedWith(body, status, shown));
      });
    });
    if (call.content) call.content.on('error', lost).pipe(outgoing);
    else outgoing.end();
  });
}

function send(
  { socket, address }: CasConnection,
  { method, path, body }: { method: string; path: string; body?: string },
  limit: number,
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
        if (size > limit) outgoing.destroy(new Error('the answer is too large'));
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
