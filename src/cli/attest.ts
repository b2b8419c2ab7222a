import { createPublicKey, randomBytes } from 'node:crypto';
import * as v from 'valibot';
import type { Claims } from '../attestation/claims.ts';
import { reportData } from '../attestation/report-data.ts';
import { verifySoftwareEvidence } from '../attestation/software.ts';
import { failure } from '../errors.ts';
import { type Address, defaultPorts, formatAddress, parseAddress, portSetting } from '../policy/address.ts';
import { formatKeyHash, parseKeyHash } from '../policy/key-hash.ts';
import { callApi, connectApi } from '../protocol/api-client.ts';
import { updateClientState } from '../protocol/client-state.ts';
import { checkKey } from '../protocol/connect.ts';
import { printable, Refused } from '../protocol/refusal.ts';
import { readDigest } from './digest.ts';
import type { Output } from './output.ts';
import { warn } from './report.ts';
import { withRetries } from './retry.ts';

/** What is expected of a CAS, and what is tolerated. */
export interface AttestOptions {
  mrenclave?: string[];
  casKeyHash?: string;
  trustedPlatform?: string[];
  only_for_testingTrustAny?: boolean;
  only_for_testingDebug?: boolean;
  only_for_testingIgnoreSigner?: boolean;
  retries: number;
}

const attestAnswer = v.object({ evidence: v.string(), version: v.string() });

/** `scone cas attest ADDRESS [MRENCLAVE]`: checks a CAS, and pins its key when it is trustworthy. */
export async function attestCas(
  addressText: string,
  mrenclave: string | undefined,
  options: AttestOptions,
): Promise<Output> {
  const { env } = process;
  const address = parseAddress(
    addressText,
    portSetting(env, 'SCONE_CAS_API_PORT', defaultPorts.api),
    'the address',
  );
  const measurements = [...(mrenclave ? [mrenclave] : []), ...(options.mrenclave ?? [])].map((text) =>
    readDigest(text, 'a measurement'),
  );
  const platforms = (options.trustedPlatform ?? []).map((text) => readDigest(text, 'a LAS key'));
  checkOptions(measurements, options);

  const pinned =
    options.casKeyHash === undefined ? undefined : parseKeyHash(options.casKeyHash, '--cas-key-hash');
  const connection = await withRetries(options.retries, () => connectApi(address));
  if (pinned) checkKey(connection, pinned, 'by --cas-key-hash');
  const casKey = connection.key;
  const nonce = randomBytes(32);
  const { evidence, version } = await callApi(
    connection,
    { method: 'GET', path: `/v1/attest?nonce=${nonce.toString('hex')}` },
    attestAnswer,
  );
  const claims = await verifySoftwareEvidence(evidence);
  if (!claims.reportData.equals(reportData({ role: 'cas', channel: nonce, casKey, configId: '' })))
    throw failure('EVIDENCE_INVALID', { detail: 'it was made for another key or nonce' });
  appraiseCas(claims, measurements, platforms, options);

  const encryptionKey = await fetchEncryptionKey(address, casKey);
  remember(env, addressText, address, connection.certificate.toString(), encryptionKey);
  if (claims.debug)
    warn(
      'the Evidence is vouched for by software alone (debug): whoever administers that host could have made it',
    );
  const url = `https://${formatAddress(address)}/`;
  const keyHash = formatKeyHash(casKey);
  const { measurement, platform, debug } = claims;
  return {
    text:
      `CAS ${addressText} at ${url} is trustworthy\n` +
      `CAS key hash: ${keyHash}\n` +
      `Version of attested CAS: ${printable(version)}\n`,
    json: { name: addressText, url, keyHash, version, measurement, platform, debug },
  };
}

/**
 * Asks the CAS that was just attested for its public key for encrypted sessions.
 * @param casKey the key that it was attested with
 * @returns PEM, or undefined from a CAS that has none
 * @throws Failure CAS_KEY_MISMATCH where another CAS answers now
 */
export async function fetchEncryptionKey(address: Address, casKey: Buffer): Promise<string | undefined> {
  const connection = await connectApi(address);
  checkKey(connection, casKey, 'by the Evidence it gave just now');
  const call = { method: 'GET', path: '/v1/session-encryption-key' } as const;
  let publicKey: string;
  try {
    ({ publicKey } = await callApi(connection, call, v.object({ publicKey: v.string() })));
  } catch (error) {
    // A CAS of an older version says that there is nothing at this path, which is none of the declared errors.
    if (error instanceof Refused && error.code === 'INTERNAL') return undefined;
    throw error;
  }
  try {
    if (publicKey.includes('PRIVATE')) throw new Error('it is a private one');
    return createPublicKey(publicKey).export({ type: 'spki', format: 'pem' }) as string;
  } catch {
    const detail = 'its key for encrypted sessions is no public key';
    throw failure('CAS_PROTOCOL', { address: formatAddress(address), detail });
  }
}

/** Options that weaken the check need each other, so that none is used by accident. */
function checkOptions(measurements: string[], options: AttestOptions): void {
  const usage = (detail: string) => failure('USAGE', { detail });
  if (options.only_for_testingTrustAny && !options.only_for_testingDebug)
    throw usage('--only_for_testing-trust-any is for a CAS in debug mode: it needs --only_for_testing-debug');
  if (options.only_for_testingDebug && !options.only_for_testingIgnoreSigner)
    throw usage(
      '--only_for_testing-debug needs --only_for_testing-ignore-signer: software Evidence has no signer',
    );
  if (options.only_for_testingIgnoreSigner && !options.only_for_testingTrustAny && measurements.length === 0)
    throw usage('--only_for_testing-ignore-signer needs a measurement, or --only_for_testing-trust-any');
}

function appraiseCas(
  claims: Claims,
  measurements: string[],
  platforms: string[],
  options: AttestOptions,
): void {
  const refuse = (detail: string) => failure('CAS_NOT_TRUSTWORTHY', { detail });
  if (claims.debug && !options.only_for_testingDebug)
    throw refuse(
      'its Evidence is vouched for by software alone (debug), which proves nothing against its administrator',
    );
  if (options.only_for_testingTrustAny) return;
  if (!measurements.includes(claims.measurement))
    throw refuse(
      `Enclave hash does not match expectation: ${claims.measurement}, expected ${measurements.join(' or ')}`,
    );
  if (!platforms.includes(claims.platform))
    throw refuse(`its LAS key ${claims.platform} is not trusted; name it with --trusted-platform`);
}

function remember(
  env: NodeJS.ProcessEnv,
  name: string,
  address: Address,
  chain: string,
  encryptionKey: string | undefined,
): void {
  const port = portSetting(env, 'SCONE_CAS_ENCLAVE_PORT', defaultPorts.enclave);
  const enclave = formatAddress({ host: address.host, port });
  const entry = {
    url: `https://${formatAddress(address)}/`,
    chain,
    enclave,
    ...(encryptionKey === undefined ? {} : { session_encryption_key: encryptionKey }),
  };
  updateClientState(env, (state) => {
    // Another name for the same launch port would go on pinning the key it had.
    const others = Object.entries(state.cas_db).filter(([, other]) => other.enclave !== enclave);
    const cas_db = { ...Object.fromEntries(others), [name]: entry };
    const keepsDefault = state.default_cas !== undefined && state.default_cas in cas_db;
    return { ...state, cas_db, default_cas: keepsDefault ? state.default_cas : name };
  });
}
