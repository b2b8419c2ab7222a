import { formatTcb, type SnpVerdict, verifySnpReport } from '../../attestation/amd/verify.ts';
import { advisoryOf } from '../../attestation/appraise.ts';
import { verifyAzureReport } from '../../attestation/azure.ts';
import type { Collateral } from '../../attestation/collateral.ts';
import { type HardwareClaims, intelClaims, snpClaims } from '../../attestation/hardware.ts';
import type { Level } from '../../attestation/intel/tcb.ts';
import { type IntelVerdict, verifyIntelQuote } from '../../attestation/intel/verify.ts';
import { describeMachine } from '../../attestation/machine.ts';
import { type TpmVerdict, verifyTpmQuote } from '../../attestation/tpm/verify.ts';
import { explainWeakness } from '../../attestation/weaknesses.ts';
import { formatTime } from '../../attestation/x509/chain.ts';
import { readInput } from '../input.ts';
import type { Output } from '../output.ts';
import { readCollateral } from './collateral.ts';
import { fields } from './fields.ts';
import { type EvidenceKind, kindOf, LARGEST } from './kind.ts';
import { parseTpmBundle, readTpmQuote, type TpmFiles } from './tpm.ts';

export interface VerifyOptions extends TpmFiles {
  collateral?: string[];
  /** Milliseconds since 1970. */
  at?: number;
  quote?: string;
}

/** `scone evidence verify FILE`: whether Evidence is genuine, and how good the platform is that it comes from. */
export function verifyEvidenceFile(file: string, options: VerifyOptions): Output {
  const bytes = readInput(file, LARGEST);
  const { at = Date.now() } = options;
  const kind = kindOf(bytes, file);
  const collateral = readCollateral(options.collateral ?? []);
  const verified = verifiers[kind]({ file, bytes, at, collateral, options });
  return { text: format(verified, at), json: { kind, at: formatTime(at), ...json(verified) } };
}

/** What is wanted of every kind of Evidence. */
interface Verified {
  /** In a word. */
  verdict: string;
  /** What the verdict is made of, and what else is to be known, by what it is about. */
  parts: Readonly<Record<string, string>>;
  /** What an appraisal would look at. */
  claims: Partial<HardwareClaims>;
  /** Milliseconds since 1970. */
  validUntil?: number;
  /** All that it says. */
  details: object;
}

interface Input {
  file: string;
  bytes: Buffer;
  at: number;
  collateral: Collateral;
  options: VerifyOptions;
}

const verifiers: Record<EvidenceKind, (input: Input) => Verified> = {
  intel: ({ bytes, collateral, at }) => ofIntel(verifyIntelQuote(bytes, collateral, at)),
  'sev-snp': ({ bytes, collateral, at }) => ofSnp(verifySnpReport(bytes, collateral, at)),
  azure: verifyAzure,
  tpm: ({ bytes, options }) => ofTpm(verifyTpmQuote(readTpmQuote(bytes, options))),
  'tpm-bundle': ({ bytes, file }) => ofTpm(verifyTpmQuote(parseTpmBundle(bytes, file))),
};

function verifyAzure({ bytes, collateral, at, options }: Input): Verified {
  const quote = options.quote === undefined ? {} : { quote: readInput(options.quote, LARGEST) };
  const { hardware, attestationKey } = verifyAzureReport(bytes, collateral, at, quote);
  const verified = hardware.root === 'sev-snp' ? ofSnp(hardware) : ofIntel(hardware);
  const key = attestationKey.export({ type: 'spki', format: 'der' }).toString('base64');
  return { ...verified, details: { tpmAttestationKey: key, ...verified.details } };
}

function ofIntel(verdict: IntelVerdict): Verified {
  const { root, status, platform, module, qe, validUntil } = verdict;
  return {
    verdict: status,
    parts: {
      'Platform level': describeLevel(platform),
      ...(module && { [`Module ${module.id} level`]: describeLevel(module) }),
      'Quoting enclave level': describeLevel(qe),
    },
    claims: intelClaims(verdict, root),
    validUntil,
    details: verdict,
  };
}

function describeLevel({ status, date, advisories }: Level): string {
  return [`${status} since ${date.slice(0, 10)}`, ...advisories].join(', ');
}

function ofSnp(verdict: SnpVerdict): Verified {
  const { product, signingKey, cspId, reportedTcb, validUntil } = verdict;
  return {
    verdict: 'genuine',
    parts: {
      Firmware: `${product}, ${formatTcb(reportedTcb)}; what is recent enough a policy says by minimum_tcb`,
      'Signed by': signingKey === 'VCEK' ? 'the own key of its chip (VCEK)' : `the key of ${cspId} (VLEK)`,
    },
    claims: snpClaims(verdict),
    validUntil,
    details: verdict,
  };
}

function ofTpm(verdict: TpmVerdict): Verified {
  const { keyName, pcrs, events } = verdict;
  return {
    verdict: 'signed by the given key',
    parts: {
      Key: `${keyName === undefined ? 'what else it may sign is not known' : 'it signs only what its TPM says'}; that it is in a TPM, its enrolment at a CAS tells`,
      Registers: pcrs ? 'those that were given are those that were signed' : 'none were given',
      ...(events && { 'Event log': `its ${events.length} events lead to the registers` }),
    },
    claims: {},
    details: verdict,
  };
}

function format(verified: Verified, at: number): string {
  const { verdict, parts, claims, validUntil, details } = verified;
  const { debug = false, weaknesses = [], unchecked, machine, platform } = claims;
  const { tolerate, ignore_advisories } = entries(verified);
  const list = (name: string, values: readonly string[]) =>
    values.length > 0 ? { [`In a policy, ${name}`]: `[${values.join(', ')}]` } : {};
  const lines = {
    Verdict: verdict,
    ...parts,
    ...(debug && { Debug: 'YES: whoever administers the host can look into it, and change it' }),
    ...(weaknesses.length > 0 && { Weak: weaknesses.map(explainWeakness).join('; ') }),
    ...list('tolerate', tolerate),
    ...list('ignore_advisories', ignore_advisories),
    ...(machine && { 'In a policy, the machine': describeMachine(machine) }),
    ...(platform !== undefined && {
      Platform: platform,
      Revocation:
        unchecked === undefined
          ? 'checked'
          : `NOT CHECKED: ${unchecked} was not given, and no CAS admits it without`,
    }),
    'As of': formatTime(at),
    ...(validUntil !== undefined && { 'Collateral is good until': formatTime(validUntil) }),
  };
  return `${fields(lines)}\n${fields(details)}`;
}

/** Entries of `security.attestation` without which a policy refuses it. */
function entries({ claims: { debug = false, weaknesses = [], advisories = [] } }: Verified) {
  const tolerate = [...(debug ? ['debug-mode'] : []), ...weaknesses];
  const implied = tolerate.flatMap((weakness) => advisoryOf[weakness] ?? []);
  return { tolerate, ignore_advisories: advisories.filter((advisory) => !implied.includes(advisory)) };
}

function json(verified: Verified): object {
  const { verdict, claims, details, validUntil } = verified;
  return {
    verified: true,
    verdict,
    policy: entries(verified),
    ...(claims.platform !== undefined && {
      platform: claims.platform,
      isRevocationChecked: claims.unchecked === undefined,
    }),
    ...(validUntil !== undefined && { validUntil: formatTime(validUntil) }),
    details,
  };
}
