import * as v from 'valibot';
import { Malformed } from '../bytes.ts';
import type { Collateral } from '../collateral.ts';
import { parseCertificates } from '../x509/certificate.ts';
import { parseRevocationList } from '../x509/revocation.ts';

/**
 * What Intel publishes in JSON (Intel SGX and TDX Provisioning Certification Service API, version 4): TCB information of
 * a kind of platform, and identities of quoting enclaves. The text that is signed is kept as it came, and what is used
 * is read from just that.
 */
export interface SignedText {
  text: string;
  /** ECDSA with SHA-256 on P-256, r and s. */
  signature: Buffer;
  /** Milliseconds since 1970. */
  issued: number;
  nextUpdate: number;
}

/** What Intel calls the state of a platform or enclave. */
export const tcbStatuses = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'Revoked',
] as const;

const LARGEST = 256 * 1024;

const time = v.pipe(
  v.string(),
  v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
  v.transform((text) => Date.parse(text)),
  v.number(),
);
const hex = (digits: number) =>
  v.pipe(v.string(), v.regex(new RegExp(`^[0-9A-Fa-f]{${digits}}$`)), v.toLowerCase());
const svn = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65535));
const advisoryIDs = v.optional(
  v.pipe(v.array(v.pipe(v.string(), v.regex(/^INTEL-(SA|DOC)-\d{5}$/))), v.maxLength(256)),
  [],
);
const status = { tcbDate: time, tcbStatus: v.picklist(tcbStatuses), advisoryIDs };

const enclaveLevels = v.pipe(
  v.array(v.object({ tcb: v.object({ isvsvn: svn }), ...status })),
  v.minLength(1),
  v.maxLength(64),
);
const components = v.pipe(
  v.array(v.object({ svn: v.pipe(svn, v.maxValue(255)) })),
  v.length(16),
  v.transform((list) => list.map((each) => each.svn)),
);

const dates = { issueDate: time, nextUpdate: time, tcbEvaluationDataNumber: v.pipe(v.number(), v.integer()) };

const moduleIdentity = { mrsigner: hex(96), attributes: hex(16), attributesMask: hex(16) };
const tcbInfo = v.object({
  id: v.picklist(['SGX', 'TDX']),
  version: v.literal(3),
  ...dates,
  fmspc: hex(12),
  pceId: hex(4),
  tcbType: v.literal(0),
  /** Of TDX: the module of the first kind, and those that have an id. */
  tdxModule: v.optional(v.object(moduleIdentity)),
  tdxModuleIdentities: v.optional(
    v.pipe(
      v.array(
        v.object({
          id: v.pipe(v.string(), v.regex(/^TDX_[0-9A-Fa-f]{2}$/), v.toUpperCase()),
          ...moduleIdentity,
          tcbLevels: enclaveLevels,
        }),
      ),
      v.maxLength(64),
    ),
  ),
  tcbLevels: v.pipe(
    v.array(
      v.object({
        tcb: v.object({
          sgxtcbcomponents: components,
          pcesvn: svn,
          tdxtcbcomponents: v.optional(components),
        }),
        ...status,
      }),
    ),
    v.minLength(1),
    v.maxLength(256),
  ),
});

const enclaveIdentity = v.object({
  id: v.picklist(['QE', 'TD_QE', 'QVE']),
  version: v.literal(2),
  ...dates,
  miscselect: hex(8),
  miscselectMask: hex(8),
  attributes: hex(32),
  attributesMask: hex(32),
  mrsigner: hex(64),
  isvprodid: svn,
  tcbLevels: enclaveLevels,
});

export interface TcbInfo extends SignedText {
  content: v.InferOutput<typeof tcbInfo>;
}
export interface EnclaveIdentity extends SignedText {
  content: v.InferOutput<typeof enclaveIdentity>;
}

const signature = v.pipe(
  hex(128),
  v.transform((text) => Buffer.from(text, 'hex')),
);
const document = v.object({ signature });
const text = v.pipe(v.string(), v.maxLength(LARGEST));

/** All that one quote needs, in one object, as quote verification libraries hand it on. */
const bundle = v.object({
  tcb_info: text,
  tcb_info_signature: signature,
  tcb_info_issuer_chain: text,
  qe_identity: text,
  qe_identity_signature: signature,
  qe_identity_issuer_chain: text,
  pck_crl: text,
  root_ca_crl: text,
  pck_crl_issuer_chain: text,
});

