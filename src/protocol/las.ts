import { createHash } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import * as v from 'valibot';
import { type Evidence, hardwareEvidence } from '../attestation/hardware-evidence.ts';
import { failure, reason } from '../errors.ts';
import { setOwnProcessName } from '../platform/libc.ts';
import { processName } from '../platform/process.ts';
import { type Frames, frames, MalformedFrame } from './frame.ts';
import { Refused, refusal } from './refusal.ts';

/**
 * The conversation with a LAS, on its Unix socket, client first:
 *
 *     hello { version, cas? }             ->  welcome { casKey, nonce }
 *     (the client's process takes the name that nonce and report data give)
 *     ask { reportData, machineNonce? }   ->  { evidence, hardware? }
 *
 * Instead of any answer a refusal may come. Bytes travel as base64.
 */
const base64 = (bytes: number) =>
  v.pipe(
    v.string(),
    v.maxLength(Math.ceil(bytes / 3) * 4),
    v.transform((text) => Buffer.from(text, 'base64')),
    v.length(bytes),
  );

export const hello = v.strictObject({
  version: v.literal(1),
  /** HOST:PORT of the CAS whose key the client wants to know. */
  cas: v.optional(v.pipe(v.string(), v.maxLength(300))),
});
export const ask = v.strictObject({
  reportData: base64(64),
  /** What a CAS wants the Evidence about the machine to be made over, in base64. */
  machineNonce: v.optional(v.pipe(v.string(), v.maxLength(88))),
});
const welcome = v.strictObject({
  casKey: v.nullable(v.pipe(v.string(), v.maxLength(100))),
  nonce: base64(32),
});
const vouched = v.strictObject({
  evidence: v.pipe(v.string(), v.maxLength(65536)),
  /** Where hardware vouches for the machine. */
  hardware: v.optional(hardwareEvidence),
});

/** Largest message of this conversation, in bytes: of a LAS, and of whoever asks it. */
export const LAS_MESSAGE_LIMIT = 128 * 1024;
export const LAS_REQUEST_LIMIT = 4 * 1024;

/**
 * The process name that answers a challenge. Only a process's own threads can set its name, so whoever holds
 * the socket shows by it that the measured process asks, and asks for just these report data. The name begins
 * with `/`, since execve names a process too, by the last part of a path, which has none.
 */
export function challengeName(nonce: Buffer, reportData: Buffer): string {
  return `/${createHash('sha256').update(nonce).update(reportData).digest('base64url').slice(0, 14)}`;
}

/** A connection on which Evidence about this process can be had. */
export interface LasConnection {
  /** Key hash of the CAS asked about, where the LAS was set up with it. */
  casKey: string | undefined;
  /**
   * Evidence about this process over 64 bytes of its choice; once for each connection, and one at a time in a
   * process, since it takes another name meanwhile.
   * @param machineNonce of a CAS that wants Evidence about the machine made anew, in base64
   * @throws Failure LAS_UNREACHABLE, LAS_PROTOCOL or LAS_REFUSED
   */
  evidence(reportData: Buffer, machineNonce?: string): Promise<Evidence>;
  close(): void;
}

/** Why no socket can have a path: sun_path of unix(7), less its final NUL. */
export function pathTooLong(path: string): string | undefined {
  return Buffer.byteLength(path) > 107 ? 'a socket path has at most 107 bytes' : undefined;
}

/**
 * @param cas HOST:PORT of the CAS whose key is wanted
 * @param deadline milliseconds since 1970
 * @throws Failure LAS_UNREACHABLE or LAS_PROTOCOL
 */
export async function connectLas(
  path: string,
  cas: string | undefined,
  deadline: number,
): Promise<LasConnection> {
  const detail = pathTooLong(path);
  if (detail !== undefined) throw failure('LAS_UNREACHABLE', { socket: path, detail });
  const socket: Socket = connect({ path });
  const channel: Frames = frames(socket, LAS_MESSAGE_LIMIT);
  const exchange = async <Schema extends v.GenericSchema>(message: unknown, schema: Schema) => {
    let answer: unknown;
    try {
      channel.write(message);
      answer = await channel.read(deadline);
    } catch (error) {
      const code = error instanceof MalformedFrame ? 'LAS_PROTOCOL' : 'LAS_UNREACHABLE';
      throw failure(code, { socket: path, detail: reason(error) });
    }
    const refused = v.safeParse(refusal, answer);
    if (refused.success) throw failure('LAS_REFUSED', { detail: 'it refused' }, new Refused(refused.output));
    const parsed = v.safeParse(schema, answer);
    if (parsed.success) return parsed.output;
    throw failure('LAS_PROTOCOL', {
      socket: path,
      detail: `at ${v.getDotPath(parsed.issues[0]) ?? 'the top'}`,
    });
  };
  try {
    const { casKey, nonce } = await exchange({ version: 1, cas }, welcome);
    return {
      casKey: casKey ?? undefined,
      close: () => socket.destroy(),
      async evidence(reportData, machineNonce) {
        const name = processName('self');
        setOwnProcessName(challengeName(nonce, reportData));
        try {
          return await exchange({ reportData: reportData.toString('base64'), machineNonce }, vouched);
        } finally {
          setOwnProcessName(name);
        }
      },
    };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}
