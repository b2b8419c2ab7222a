import { rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Property } from '../attestation/claims.ts';
import { serveCas } from '../cas/serve.ts';
import { failure } from '../errors.ts';
import { openLasKey } from '../las/key.ts';
import { openMachine } from '../las/machine.ts';
import { serveLas } from '../las/serve.ts';
import { homeFolder } from '../platform/home.ts';
import { type Mode, readMode } from '../platform/mode.ts';
import { makePrivateDirectory, writePrivate } from '../platform/private-file.ts';
import { defaultPorts, formatAddress, parseAddress } from '../policy/address.ts';
import { formatKeyHash, parseKeyHash } from '../policy/key-hash.ts';
import { pinnedKey } from '../protocol/client-state.ts';
import { openLog } from './log.ts';
import { print, protectMemory, untilSignal } from './server.ts';
import { shellQuote } from './shell.ts';

/** Options of `scone las serve`. */
export interface LasServeOptions {
  dir: string;
  socket: string;
  cas?: string[];
  require?: Property[];
  containers?: boolean;
  mode: Mode;
  logLevel: string;
}

/** `scone las serve`: a LAS in the foreground. */
export async function runLas(options: LasServeOptions): Promise<void> {
  protectMemory();
  const directory = resolve(options.dir);
  const log = openLog(options.logLevel, 'las');
  const key = openLasKey(join(directory, 'las.key'));
  const machine = await openMachine({ mode: options.mode, directory, env: process.env, log });
  const las = await serveLas({
    socket: resolve(options.socket),
    key,
    machine,
    casKeys: new Map((options.cas ?? []).map(readCas)),
    demands: { require: options.require ?? [], containers: options.containers ?? false },
    log,
  });
  const end = untilSignal();
  print(
    `LAS ready at ${resolve(options.socket)}`,
    ...(machine
      ? [
          `Root of trust: ${machine.root}. The key of this LAS is new each time it starts; policies name the machine.`,
        ]
      : [`LAS key (platform): ${key.platform}`, SOFTWARE_ROOT]),
  );
  await end;
  await las.close();
}

export interface UpOptions {
  dir?: string;
  freePorts?: boolean;
  logLevel: string;
}

/** `scone up`: a CAS and a LAS for one machine, everything they keep in one folder. */
export async function up(options: UpOptions): Promise<void> {
  if (readMode(process.env) === 'hw')
    throw failure('HARDWARE_MISSING', {
      detail: '`scone up` has a LAS in software; start servers by themselves',
    });
  protectMemory();
  process.umask(0o077);
  const host = 'localhost';
  const directory = resolve(options.dir ?? defaultDirectory(process.env));
  makePrivateDirectory(directory);
  const environment = join(directory, 'env');
  const socket = join(directory, 'las.sock');
  const log = openLog(options.logLevel, 'scone');
  const key = openLasKey(join(directory, 'las', 'las.key'));
  const casKeys = new Map<string, string>();
  const las = await serveLas({ socket, key, casKeys, demands: { require: [], containers: false }, log });
  // Now that no other LAS answers there, what it left behind is of no use.
  rmSync(environment, { force: true });
  try {
    const cas = await serveCas({
      directory: join(directory, 'cas'),
      host: '127.0.0.1',
      apiPort: options.freePorts ? 0 : defaultPorts.api,
      enclavePort: options.freePorts ? 0 : defaultPorts.enclave,
      names: [],
      trustedPlatforms: [key.platform],
      lasSocket: socket,
      log,
    });
    try {
      casKeys.set(formatAddress({ host, port: cas.enclavePort }), formatKeyHash(cas.key));
      const variables = {
        SCONE_CAS_ADDR: host,
        SCONE_CAS_API_PORT: cas.apiPort,
        SCONE_CAS_ENCLAVE_PORT: cas.enclavePort,
        SCONE_LAS_ADDR: socket,
      };
      const lines = Object.entries(variables).map(
        ([name, value]) => `export ${name}=${shellQuote(String(value))}\n`,
      );
      writePrivate(environment, Buffer.from(lines.join('')), 'replace');
      const end = untilSignal();
      print(
        `CAS ready at https://${formatAddress({ host, port: cas.apiPort })}/, launchers at port ${cas.enclavePort}`,
        `CAS key hash: ${formatKeyHash(cas.key)}`,
        `LAS ready at ${socket}`,
        `LAS key (platform): ${key.platform}`,
        SOFTWARE_ROOT,
        `To use them: . ${shellQuote(environment)}`,
      );
      await end;
    } finally {
      rmSync(environment, { force: true });
      await cas.close();
    }
  } finally {
    await las.close();
  }
}

const SOFTWARE_ROOT =
  'The LAS is a software root of trust: it proves nothing against the administrator of this machine.';

function defaultDirectory(env: NodeJS.ProcessEnv): string {
  return join(env.XDG_STATE_HOME || join(homeFolder(env), '.local', 'state'), 'scone');
}

/** ADDRESS or ADDRESS=KEYHASH; without the hash, the CAS must have been attested by this user. */
function readCas(text: string): [string, string] {
  const [addressText = '', keyText] = text.split('=', 2);
  const address = parseAddress(addressText, defaultPorts.enclave, '--cas');
  const key = keyText === undefined ? pinnedKey(process.env, address) : parseKeyHash(keyText, '--cas');
  if (!key) throw failure('CAS_KEY_UNKNOWN', { address: addressText, host: address.host });
  return [formatAddress(address), formatKeyHash(key)];
}
