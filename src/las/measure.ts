import { createHash } from 'node:crypto';
import { closeSync, createReadStream, fstatSync } from 'node:fs';
import type { Property } from '../attestation/claims.ts';
import { type Credentials, unitOf } from '../attestation/credentials.ts';
import type { MeasuredProcess } from '../attestation/software.ts';
import { failure, reason } from '../errors.ts';
import type { PeerCredentials } from '../platform/libc.ts';
import {
  controlGroup,
  credentialsOf,
  fileIdentity,
  fileSystemView,
  holdMemoryImage,
  identityKey,
  initialEnvironmentNames,
  type MemoryImage,
  openExecutable,
  processIdentity,
  processName,
  startTime,
  systemdControlGroup,
  tracer,
  userNamespace,
} from '../platform/process.ts';
import { nameOfUser } from '../platform/users.ts';
import { isSecureExecution, propertiesOf } from './properties.ts';

/** What a LAS asks of every process that it vouches for. */
export interface Demands {
  require: readonly Property[];
  /**
   * Whether it may see other files than the LAS, as in a container, as long as none but root could write the code in it.
   * In another user namespace it may not: there anybody can put `/etc/ld.so.preload` in its way.
   */
  containers: boolean;
}

/** A process looked at once, which can be looked at again to see that it still is the same. */
export interface Observation {
  process: MeasuredProcess;
  /**
   * @param name that the process must bear
   * @throws Failure CHALLENGE_FAILED where it does not, PROCESS_CHANGED or PROCESS_TRACED where it is not as before
   */
  confirm(name: string): Promise<void>;
  close(): void;
}

/**
 * Variables by which the one who starts a process has code of his own loaded into it: by the dynamic linker
 * (ld.so(8)), the C library, OpenSSL's configuration, or Node. Of Node's, those are let pass that are common
 * and without effect on a single executable.
 */
const loadsCode = /^(LD_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|OPENSSL_.*|NODE_.*)$/;
const harmless = new Set([
  'NODE_ENV',
  'NODE_EXTRA_CA_CERTS',
  'NODE_NO_WARNINGS',
  'NODE_OPTIONS',
  'NODE_PATH',
  'NODE_VERSION',
]);

/** A file is taken for unchanged by its identity only when its last change is older than the clock is coarse. */
const SETTLED = 2_000_000_000n;
const CACHED_FILES = 256;
const measurements = new Map<string, string>();
/** Files that are being hashed, by the user whose turns that takes: he has nobody else wait for it. */
const underWay = new Map<string, Promise<string>>();

/** Larger than any launcher; hashing it takes a second. */
const LARGEST_EXECUTABLE = 1n << 30n;
const HASHING = 20_000;

/** Whom a process is looked at for. */
export interface OnBehalf {
  user: number;
  /** Does work of some milliseconds in the turn of the user. */
  turn: <Result>(work: () => Result) => Promise<Result>;
}

/** SHA-256 of an open file, remembered by what identifies an unchanged file. */
async function measureFile(pid: number, fd: number, { user, turn }: OnBehalf): Promise<string> {
  const identity = fileIdentity(fd);
  if (identity.size > LARGEST_EXECUTABLE)
    throw failure('EXECUTABLE_TOO_LARGE', { size: Number(identity.size), limit: Number(LARGEST_EXECUTABLE) });
  const key = identityKey(identity);
  const settled = BigInt(Date.now()) * 1_000_000n - identity.changed > SETTLED;
  const known = measurements.get(key);
  if (known !== undefined) {
    // The last one used is the last one to go.
    measurements.delete(key);
    measurements.set(key, known);
    return known;
  }
  const own = `${user} ${key}`;
  const hashing = (settled && underWay.get(own)) || hashFile(fd, turn);
  if (settled) underWay.set(own, hashing);
  try {
    const measurement = await hashing;
    if (settled) measurements.set(key, measurement);
    if (measurements.size > CACHED_FILES) measurements.delete(measurements.keys().next().value ?? '');
    return measurement;
  } catch (error) {
    throw failure('PROCESS_UNREADABLE', { pid, detail: `its executable: ${reason(error)}` });
  } finally {
    underWay.delete(own);
  }
}

async function hashFile(fd: number, turn: OnBehalf['turn']): Promise<string> {
  const hash = createHash('sha256');
  const signal = AbortSignal.timeout(HASHING);
  const stream = createReadStream('', { fd, start: 0, autoClose: false, highWaterMark: 1 << 20, signal });
  for await (const chunk of stream) await turn(() => hash.update(chunk as Buffer));
  return hash.digest('hex');
}