/**
 * Reads TCB information, an identity of an enclave, or a bundle.
 * @returns undefined of any other JSON
 * @throws Malformed
 */
export function parseIntelCollateral(json: string): Partial<Collateral> | undefined {
  if (json.length > LARGEST) throw new Malformed(`collateral has more than ${LARGEST} characters`);
  const value = parseJson(json);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  // Intel served version 2 until 2023; what has no use here is passed over.
  if ('tcbInfo' in value && isOlder(value.tcbInfo)) return {};
  if ('tcbInfo' in value)
    return { tcbInfos: [signedTcbInfo(memberText(json, 'tcbInfo'), check(document, value).signature)] };
  if ('enclaveIdentity' in value) {
    const inner = memberText(json, 'enclaveIdentity');
    return { enclaveIdentities: [signedIdentity(inner, check(document, value).signature)] };
  }
  if (!('tcb_info' in value)) return undefined;
  const all = check(bundle, value);
  const chains = [all.tcb_info_issuer_chain, all.qe_identity_issuer_chain, all.pck_crl_issuer_chain];
  return {
    certificates: chains.flatMap(parseCertificates),
    revocationLists: [all.root_ca_crl, all.pck_crl].map(parseHexList),
    tcbInfos: [signedTcbInfo(all.tcb_info, all.tcb_info_signature)],
    enclaveIdentities: [signedIdentity(all.qe_identity, all.qe_identity_signature)],
  };
}

/** @throws Malformed */
export function signedTcbInfo(inner: string, signature: Buffer): TcbInfo {
  return signedText(tcbInfo, inner, signature);
}

/** @throws Malformed */
export function signedIdentity(inner: string, signature: Buffer): EnclaveIdentity {
  return signedText(enclaveIdentity, inner, signature);
}

function signedText<Schema extends v.GenericSchema<unknown, { issueDate: number; nextUpdate: number }>>(
  schema: Schema,
  inner: string,
  signature: Buffer,
) {
  const content: v.InferOutput<Schema> = check(schema, parseJson(inner));
  return { text: inner, signature, content, issued: content.issueDate, nextUpdate: content.nextUpdate };
}

function isOlder(inner: unknown): boolean {
  return typeof inner === 'object' && inner !== null && 'version' in inner && inner.version === 2;
}

function parseHexList(written: string) {
  if (!/^([0-9A-Fa-f]{2})+$/.test(written)) throw new Malformed('a revocation list is not in hexadecimal');
  return parseRevocationList(Buffer.from(written, 'hex'));
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new Malformed('collateral is no JSON', { cause: error });
  }
}

function check<Schema extends v.GenericSchema>(schema: Schema, value: unknown): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, value, { abortEarly: true });
  if (parsed.success) return parsed.output;
  const place = v.getDotPath(parsed.issues[0]) ?? 'the top';
  throw new Malformed(`Intel's collateral has something unexpected at ${place}`);
}

/**
 * The text of a member that is an object, as it stands in the JSON: a signature is over that, not over what it means. Of
 * members with the same name it is the first; only what is in this text counts afterwards.
 */
function memberText(json: string, name: string): string {
  const key = JSON.stringify(name);
  let depth = 0;
  let from = -1;
  for (let at = 0; at < json.length; at++) {
    const character = json[at];
    if (character === '"') {
      const end = endOfString(json, at);
      const isKey = depth === 1 && json.slice(at, end) === key && /^\s*:/.test(json.slice(end, end + 64));
      if (isKey) from = json.indexOf(':', end) + 1;
      at = end - 1;
    } else if (character === '{' || character === '[') depth++;
    else if (character === '}' || character === ']') {
      depth--;
      if (depth === 1 && from >= 0) return json.slice(from, at + 1).trim();
    }
  }
  throw new Malformed(`there is no object ${name}`);
}

function endOfString(json: string, from: number): number {
  for (let at = from + 1; at < json.length; at++)
    if (json[at] === '\\') at++;
    else if (json[at] === '"') return at + 1;
  throw new Malformed('a text does not end');
}
