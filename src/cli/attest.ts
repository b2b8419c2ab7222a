import { randomBytes } from 'node:crypto';
import * as v from 'valibot';
import { appraise, chained, type Expectation } from '../attestation/appraise.ts';
import type { Claims } from '../attestation/claims.ts';
import { collateralFiles, parseCollateral } from '../attestation/collateral.ts';
import {
  describeCredentials,
  RUN_AS_OF_CAS,
  runAs,
  runAsRefusal,
  wordsOf,
} from '../attestation/credentials.ts';
import { verifyEvidence } from '../attestation/evidence.ts';
import { type Endorsements, tpmKeyName } from '../attestation/hardware.ts';
import { type HardwareEvidence, hardwareEvidence } from '../attestation/hardware-evidence.ts';
import { reportData } from '../attestation/report-data.ts';
import { causes, failure, reason } from '../errors.ts';
import { type Address, defaultPorts, formatAddress, parseAddress, portSetting } from '../policy/address.ts';
import { formatKeyHash, parseKeyHash, publicKeyDigest } from '../policy/key-hash.ts';
import { expectedMachines } from '../policy/machines.ts';
import { machines } from '../policy/schema/services.ts';
import { invalid, readYaml } from '../policy/yaml.ts';
import { callApi, connectApi } from '../protocol/api-client.ts';
import { updateClientState } from '../protocol/client-state.ts';
import { checkKey } from '../protocol/connect.ts';
import { printable, Refused } from '../protocol/refusal.ts';
import { parsePublicKey, toPem } from '../secrets/private-key.ts';
import { firstCertificate } from '../secrets/x509.ts';
import { readDigest } from './digest.ts';
import { readInput } from './input.ts';
import type { Output } from './output.ts';
import { warn } from './report.ts';
import { withRetries } from './retry.ts';
import { askForHead, seenLog } from './seen-log.ts';

/** What is expected of a CAS, and what is tolerated. */
export interface AttestOptions {
  mrenclave?: string[];
  mrsigner?: string;
  isvprodid?: number;
  isvsvn?: number;
  /** File that names the machine, as a policy does. */
  machine?: string;
  /** Names of attestation keys of TPMs. */
  tpmKey?: string[];
  casKeyHash?: string;
  trustedPlatform?: string[];
  acceptConfigurationNeeded?: boolean;
  acceptGroupOutOfDate?: boolean;
  acceptSwHardeningNeeded?: boolean;
  tolerate?: string[];
  ignoreAdvisory?: string[];
  offlineReport?: string;
  nonce?: string;
  verificationTime?: number;
  /** SHA-256 of roots of hardware to trust instead of the makers' own; no option of the command sets it. */
  hardwareRoots?: ReadonlySet<string>;
  /** As whom the CAS may run. */
  runAs?: string[];
  only_for_testingTrustAny?: boolean;
  only_for_testingDebug?: boolean;
  only_for_testingIgnoreSigner?: boolean;
  retries: number;
}

/** What a CAS says of itself: `GET /v1/attest`. */
const report = v.object({
  evidence: v.optional(v.string()),
  hardware: v.optional(hardwareEvidence),
  collateral: v.optional(collateralFiles, []),
  /** A CAS of an older version has none; the connection tells its key. */
  certificate: v.optional(v.string()),
  version: v.string(),
});
type Report = v.InferOutput<typeof report>;

/** A CAS that was found trustworthy. */
interface Attested {
  address: Address;
  casKey: Buffer;
  certificate: string;
  said: Report;
  claims: Claims;
  /** As whom it may run. */
  runAs: readonly string[];
}