/**
 * Measures the process at the other end of a Unix socket.
 *
 * The memory image is held before the executable is looked at, and must be the present one when everything
 * has been seen: so a process that was something else before, or turns into something else, is noticed.
 *
 * @throws Failure PROCESS_*, EXECUTABLE_TOO_LARGE
 */
export async function observe(peer: PeerCredentials, demands: Demands, who: OnBehalf): Promise<Observation> {
  const { pid } = peer;
  const image = looking(pid, () => holdMemoryImage(pid));
  try {
    const executable = looking(pid, () => openExecutable(pid));
    try {
      return await observeImage(peer, image, executable, demands, who);
    } finally {
      closeSync(executable);
    }
  } catch (error) {
    image.close();
    throw error;
  }
}

async function observeImage(
  { pid, uid, gid }: PeerCredentials,
  image: MemoryImage,
  executable: number,
  demands: Demands,
  who: OnBehalf,
): Promise<Observation> {
  const identity = identityKey(fileIdentity(executable));
  const started = looking(pid, () => startTime(pid));
  const ids = looking(pid, () => credentialsOf(pid));
  const file = fstatSync(executable);
  const isSecure = () => isSecureExecution(pid, ids.gid, file);

  const changed = (detail: string) => failure('PROCESS_CHANGED', { pid, detail });
  const check = () => {
    const by = tracer(pid);
    if (by !== 0) throw failure('PROCESS_TRACED', { pid, tracer: by });
    if (executableIdentity(pid) !== identity)
      throw changed('it runs another executable, or the file was changed');
    if (startTime(pid) !== started) throw changed('the pid belongs to another process');
    if (!image.isCurrent()) throw changed('it has executed something else');
    if (JSON.stringify(credentialsOf(pid)) !== JSON.stringify(ids))
      throw changed('it has become another user or group');
  };
  const bears = (name: string) => {
    if (processName(pid) !== name) throw failure('CHALLENGE_FAILED', { pid });
  };

  const look = () => {
    if (userNamespace(pid) !== userNamespace('self')) throw failure('PROCESS_ELSEWHERE', { pid });
    const isElsewhere = fileSystemView(pid) !== fileSystemView('self');
    if (isElsewhere && !demands.containers) throw failure('PROCESS_ELSEWHERE', { pid });
    const names = initialEnvironmentNames(pid);
    const variable = names.find((name) => loadsCode.test(name) && !harmless.has(name));
    if (variable) throw failure('PROCESS_PRELOADED', { pid, variable });
    const found = propertiesOf(pid, image, isSecure());
    const lacks = (property: Property) => demands.require.includes(property) && !found.includes(property);
    if (lacks('secure-execution')) throw failure('PROCESS_NOT_SECURE', { pid });
    if (lacks('root-owned-code') || (isElsewhere && !found.includes('root-owned-code')))
      throw failure('PROCESS_CODE_CHANGEABLE', { pid });
    check();
    return { properties: found, cgroup: controlGroup(pid), credentials: named(pid, ids, isElsewhere) };
  };
  const { properties, cgroup, credentials } = await who.turn(() => looking(pid, look));
  return {
    process: {
      measurement: await measureFile(pid, executable, who),
      pid,
      uid,
      gid,
      id: processIdentity(pid, started),
      ...(cgroup !== undefined && { cgroup }),
      credentials,
      properties,
    },
    confirm: (name) =>
      who.turn(() =>
        looking(pid, () => {
          bears(name);
          check();
          if (properties.includes('secure-execution') && !isSecure())
            throw changed('it is not secure any more');
          bears(name);
        }),
      ),
    close: image.close,
  };
}

/** In a container a number has another name, or none, so there is just the number. */
function named(pid: number, ids: Pick<Credentials, 'uid' | 'gid'>, isElsewhere: boolean): Credentials {
  const user = isElsewhere ? undefined : nameOfUser(ids.uid.real);
  const cgroup = systemdControlGroup(pid);
  const unit = cgroup === undefined ? undefined : unitOf(cgroup);
  return { ...ids, ...(user !== undefined && { user }), ...(unit !== undefined && { unit }) };
}

/** Identity of the file that a process runs now. */
function executableIdentity(pid: number): string {
  const fd = openExecutable(pid);
  try {
    return identityKey(fileIdentity(fd));
  } finally {
    closeSync(fd);
  }
}

/** Looks at a process, which may end meanwhile, or belong to somebody else: what the kernel then says, in words. */
function looking<Result>(pid: number, look: () => Result): Result {
  try {
    return look();
  } catch (error) {
    if (!(error instanceof Error && 'errno' in error)) throw error;
    throw failure('PROCESS_UNREADABLE', { pid, detail: reason(error) });
  }
}
