import * as v from 'valibot';
import { describeExpected, type ExpectedMachine, type MachineKind } from '../../attestation/machine.ts';
import { explainWeakness } from '../../attestation/weaknesses.ts';
import { formatKeyHash } from '../../policy/key-hash.ts';
import type { ServiceName } from '../../policy/names.ts';
import { formatConfigId } from '../../policy/names.ts';
import { printable } from '../../protocol/refusal.ts';
import { type NetworkOptions, openCas } from '../connect.ts';
import type { Output } from '../output.ts';
import { shellQuote } from '../shell.ts';
import { knownCas } from '../state.ts';
import { readServiceName, servicePath } from './names.ts';

const texts = v.array(v.string());
const expectedMachine = v.object({
  values: v.record(v.string(), texts),
  minimumTcb: v.optional(v.record(v.string(), v.number())),
});
const admission = v.object({
  session: v.string(),
  service: v.string(),
  mode: v.picklist(['hardware', 'none']),
  tolerate: texts,
  /** A CAS of an older version has none. */
  require: v.optional(texts, []),
  ignoreAdvisories: texts,
  variants: v.array(
    v.object({
      machines: v.optional(
        v.partial(v.object({ tdx: expectedMachine, sev_snp: expectedMachine, tpm: expectedMachine })),
      ),
      measurements: v.optional(texts),
      runAs: v.optional(texts),
      signer: v.optional(
        v.object({
          mrsigner: v.string(),
          isvprodid: v.number(),
          isvsvn: v.optional(v.number()),
          isvsvn_min: v.optional(v.number()),
          isvsvn_max: v.optional(v.number()),
        }),
      ),
    }),
  ),
  platforms: texts,
  trustedPlatforms: texts,
  oneTimePassword: v.boolean(),
  accessToken: v.boolean(),
  singleton: v.boolean(),
  /** In milliseconds; a CAS of an older version has none. */
  maxQuoteAge: v.optional(v.number()),
});
type Admission = v.InferOutput<typeof admission>;
type Variant = Admission['variants'][number];

/** `scone session explain SESSION/SERVICE`: says what a launcher must show to be given a service, and how to run it. */
export async function explainService(text: string, options: NetworkOptions): Promise<Output> {
  const name = readServiceName(text);
  const cas = await openCas(options);
  const answer = await cas.call({ method: 'GET', path: `/v1/admission/${servicePath(name)}` }, admission);
  const conditions = [
    ...(answer.mode === 'none'
      ? [['No Evidence is asked for: the attestation mode is none.']]
      : evidence(answer)),
    ...factors(answer),
  ];
  const isOpen = answer.mode === 'none' && !answer.oneTimePassword && !answer.accessToken;
  const lines = [
    `The CAS gives ${formatConfigId(name)} to a launcher if all of this holds:`,
    '',
    ...conditions.flatMap(([sentence = '', ...details], index) => [
      `${index + 1}. ${sentence}`,
      ...details.map((detail) => `     ${detail}`),
    ]),
    ...(isOpen ? ['', 'So whoever reaches the CAS can start it, and is given what it is given.'] : []),
    '',
    'To start it:',
    `  ${commandLine(name, answer, options)}`,
  ];
  return { text: lines.map((line) => `${printable(line)}\n`).join(''), json: answer };
}

/** A sentence, and the lines that belong under it. */
type Condition = string[];

function evidence(answer: Admission): Condition[] {
  const { variants, platforms, tolerate, require, ignoreAdvisories } = answer;
  const conditions = [
    variants.length === 0
      ? ['The launcher is one that the policy admits, and it admits none.']
      : ['The launcher shows Evidence that it is one of these:', ...variants.map(describeVariant)],
    voucher(answer),
  ];
  if (platforms.length > 0) conditions.push(['It runs on one of these platforms:', ...platforms]);
  if (require.length > 0)
    conditions.push(['The LAS has found all of this in its process:', ...require.map(explainProperty)]);
  conditions.push(
    tolerate.length === 0
      ? ['It is not in debug mode, and its platform has no known weakness.']
      : ['Of weaknesses, it and its platform have none but these:', ...tolerate.map(explainWeakness)],
  );
  if (!ignoreAdvisories.includes('*') || !tolerate.includes('debug-mode')) {
    const named = ignoreAdvisories.filter((advisory) => advisory !== '*');
    conditions.push(
      named.length === 0
        ? ['No security advisory applies to its platform.']
        : ['No security advisory applies to its platform but these:', ...named],
    );
  }
  return conditions;
}

