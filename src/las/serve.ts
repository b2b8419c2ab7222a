import { randomBytes } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import * as v from 'valibot';
import { signSoftwareEvidence } from '../attestation/software.ts';
import { failure, reason } from '../errors.ts';
import { createAllowances } from '../platform/allowances.ts';
import { countConnection, takeTurns } from '../platform/in-turn.ts';
import { type PeerCredentials, peerCredentials } from '../platform/libc.ts';
import { cannotSeeMappedFiles } from '../platform/process.ts';
import { commanderOf } from '../platform/users.ts';
import { FrameError, type Frames, frames } from '../protocol/frame.ts';
import { ask, challengeName, hello, LAS_REQUEST_LIMIT } from '../protocol/las.ts';
import { toRefusal } from '../protocol/refusal.ts';
import type { LasKey } from './key.ts';
import type { Machine } from './machine.ts';
import { type Demands, observe } from './measure.ts';
import { claimSocket } from './socket.ts';

export interface LasOptions {
  socket: string;
  /** For Evidence by software alone. */
  key: LasKey;
  /** What vouches for this machine, where hardware does; then the key is another. */
  machine?: Machine | undefined;
  /** Key hashes of CASes, by HOST:PORT of their enclave port. */
  casKeys: ReadonlyMap<string, string>;
  demands: Demands;
  log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
}

/** A conversation takes milliseconds; hashing a launcher for the first time up to seconds. */
const CONVERSATION = 30_000;
const CONNECTIONS = 4096;
const CONNECTIONS_OF_USER = 512;
/** Milliseconds for which processes are looked at each time the event loop comes round. */
const A_ROUND = 1;
/** Refusals of one user at once, and a second, that are told of. */
const REFUSALS = 32;
const REFUSALS_A_SECOND = 1 / 60;

const inTurn = takeTurns<number>(A_ROUND);

/**
 * Serves the LAS on a Unix socket that every user of the host may connect to.
 * @throws Failure PROCESSES_UNSEEN, ADDRESS_IN_USE or STATE_UNUSABLE
 */
export async function serveLas(options: LasOptions): Promise<{ close(): Promise<void> }> {
  requireSight(options.demands);
  await claimSocket(options.socket);
  const open = new Map<Socket, number>();
  const told = refusalsIn(options.log);
  const server = createServer((socket) => {
    countConnection();
    // The peer is known by what the kernel says of the socket, taken before a word is read.
    let peer: PeerCredentials;
    try {
      peer = peerCredentials(socket);
    } catch (error) {
      options.log.warn({ error: reason(error) }, 'a peer that cannot be known');
      return void socket.destroy();
    }
    const user = commanderOf(peer.uid);
    const ofUser = [...open.values()].filter((uid) => uid === user).length;
    if (ofUser >= CONNECTIONS_OF_USER) return void socket.destroy();
    if (open.size >= CONNECTIONS) oldestOfMost(open)?.destroy();
    open.set(socket, user);
    socket.on('close', () => open.delete(socket));
    void serveConnection(socket, peer, options, told);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(failure('ADDRESS_IN_USE', { address: options.socket, detail: reason(error) })),
    );
    server.listen(
      { path: options.socket, backlog: CONNECTIONS, readableAll: true, writableAll: true },
      resolve,
    );
  });
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of open.keys()) socket.destroy();
      }),
  };
}

/** The oldest connection of the user who has most: somebody may command several users, and others find room. */
function oldestOfMost(open: ReadonlyMap<Socket, number>): Socket | undefined {
  const counts = new Map<number, number>();
  for (const uid of open.values()) counts.set(uid, (counts.get(uid) ?? 0) + 1);
  const [most] = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a));
  return [...open].find(([, uid]) => uid === most)?.[0];
}

/** A LAS that cannot see what it is to look at would refuse everybody. @throws Failure PROCESSES_UNSEEN */
function requireSight({ require, containers }: Demands): void {
  if (!containers && !require.includes('root-owned-code')) return;
  const error = cannotSeeMappedFiles();
  if (error) throw failure('PROCESSES_UNSEEN', { detail: reason(error) });
}

/** Tells of refusals, unless their user has had too many at a time; then how many more there were. */
function refusalsIn(log: LasOptions['log']): (user: number, error: unknown) => void {
  const left = createAllowances(REFUSALS, REFUSALS_A_SECOND);
  let omitted = 0;
  return (user, error) => {
    if (left.left(String(user)) < 1) return void omitted++;
    left.take(String(user), 1);
    log.warn({ user, error: reason(error), ...(omitted > 0 && { omitted }) }, 'no Evidence was given');
    omitted = 0;
  };
}

async function serveConnection(
  socket: Socket,
  peer: PeerCredentials,
  options: LasOptions,
  told: (user: number, error: unknown) => void,
): Promise<void> {
  const channel = frames(socket, LAS_REQUEST_LIMIT);
  try {
    await converse(channel, peer, options);
  } catch (error) {
    if (!(error instanceof FrameError)) {
      told(commanderOf(peer.uid), error);
      if (socket.writable) channel.write(toRefusal(error));
    }
  } finally {
    socket.end();
    setTimeout(() => socket.destroy(), 1000).unref();
  }
}

async function converse(
  channel: Frames,
  peer: PeerCredentials,
  { key, machine, casKeys, demands, log }: LasOptions,
): Promise<void> {
  const deadline = Date.now() + CONVERSATION;
  const receive = async <Schema extends v.GenericSchema>(schema: Schema) => {
    const parsed = v.safeParse(schema, await channel.read(deadline));
    if (!parsed.success)
      throw failure('REQUEST_INVALID', { detail: `unexpected value at ${v.getDotPath(parsed.issues[0])}` });
    return parsed.output;
  };
  const { cas } = await receive(hello);
  const user = commanderOf(peer.uid);
  const observation = await observe(peer, demands, { user, turn: (work) => inTurn(user, work) });
  try {
    const nonce = randomBytes(32);
    channel.write({ casKey: (cas && casKeys.get(cas)) ?? null, nonce: nonce.toString('base64') });
    const { reportData, machineNonce } = await receive(ask);
    const confirm = () => observation.confirm(challengeName(nonce, reportData));
    await confirm();
    const hardware = await machine?.evidence(
      machineNonce === undefined ? undefined : Buffer.from(machineNonce, 'base64'),
      user,
    );
    // A quote can take a second.
    if (hardware) await confirm();
    const signing = machine?.key ?? key;
    const evidence = await signSoftwareEvidence(observation.process, reportData, signing, Date.now());
    channel.write({ evidence, hardware });
    log.info(observation.process, 'vouched for a process');
  } finally {
    observation.close();
  }
}
