import { failure } from '../errors.ts';
import { type Mode, readMode } from '../platform/mode.ts';
import { type Address, defaultPorts, lasSocket, parseAddress, portSetting } from '../policy/address.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import { type ConfigId, parseConfigId } from '../policy/names.ts';
import { parseDuration } from '../secrets/duration.ts';
import { createLog, type Log } from './log.ts';

/** What the environment says about a launch. */
export interface Settings {
  configId: ConfigId;
  cas: Address;
  /** SHA-256 of the CAS's public key, where SCONE_CAS_KEY gives it. */
  casKey: Buffer | undefined;
  las: string;
  /** Known to the session's own launchers and its CAS alone, where SCONE_SERVICE_ACCESS_TOKEN gives it. */
  accessToken: string | undefined;
  /** Everything the host offers; the policy says what of it is taken. */
  hostEnvironment: NodeJS.ProcessEnv;
  hostArguments: readonly string[];
  /** How long CAS and LAS are waited for where they cannot be reached, in milliseconds. */
  startTimeout: number;
  /** Where Evidence may come from. */
  mode: Mode;
  log: Log;
}

/** @throws Failure CONFIG_ID_MISSING, CONFIG_ID_MALFORMED, ADDRESS_MALFORMED, CAS_KEY_MALFORMED or SETTING_MALFORMED */
export function readSettings(env: NodeJS.ProcessEnv, hostArguments: readonly string[]): Settings {
  if (!env.SCONE_CONFIG_ID) throw failure('CONFIG_ID_MISSING');
  return {
    configId: parseConfigId(env.SCONE_CONFIG_ID),
    cas: casAddress(env),
    casKey: env.SCONE_CAS_KEY ? parseKeyHash(env.SCONE_CAS_KEY, 'SCONE_CAS_KEY') : undefined,
    las: lasSocket(env.SCONE_LAS_ADDR),
    accessToken: env.SCONE_SERVICE_ACCESS_TOKEN || undefined,
    hostEnvironment: env,
    hostArguments,
    startTimeout: startTimeout(env.SCONE_START_TIMEOUT),
    mode: readMode(env),
    log: createLog(env.SCONE_LOG),
  };
}

/** 0 is one attempt, which takes seconds at most. */
function startTimeout(written: string | undefined): number {
  if (!written) return 0;
  const duration = parseDuration(written);
  if (duration !== undefined) return duration;
  throw failure('SETTING_MALFORMED', {
    name: 'SCONE_START_TIMEOUT',
    detail: 'expected a duration such as 90s',
  });
}

/** Enclave port of the CAS; its host is `cas` unless told otherwise. */
function casAddress(env: NodeJS.ProcessEnv): Address {
  const port = portSetting(env, 'SCONE_CAS_ENCLAVE_PORT', defaultPorts.enclave);
  return parseAddress(env.SCONE_CAS_ADDR || 'cas', port, 'SCONE_CAS_ADDR');
}