/** Checks a CAS. @throws Failure CAS_NOT_TRUSTWORTHY, EVIDENCE_*, CAS_* */
export async function attest(
  addressText: string,
  mrenclave: string | undefined,
  options: AttestOptions,
): Promise<Attested> {
  const { env } = process;
  const address = parseAddress(
    addressText,
    portSetting(env, 'SCONE_CAS_API_PORT', defaultPorts.api),
    'the address',
  );
  const measurements = [...(mrenclave ? [mrenclave] : []), ...(options.mrenclave ?? [])].map((text) =>
    readDigest(text, 'a measurement'),
  );
  checkOptions(measurements, options);
  const expected = expectationOf(measurements, options);
  const pinned =
    options.casKeyHash === undefined ? undefined : parseKeyHash(options.casKeyHash, '--cas-key-hash');

  const { nonce, said, casKey, certificate } = options.offlineReport
    ? readReport(options.offlineReport, options.nonce)
    : await askCas(address, options.retries, pinned);
  if (pinned && !casKey.equals(pinned))
    throw failure('CAS_KEY_MISMATCH', {
      address: addressText,
      actual: formatKeyHash(casKey),
      expected: formatKeyHash(pinned),
      source: 'by --cas-key-hash',
    });
  const claims = await verifyReport(said, { nonce, casKey }, options);
  appraiseCas(claims, expected, options);
  const runAs = runAsOf(options, claims);
  if (options.runAs || !options.only_for_testingTrustAny) checkRunAs(claims, runAs);
  if (claims.root === 'software')
    warn(
      'the Evidence is vouched for by software alone (debug): whoever administers that host could have made it',
    );
  return { address, casKey, certificate, said, claims, runAs };
}

/** `scone cas attest ADDRESS [MRENCLAVE]`: checks a CAS, and pins its key when it is trustworthy. */
export async function attestCas(
  addressText: string,
  mrenclave: string | undefined,
  options: AttestOptions,
): Promise<Output> {
  const { address, casKey, certificate, said, claims } = await attest(addressText, mrenclave, options);
  if (!options.offlineReport) {
    const encryptionKey = await fetchEncryptionKey(address, casKey);
    await compareLog(addressText, address, casKey);
    remember(process.env, addressText, address, certificate, encryptionKey);
  }
  const url = `https://${formatAddress(address)}/`;
  const keyHash = formatKeyHash(casKey);
  const { measurement, platform, debug, root, credentials, weaknesses = [], advisories = [] } = claims;
  const weak = [...weaknesses, ...advisories].join(', ');
  return {
    text:
      `CAS ${addressText} at ${url} is trustworthy\n` +
      `CAS key hash: ${keyHash}\n` +
      `Version of attested CAS: ${printable(said.version)}\n` +
      `Root of trust: ${root}${weak && `, tolerated: ${weak}`}\n` +
      (root === 'sgx' ? '' : `Runs as: ${printable(describeCredentials(credentials))}\n`) +
      (options.offlineReport
        ? 'It is not pinned: a report that was kept does not tell who answers there now.\n'
        : ''),
    json: {
      ...{ name: addressText, url, keyHash, version: said.version, root, measurement, platform, debug },
      ...{ weaknesses, advisories, credentials },
    },
  };
}

/** A report, and what it must have been made for. */
interface Asked {
  said: Report;
  nonce: Buffer;
  casKey: Buffer;
  certificate: string;
}

async function askCas(address: Address, retries: number, pinned: Buffer | undefined): Promise<Asked> {
  const connection = await withRetries(retries, () => connectApi(address));
  if (pinned) checkKey(connection, pinned, 'by --cas-key-hash');
  const nonce = randomBytes(32);
  const said = await callApi(
    connection,
    { method: 'GET', path: `/v1/attest?nonce=${nonce.toString('hex')}` },
    report,
  );
  return { said, nonce, casKey: connection.key, certificate: connection.certificate.toString() };
}

const LARGEST_REPORT = 4 * 1024 * 1024;

/** @throws Failure FILE_INVALID */
function readReport(path: string, nonce: string | undefined): Asked {
  const text = readInput(path, LARGEST_REPORT).toString();
  const invalid = (detail: string) => failure('FILE_INVALID', { path, detail });
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw invalid(reason(error));
  }
  const parsed = v.safeParse(report, content);
  if (!parsed.success)
    throw invalid(`it is no report of a CAS, at ${v.getDotPath(parsed.issues[0]) ?? 'the top'}`);
  const { certificate } = parsed.output;
  if (certificate === undefined) throw invalid('it holds no certificate of the CAS');
  try {
    const casKey = publicKeyDigest(firstCertificate(certificate).publicKey);
    return { said: parsed.output, nonce: Buffer.from(nonce ?? '', 'hex'), casKey, certificate };
  } catch {
    throw invalid('its certificate cannot be read');
  }
}

