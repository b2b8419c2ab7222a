import { createReadStream, createWriteStream, rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { parse as parseToml } from 'smol-toml';
import * as v from 'valibot';
import { parse as parseYaml } from 'yaml';
import { backupLines } from '../cas/owner/backup.ts';
import { type OwnerConfiguration, ownerConfiguration, unusedParts } from '../cas/owner/configuration.ts';
import { readDump } from '../cas/store/dump.ts';
import { failure, reason } from '../errors.ts';
import { type Address, defaultPorts, formatAddress, parseAddress, portSetting } from '../policy/address.ts';
import { formatKeyHash, parseKeyHash } from '../policy/key-hash.ts';
import { callApi, connectApi, transfer } from '../protocol/api-client.ts';
import { checkKey } from '../protocol/connect.ts';
import { printable, Refused } from '../protocol/refusal.ts';
import { type AttestOptions, attest } from './attest.ts';
import { connectTo, type NetworkOptions, openCas } from './connect.ts';
import { readInput } from './input.ts';
import type { Output } from './output.ts';
import { warn } from './report.ts';
import { knownCas, openIdentity } from './state.ts';
import { confirmChanges, type WithoutCodeOptions } from './store.ts';
import { readSecretLine } from './unseal-input.ts';

/** Commands of whoever a CAS belongs to. */

const LARGEST_CONFIGURATION = 1024 * 1024;

/** TOML, JSON or YAML, by the end of the name. @throws Failure FILE_INVALID */
function readOwnerConfiguration(path: string): OwnerConfiguration {
  const invalid = (detail: string) => failure('FILE_INVALID', { path, detail });
  const text = readInput(path, LARGEST_CONFIGURATION).toString();
  let content: unknown;
  try {
    content = path.endsWith('.toml') ? parseToml(text) : parseYaml(text);
  } catch (error) {
    throw invalid(reason(error).split('\n')[0] ?? '');
  }
  const parsed = v.safeParse(ownerConfiguration, content ?? {});
  if (!parsed.success) {
    const [issue] = parsed.issues;
    const at = v.getDotPath(issue) ?? 'the top';
    throw invalid(issue.type === 'strict_object' ? `${at} is no key of it` : `${at} ${issue.message}`);
  }
  for (const part of unusedParts(parsed.output))
    warn(`${path}: ${part} is accepted, and changes nothing here`);
  return parsed.output;
}

const versioned = v.object({ version: v.number() });

export interface ProvisionOptions extends AttestOptions {
  token?: string;
  tokenFile?: string;
  configFile: string;
  identity?: string;
}

/** `scone cas provision … ADDRESS with-attestation`: makes this user the owner of a CAS. */
export async function provisionCas(
  addressText: string,
  how: string,
  options: ProvisionOptions,
): Promise<Output> {
  const ways = ['with-attestation', 'only_for_testing-without-attestation'];
  if (!ways.includes(how)) throw failure('USAGE', { detail: `after the address comes ${ways.join(' or ')}` });
  const isAttested = how === 'with-attestation';
  if (!isAttested && options.casKeyHash === undefined)
    throw failure('USAGE', {
      detail: 'a CAS that is not attested is known by its key alone: name it with -c',
    });
  const configuration = readOwnerConfiguration(options.configFile);
  const token = options.token ?? readSecretLine(options.tokenFile, 'Provisioning token');
  if (!isAttested) warn('the CAS is not attested: its key alone says which one it is');
  const key = isAttested
    ? (await attest(addressText, undefined, options)).casKey
    : parseKeyHash(options.casKeyHash ?? '', '-c');
  const address = parseAddress(
    addressText,
    portSetting(process.env, 'SCONE_CAS_API_PORT', defaultPorts.api),
    'the address',
  );
  const identity = await openIdentity(process.env, options.identity);
  const connection = await connectApi(address, identity);
  checkKey(connection, key, isAttested ? 'by the Evidence it gave just now' : 'by -c');
  const body = JSON.stringify({ token, configuration });
  const { version } = await callApi(
    connection,
    { method: 'POST', path: '/v1/provisioning', body },
    versioned,
  );
  return {
    text: `You own the CAS ${addressText}; its configuration has version ${version}\n`,
    json: { version },
  };
}

const owned = v.object({ version: v.number(), configuration: v.unknown() });
const CONFIGURATION = '/v1/owner-configuration';

/** `scone cas show-config` */
export async function showOwnerConfiguration(options: NetworkOptions): Promise<Output> {
  const cas = await openCas(options);
  const { version, configuration } = await cas.call({ method: 'GET', path: CONFIGURATION }, owned);
  return { text: `${JSON.stringify(configuration, null, 2)}\n`, json: { version, configuration } };
}

/** `scone cas update-config --config-file FILE` */
export async function updateOwnerConfigurationOf(
  options: NetworkOptions & { configFile: string },
): Promise<Output> {
  const configuration = readOwnerConfiguration(options.configFile);
  const cas = await openCas(options);
  const before = await cas.call({ method: 'GET', path: CONFIGURATION }, owned);
  const body = JSON.stringify({ version: before.version, configuration });
  const { version } = await cas.call({ method: 'PUT', path: CONFIGURATION, body }, versioned);
  return { text: `The configuration has version ${version} now\n`, json: { version } };
}

/** `scone cas seal` */
export async function sealCas(options: NetworkOptions): Promise<Output> {
  const cas = await openCas(options);
  const answer = await cas.call(
    { method: 'POST', path: '/v1/seal', body: '' },
    v.object({ sealed: v.literal(true) }),
  );
  return {
    text: `The CAS ${cas.name} has forgotten its keys; \`scone cas unseal\` gives them back\n`,
    json: answer,
  };
}

/** `scone cas rotate`: of a CAS that runs. */
export async function rotateCas(options: NetworkOptions): Promise<Output> {
  const cas = await openCas(options);
  const answer = await cas.call({ method: 'POST', path: '/v1/rotations', body: '' }, rotated);
  return { text: rotatedText(answer), json: answer };
}
const rotated = v.object({ present: v.number(), rewrapped: v.number() });
const rotatedText = ({ present, rewrapped }: v.InferOutput<typeof rotated>) =>
  `Master key ${present} is used from now on; ${rewrapped} values were wrapped under it\n`;

const BACKUP = 'application/x-ndjson';

/** `scone cas backup FILE`: everything that a running CAS keeps, sealed as it is. */
export async function backupCas(file: string, options: NetworkOptions): Promise<Output> {
  const path = resolve(file);
  const { connection } = await openOwned(options);
  const output = createWriteStream(path, { flags: 'wx', mode: 0o600 });
  let isMade = false;
  output.once('open', () => {
    isMade = true;
  });
  try {
    await transfer(connection, { method: 'GET', path: '/v1/backup' }, (answer) => pipeline(answer, output));
    const { rows, created } = await readDump(backupLines(createReadStream(path)), () => {});
    const at = new Date(created).toISOString();
    return { text: `${rows} rows of ${at} are in ${file}\n`, json: { rows, created: at, file } };
  } catch (error) {
    // Half a backup is none.
    if (isMade) rmSync(path, { force: true });
    throw error;
  }
}

const restoration = v.object({ changes: v.optional(v.array(v.string()), []) });

/** Characters of what a CAS says of a restore; 0.1.0 says nothing of changes. */
const LARGEST_ANSWER = 1024 * 1024;

/** @throws Failure CAS_PROTOCOL */
function readRestoration(answer: string, address: Address): v.InferOutput<typeof restoration> {
  try {
    return v.parse(restoration, JSON.parse(answer));
  } catch {
    throw failure('CAS_PROTOCOL', { address: formatAddress(address), detail: 'an answer of another form' });
  }
}

/** `scone cas restore FILE`: puts a backup in the place of what a running CAS has. */
export async function restoreCas(
  file: string,
  options: NetworkOptions & WithoutCodeOptions,
): Promise<Output> {
  const path = resolve(file);
  const facts = await readDump(backupLines(createReadStream(path)), () => {});
  const send = async (to: string) => {
    const { connection, name } = await openOwned(options);
    const content = createReadStream(path);
    const call = { method: 'POST', path: `/v1/restorations${to}`, type: BACKUP, content } as const;
    let answer = '';
    await transfer(connection, call, async (response) => {
      for await (const chunk of response.setEncoding('utf8'))
        if (answer.length < LARGEST_ANSWER) answer += chunk;
    });
    return { name, ...readRestoration(answer, connection.address) };
  };
  if (options.withoutCode) confirmChanges((await send('/without-code/changes')).changes, options.yes);
  const { name } = await send(options.withoutCode ? '/without-code' : '');
  const at = new Date(facts.created).toISOString();
  return {
    text: `The CAS ${name} has what it had on ${at}; its audit log says so, and clients are told\n`,
    json: { rows: facts.rows, created: at },
  };
}

async function openOwned(options: NetworkOptions) {
  const cas = knownCas(process.env, options.cas);
  const identity = await openIdentity(process.env, options.identity);
  return { connection: await connectTo(cas, options.retries, identity), name: cas.name };
}

const registration = v.object({
  id: v.string(),
  kind: v.string(),
  name: v.string(),
  root: v.string(),
  measurement: v.string(),
  platform: v.string(),
  runAs: v.optional(v.array(v.string())),
  created: v.number(),
});

/** `scone cas register-backup ADDRESS`, `register-upgrade ADDRESS`: names another CAS that may be given the root key. */
export async function registerCas(
  kind: 'backup' | 'upgrade',
  addressText: string,
  options: AttestOptions & NetworkOptions,
): Promise<Output> {
  const { claims, runAs } = await attest(addressText, undefined, options);
  const { root, measurement, platform, debug, weaknesses = [], advisories = [] } = claims;
  const cas = await openCas(options);
  const body = JSON.stringify({
    kind,
    name: addressText,
    root,
    measurement,
    platform,
    debug,
    weaknesses,
    advisories,
    runAs,
  });
  const made = await cas.call({ method: 'POST', path: '/v2/registrations', body }, registration);
  const { address, key } = knownCas(process.env, options.cas);
  const source = `${formatAddress(address)}=${formatKeyHash(key)}`;
  return {
    text:
      `${made.id}: ${addressText} may be given the root key of ${cas.name}${
        root === 'sgx' ? '' : `, while it runs as ${runAs.join(' or ')}`
      }\n` + `It asks for it when it is started with --unseal-from ${source}\n`,
    json: made,
  };
}

/** `scone cas list-registrations` */
export async function listRegistrationsOf(options: NetworkOptions): Promise<Output> {
  const cas = await openCas(options);
  const { registrations } = await cas.call(
    { method: 'GET', path: '/v1/registrations' },
    v.object({ registrations: v.array(registration) }),
  );
  const lines = registrations.map(
    ({ id, kind, name, root, measurement, created, runAs }) =>
      `${id}  ${kind}  ${printable(name)}  ${new Date(created).toISOString()}  ${root} ${measurement}  ` +
      `${runAs ? printable(runAs.join(' or ')) : 'gives nothing: register it anew, with --run-as'}\n`,
  );
  return { text: lines.join('') || 'No other CAS may be given the root key\n', json: registrations };
}

/** `scone cas remove-registration ID` */
export async function removeRegistration(id: string, options: NetworkOptions): Promise<Output> {
  if (!/^[0-9a-f]{8}$/.test(id)) throw failure('REGISTRATION_NOT_FOUND', { id });
  const cas = await openCas(options);
  const answer = v.object({ removed: v.string() });
  await cas.call({ method: 'DELETE', path: `/v1/registrations/${id}` }, answer);
  return { text: `${id} is not given the root key any more\n`, json: { removed: id } };
}

/** `scone cas remove-tpm TPM_EK:…` */
export async function removeTpm(key: string, options: NetworkOptions): Promise<Output> {
  if (!/^TPM_EK:[0-9a-f]{64}$/.test(key)) throw failure('TPM_NOT_ENROLLED', { key });
  const cas = await openCas(options);
  const answer = v.object({ removed: v.string() });
  await cas.call({ method: 'DELETE', path: `/v1/tpm/enrolments/${key}` }, answer);
  return { text: `${key} may be enrolled anew\n`, json: { removed: key } };
}

/** `scone cas start-upgrade -y` */
export async function startUpgradeOf(options: NetworkOptions & { yes?: boolean }): Promise<Output> {
  if (!options.yes)
    throw failure('USAGE', {
      detail:
        'from then on only what is registered as an upgrade is given the root key; say -y if that is wanted',
    });
  const cas = await openCas(options);
  const answer = await cas.call({ method: 'POST', path: '/v1/upgrades', body: '' }, rotated);
  return {
    text: `${rotatedText(answer)}Only what is registered as an upgrade is given the root key from now on: start each other replica anew as that\n`,
    json: answer,
  };
}

/** `scone cas unseal ADDRESS`: gives a sealed CAS a passphrase or a share, once it is attested. */
export async function unsealCas(
  addressText: string,
  mrenclave: string | undefined,
  options: AttestOptions & { secretFile?: string; share?: boolean },
): Promise<Output> {
  const { address, casKey } = await attest(addressText, mrenclave, options);
  const status = v.object({
    sealed: v.boolean(),
    methods: v.array(
      v.object({
        method: v.string(),
        threshold: v.optional(v.number()),
        given: v.optional(v.number()),
      }),
    ),
  });
  const ask = async (call: Parameters<typeof callApi>[1]) => {
    const connection = await connectApi(address);
    checkKey(connection, casKey, 'by the Evidence it gave just now');
    return callApi(connection, call, status);
  };
  const sealed = await ask({ method: 'GET', path: '/v1/seal' }).catch((error: unknown) => {
    // An open CAS has no such call.
    if (error instanceof Refused && error.code === 'METHOD_NOT_ALLOWED') return undefined;
    throw error;
  });
  if (!sealed)
    return {
      text: `The CAS at ${formatAddress(address)} is open already\n`,
      json: { sealed: false, methods: [] },
    };
  const { methods } = sealed;
  const hasShares = methods.some(({ method }) => method === 'shares');
  const hasPassphrase = methods.some(({ method }) => method === 'passphrase');
  const isShare = options.share ?? (hasShares && !hasPassphrase);
  const secret = readSecretLine(options.secretFile, isShare ? 'Share' : 'Passphrase');
  const body = JSON.stringify(isShare ? { share: secret } : { passphrase: secret });
  const now = await ask({ method: 'POST', path: '/v1/unseal', body });
  if (!now.sealed) return { text: `The CAS at ${formatAddress(address)} is open\n`, json: now };
  const { threshold = 0, given = 0 } = now.methods.find(({ method }) => method === 'shares') ?? {};
  return {
    text: `${given} of ${threshold} shares are there; the CAS is sealed until the rest are\n`,
    json: now,
  };
}
