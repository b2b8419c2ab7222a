import { formatTcb, type SnpVerdict, verifySnpReport } from '../../attestation/amd/verify.ts';
import { advisoryOf } from '../../attestation/appraise.ts';
import { verifyAzureReport } from '../../attestation/azure.ts';
import type { Collateral } from '../../attestation/collateral.ts';
import type { Level } from '../../attestation/intel/tcb.ts';
import { verifyIntelQuote } from '../../attestation/intel/verify.ts';
import { explainWeakness } from '../../attestation/weaknesses.ts';
import { formatTime } from '../../attestation/x509/chain.ts';
import { failure } from '../../errors.ts';
import { printable } from '../../protocol/refusal.ts';
import { readInput } from '../input.ts';
import type { Output } from '../output.ts';
import { readCollateral } from './collateral.ts';
import { fields } from './fields.ts';
import { type EvidenceKind, kindOf, LARGEST } from './kind.ts';

export interface VerifyOptions {
  collateral?: string[];
  at?: string;
}

/** `scone evidence verify FILE`: whether Evidence is genuine, and how good the platform is that it comes from. */
export function verifyEvidenceFile(file: string, options: VerifyOptions): Output {
  const bytes = readInput(file, LARGEST);
  const at = options.at === undefined ? Date.now() : readTime(options.at);
  const kind = kindOf(bytes, file);
  const verified = verifiers[kind]({
    bytes,
    at,
    collateral: readCollateral(options.collateral ?? []),
    options,
  });
  return { text: format(verified, at), json: { kind, at: formatTime(at), ...json(verified) } };
}

/** What is wanted of every kind of Evidence. */
interface Verified {
  /** In a word. */
  verdict: string;
  /** What the verdict is made of, and what else is to be known, by what it is about. */
  parts: Readonly<Record<string, string>>;
  debug: boolean;
  /** In the words of `tolerate`. */
  weaknesses: readonly string[];
  advisories: readonly string[];
  /** Whose revocation lists nobody has looked at. */
  unchecked?: string;
  /** Milliseconds since 1970. */
  validUntil?: number;
  /** All that it says. */
  details: object;
}

interface Input {
  bytes: Buffer;
  at: number;
  collateral: Collateral;
}

const verifiers: Record<EvidenceKind, (input: Input) => Verified> = {
  intel: verifyIntel,
  'sev-snp': ({ bytes, collateral, at }) => ofSnp(verifySnpReport(bytes, collateral, at)),
  azure({ bytes, collateral, at }) {
    const { hardware, attestationKey } = verifyAzureReport(bytes, collateral, at);
    const verified = ofSnp(hardware);
    const key = attestationKey.export({ type: 'spki', format: 'der' }).toString('base64');
    return { ...verified, details: { tpmAttestationKey: key, ...verified.details } };
  },
};

function verifyIntel({ bytes, collateral, at }: Input): Verified {
  const verdict = verifyIntelQuote(bytes, collateral, at);
  const { status, platform, module, qe, debug, weaknesses, advisories, validUntil } = verdict;
  return {
    verdict: status,
    parts: {
      Platform: describeLevel(platform),
      ...(module && { [`Module ${module.id}`]: describeLevel(module) }),
      'Quoting enclave': describeLevel(qe),
    },
    debug,
    weaknesses,
    advisories,
    validUntil,
    details: verdict,
  };
}

function describeLevel({ status, date, advisories }: Level): string {
  return [`${status} since ${date.slice(0, 10)}`, ...advisories].join(', ');
}

function ofSnp(verdict: SnpVerdict): Verified {
  const { product, signingKey, reportedTcb, debug, weaknesses, isRevocationChecked, validUntil } = verdict;
  return {
    verdict: 'genuine; AMD says of no version that it is out of date, so a policy does by minimum_tcb',
    parts: { Platform: `${product}, ${formatTcb(reportedTcb)}, signed by its ${signingKey}` },
    debug,
    weaknesses,
    advisories: [],
    ...(!isRevocationChecked && { unchecked: `ARK-${product}` }),
    validUntil,
    details: verdict,
  };
}

function format(verified: Verified, at: number): string {
  const { verdict, parts, debug, unchecked, validUntil, weaknesses, details } = verified;
  const lines = [
    ['Verdict', verdict],
    ...Object.entries(parts),
    ...(debug ? [['Debug', 'YES: whoever administers the host can look into it, and change it']] : []),
    ...weaknesses.map((weakness) => ['Weakness', explainWeakness(weakness)]),
    ['To admit it, a policy says', admission(verified) || 'nothing special'],
    [
      'Revocation',
      unchecked === undefined
        ? 'checked'
        : `NOT CHECKED: there is no list of ${unchecked}; a CAS refuses it so`,
    ],
    ['As of', formatTime(at)],
    ...(validUntil === undefined ? [] : [['Collateral is good until', formatTime(validUntil)]]),
  ];
  const head = lines.map(([name = '', value = '']) => `${name}: ${printable(value)}\n`).join('');
  return `${head}\n${fields(details)}`;
}

/** Entries of `security.attestation`. */
function admission(verified: Verified): string {
  const { tolerate, ignore_advisories } = entries(verified);
  return [
    ...(tolerate.length > 0 ? [`tolerate: [${tolerate.join(', ')}]`] : []),
    ...(ignore_advisories.length > 0 ? [`ignore_advisories: [${ignore_advisories.join(', ')}]`] : []),
  ].join(', ');
}

function entries({ debug, weaknesses, advisories }: Verified) {
  const tolerate = [...(debug ? ['debug-mode'] : []), ...weaknesses];
  const implied = tolerate.flatMap((weakness) => advisoryOf[weakness] ?? []);
  return { tolerate, ignore_advisories: advisories.filter((advisory) => !implied.includes(advisory)) };
}

function json(verified: Verified): object {
  const { verdict, details, unchecked, validUntil } = verified;
  return {
    verified: true,
    verdict,
    policy: entries(verified),
    isRevocationChecked: unchecked === undefined,
    ...(validUntil !== undefined && { validUntil: formatTime(validUntil) }),
    details,
  };
}

/** ISO 8601 in UTC: a date, or a date and time. @throws Failure USAGE */
function readTime(text: string): number {
  const time = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z)?$/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(time)) return time;
  throw failure('USAGE', {
    detail: `--at takes a time such as 2026-04-01T00:00:00Z: ${JSON.stringify(text)}`,
  });
}