/** @throws Failure as verifyEvidence, or EVIDENCE_INVALID where it was made for something else */
async function verifyReport(
  { evidence, hardware, collateral }: Report,
  { nonce, casKey }: Pick<Asked, 'nonce' | 'casKey'>,
  { verificationTime = Date.now(), hardwareRoots, tpmKey = [] }: AttestOptions,
): Promise<Claims> {
  const bag = parseCollateral(collateral);
  const endorse = async (its: HardwareEvidence): Promise<Endorsements> => {
    const name = its.type === 'tpm' ? tpmKeyName(its) : undefined;
    return {
      collateral: bag,
      ...(hardwareRoots && { roots: hardwareRoots }),
      ...(name !== undefined && tpmKey.includes(name) && { platform: `TPM_AK:${name}` }),
    };
  };
  const claims = await verifyEvidence({ evidence, hardware }, endorse, verificationTime);
  const isFresh = claims.nonce === undefined || claims.nonce.equals(nonce);
  const expected = reportData({ role: 'cas', channel: nonce, casKey, configId: '' });
  if (!isFresh || !claims.reportData.equals(expected))
    throw failure('EVIDENCE_INVALID', { detail: 'it was made for another key or nonce' });
  return claims;
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
    const spki = parsePublicKey(publicKey);
    if (typeof spki === 'string') throw new Error(spki);
    return toPem('PUBLIC KEY', spki);
  } catch {
    const detail = 'its key for encrypted sessions is no public key';
    throw failure('CAS_PROTOCOL', { address: formatAddress(address), detail });
  }
}

/** Options that weaken the check need each other, so that none is used by accident. */
function checkOptions(measurements: string[], options: AttestOptions): void {
  const usage = (detail: string) => failure('USAGE', { detail });
  const { mrsigner, isvprodid, isvsvn, offlineReport, nonce } = options;
  if (options.only_for_testingTrustAny && !options.only_for_testingDebug)
    throw usage('--only_for_testing-trust-any is for a CAS in debug mode: it needs --only_for_testing-debug');
  if (options.only_for_testingDebug && !options.only_for_testingIgnoreSigner && mrsigner === undefined)
    throw usage(
      '--only_for_testing-debug needs --only_for_testing-ignore-signer: software Evidence has no signer',
    );
  if (options.only_for_testingIgnoreSigner && !options.only_for_testingTrustAny && measurements.length === 0)
    throw usage('--only_for_testing-ignore-signer needs a measurement, or --only_for_testing-trust-any');
  if (
    [mrsigner, isvprodid, isvsvn].some((each) => each === undefined) &&
    (mrsigner ?? isvprodid ?? isvsvn) !== undefined
  )
    throw usage('--mrsigner, --isvprodid and --isvsvn belong together');
  for (const whom of options.runAs ?? []) {
    const parsed = v.safeParse(runAs, whom);
    if (!parsed.success) throw usage(`--run-as ${printable(whom)}: ${parsed.issues[0].message}`);
  }
  if ((offlineReport === undefined) !== (nonce === undefined))
    throw usage(
      '--offline-report and --nonce belong together: the nonce is what the report was asked for with',
    );
  if (nonce !== undefined && !/^([0-9a-fA-F]{2}){16,64}$/.test(nonce))
    throw usage('--nonce has 32 to 128 hexadecimal digits');
}

/** What a policy would say of the CAS. */
function expectationOf(measurements: string[], options: AttestOptions): Expectation {
  const { mrsigner, isvprodid = 0, isvsvn = 0, machine } = options;
  const platforms = (options.trustedPlatform ?? []).map((text) => readDigest(text, 'a LAS key'));
  const accepted = [
    ...(options.acceptConfigurationNeeded ? ['insecure-configuration'] : []),
    ...(options.acceptGroupOutOfDate ? ['outdated-tcb'] : []),
    ...(options.acceptSwHardeningNeeded ? ['software-hardening-needed'] : []),
  ];
  return {
    mode: 'hardware',
    tolerate: [
      ...accepted,
      ...(options.tolerate ?? []),
      ...(options.only_for_testingDebug ? ['debug-mode'] : []),
    ],
    require: [],
    ignoreAdvisories: options.ignoreAdvisory ?? [],
    variants: [
      {
        ...(measurements.length > 0 && { measurements }),
        ...(mrsigner !== undefined && {
          signer: { mrsigner: readDigest(mrsigner, 'a signer'), isvprodid, isvsvn_min: isvsvn },
        }),
        ...(machine !== undefined && readMachines(machine)),
      },
    ],
    platforms: [],
    trustedPlatforms: platforms,
  };
}