/** Who says that it is that launcher. */
function voucher({ variants, trustedPlatforms, maxQuoteAge }: Admission): Condition {
  const machines = variants.flatMap((variant) => Object.entries(variant.machines ?? {}));
  if (machines.length > 0) {
    const minutes = Math.round((maxQuoteAge ?? 0) / 6000) / 10;
    return [
      'A LAS vouches for it whose machine hardware has measured as that variant says:',
      ...machines.flatMap(([kind, expected]) =>
        describeExpected(kind as MachineKind, expected as ExpectedMachine),
      ),
      `(That is asked for anew where it is older than ${minutes} minutes.)`,
    ];
  }
  return trustedPlatforms.length === 0
    ? [
        'It is an enclave of Intel SGX, which vouches for itself: the policy names no machine of a LAS,',
        'and neither the operator of the CAS nor the policy trusts the key of one.',
      ]
    : ['A LAS with one of these keys vouches for it, or it is an enclave of Intel SGX:', ...trustedPlatforms];
}

function factors({ session, service, oneTimePassword, accessToken, singleton }: Admission): Condition[] {
  const conditions: Condition[] = [];
  if (oneTimePassword)
    conditions.push([
      'It gives a fresh one-time password: an @ and six digits after the name of the service.',
      `(scone otp show ${session}/${service} gives the secret to an authenticator app.)`,
    ]);
  if (accessToken) conditions.push(['It knows the service access token, from SCONE_SERVICE_ACCESS_TOKEN.']);
  if (singleton) conditions.push(['Its process was given no configuration of this session before.']);
  return conditions;
}

function describeVariant({ measurements, signer, runAs }: Variant): string {
  const parts = [
    ...(measurements
      ? [`measurement ${measurements.join(' or ')} (SCONE_HASH=1 envcas prints its own)`]
      : []),
    ...(signer
      ? [`signer (MRSIGNER) ${signer.mrsigner}, product ${signer.isvprodid}${describeVersions(signer)}`]
      : []),
    ...(runAs ? [`it runs as ${runAs.join(' or ')}`] : []),
  ];
  return parts.join(', and ');
}

function describeVersions({ isvsvn, isvsvn_min, isvsvn_max }: NonNullable<Variant['signer']>): string {
  const bounds = [
    ...(isvsvn === undefined ? [] : [`exactly ${isvsvn}`]),
    ...(isvsvn_min === undefined ? [] : [`at least ${isvsvn_min}`]),
    ...(isvsvn_max === undefined ? [] : [`at most ${isvsvn_max}`]),
  ];
  return bounds.length === 0 ? '' : `, security version ${bounds.join(' and ')}`;
}

const properties: Record<string, string> = {
  'secure-execution':
    'it runs as an executable that root has installed setgid, so that its user can neither preload code nor trace it',
  'root-owned-code': 'nobody but root can write the files that its code comes from',
};

function explainProperty(name: string): string {
  return Object.hasOwn(properties, name) ? `${name}: ${properties[name]}` : name;
}

/** With the address and the key of the CAS where they are known, so that it can be run on any host. */
function commandLine(name: ServiceName, answer: Admission, options: NetworkOptions): string {
  const cas = options.only_for_testingDisableAttestationVerification
    ? undefined
    : knownCas(process.env, options.cas);
  const variables: [name: string, value: string | undefined][] = [
    ['SCONE_CAS_ADDR', cas?.enclave],
    ['SCONE_CAS_KEY', cas && formatKeyHash(cas.key)],
    ['SCONE_SERVICE_ACCESS_TOKEN', answer.accessToken ? 'TOKEN' : undefined],
    ['SCONE_CONFIG_ID', `${formatConfigId(name)}${answer.oneTimePassword ? '@CODE' : ''}`],
  ];
  const settings = variables.flatMap(([key, value]) =>
    value === undefined ? [] : [`${key}=${shellQuote(value)}`],
  );
  return `${settings.join(' ')} envcas`;
}