const LARGEST_MACHINE = 256 * 1024;

/** @throws InvalidText or Failure FILE_INVALID */
function readMachines(path: string) {
  const yaml = readYaml(readInput(path, LARGEST_MACHINE).toString());
  const parsed = v.safeParse(machines, yaml.value);
  if (!parsed.success) throw invalid(yaml, parsed.issues);
  return expectedMachines(parsed.output);
}

function appraiseCas(claims: Claims, expected: Expectation, options: AttestOptions): void {
  const refuse = (detail: string, cause?: unknown) => failure('CAS_NOT_TRUSTWORTHY', { detail }, cause);
  const [{ measurements = [], signer } = {}] = expected.variants;
  if (claims.root !== 'software') {
    if (options.only_for_testingTrustAny) return;
    if (claims.root === 'sgx' && measurements.length === 0 && !signer)
      throw refuse('nobody says which enclave it must be: give its measurement, or --mrsigner');
    const { acceptConfigurationNeeded, acceptGroupOutOfDate, acceptSwHardeningNeeded } = options;
    // Whoever accepts a status accepts what its maker has published about it; it is told after that.
    const isAccepted = acceptConfigurationNeeded || acceptGroupOutOfDate || acceptSwHardeningNeeded;
    const ignoreAdvisories = isAccepted ? (claims.advisories ?? []) : expected.ignoreAdvisories;
    const refusals = appraise({ ...expected, ignoreAdvisories }, claims);
    if (refusals.length > 0) throw refuse('its hardware says', chained(refusals));
    return;
  }
  if (claims.debug && !options.only_for_testingDebug)
    throw refuse(
      'its Evidence is vouched for by software alone (debug), which proves nothing against its administrator',
    );
  if (options.only_for_testingTrustAny) return;
  if (!measurements.includes(claims.measurement))
    throw refuse(
      `Enclave hash does not match expectation: ${claims.measurement}, expected ${measurements.join(' or ')}`,
    );
  if (!expected.trustedPlatforms.includes(claims.platform))
    throw refuse(`its LAS key ${claims.platform} is not trusted; name it with --trusted-platform`);
}

/** As whom a CAS is to run: what it is given, that user can read. Whoever trusts any takes whom it runs as now. */
export function runAsOf(
  { runAs, only_for_testingTrustAny }: Pick<AttestOptions, 'runAs' | 'only_for_testingTrustAny'>,
  { credentials }: Pick<Claims, 'credentials'>,
): readonly string[] {
  const isUsual = !runAsRefusal(RUN_AS_OF_CAS, credentials);
  const [now] = credentials && only_for_testingTrustAny && !isUsual ? wordsOf(credentials) : [];
  return runAs ?? (now === undefined ? RUN_AS_OF_CAS : [now]);
}

function checkRunAs({ root, credentials }: Claims, expected: readonly string[]): void {
  if (root === 'sgx') return;
  const refusal = runAsRefusal(expected, credentials);
  if (!refusal) return;
  throw failure('CAS_NOT_TRUSTWORTHY', { detail: 'whoever it runs as could read what it is given' }, refusal);
}

/** Tells of a log that was seen before, and is not continued: whoever attests the CAS again accepts it. */
async function compareLog(name: string, address: Address, key: Buffer): Promise<void> {
  const before = seenLog(name);
  if (!before) return;
  const connect = async () => {
    const connection = await connectApi(address);
    checkKey(connection, key, 'by the Evidence it gave just now');
    return connection;
  };
  await askForHead({ name, address, key }, before, connect).catch((error: unknown) => {
    warn(`${causes(error).join(': ')}. What it has now is accepted from here on`);
  });
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
