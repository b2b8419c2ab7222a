import { failure } from '../../errors.ts';
import { invalidEvidence } from '../bytes.ts';
import type { EnclaveIdentity, TcbInfo, tcbStatuses } from './collateral.ts';
import type { PckExtension } from './pck.ts';
import type { DomainReport } from './quote.ts';

/** What Intel's collateral says of the versions in a quote (Intel SGX and TDX DCAP, quote verification library). */
export type LevelStatus = (typeof tcbStatuses)[number];
export type Status =
  | Exclude<LevelStatus, 'Revoked'>
  | 'TDRelaunchAdvised'
  | 'TDRelaunchAdvisedConfigurationNeeded';

/** The level that something is at. */
export interface Level {
  status: Exclude<LevelStatus, 'Revoked'>;
  /** Since when this level is the state of things, ISO 8601. */
  date: string;
  advisories: readonly string[];
}

/** What each status asks of whoever relies on it, in the words of `tolerate`. */
export const categories: Readonly<Record<Status, readonly string[]>> = {
  UpToDate: [],
  SWHardeningNeeded: ['software-hardening-needed'],
  ConfigurationNeeded: ['insecure-configuration'],
  ConfigurationAndSWHardeningNeeded: ['insecure-configuration', 'software-hardening-needed'],
  OutOfDate: ['outdated-tcb'],
  OutOfDateConfigurationNeeded: ['outdated-tcb', 'insecure-configuration'],
  TDRelaunchAdvised: ['outdated-tcb'],
  TDRelaunchAdvisedConfigurationNeeded: ['outdated-tcb', 'insecure-configuration'],
};

interface WrittenStatus {
  tcbStatus: LevelStatus;
  tcbDate: number;
  advisoryIDs: string[];
}

/** @throws Failure TCB_UNACCEPTABLE where there is no level, or it is revoked */
function levelOf(part: string, written: WrittenStatus | undefined): Level {
  if (!written)
    throw failure('TCB_UNACCEPTABLE', { part, detail: 'its versions are below any that Intel knows' });
  const { tcbStatus, tcbDate, advisoryIDs } = written;
  if (tcbStatus === 'Revoked')
    throw failure('TCB_UNACCEPTABLE', { part, detail: 'Intel has revoked its versions' });
  return { status: tcbStatus, date: new Date(tcbDate).toISOString(), advisories: advisoryIDs };
}

const reaches = (actual: readonly number[], least: readonly number[], from = 0) =>
  least.every((svn, index) => index < from || (actual[index] ?? -1) >= svn);

/**
 * The level of the platform: the first that it reaches in every component. Under a TDX module with an identity of its
 * own, the first two of TDX are that module's version, which counts there.
 */
export function platformLevel(
  { tcbLevels }: TcbInfo['content'],
  pck: PckExtension,
  domain: DomainReport | undefined,
): Level {
  const tdx = domain && [...Buffer.from(domain.teeTcbSvn, 'hex')];
  const from = (tdx?.[1] ?? 0) > 0 ? 2 : 0;
  const level = tcbLevels.find(
    ({ tcb }) =>
      reaches(pck.components, tcb.sgxtcbcomponents) &&
      pck.pceSvn >= tcb.pcesvn &&
      (!tdx || (tcb.tdxtcbcomponents !== undefined && reaches(tdx, tcb.tdxtcbcomponents, from))),
  );
  return levelOf('platform', level);
}

/** The module that runs trust domains. The first kind has no level of its own: components of the platform stand for it. */
export function moduleLevel(
  content: TcbInfo['content'],
  domain: DomainReport,
): (Level & { id: string }) | undefined {
  const [svn = 0, version = 0] = Buffer.from(domain.teeTcbSvn, 'hex');
  const { id, mrsigner, attributes, attributesMask, tcbLevels } = moduleIdentity(content, version);
  if (domain.mrsignerseam !== mrsigner || !isMasked(domain.seamattributes, attributesMask, attributes))
    throw invalidEvidence(`the TDX module is not the one that Intel knows as ${id}`);
  return tcbLevels && { id, ...levelOf(MODULE, enclaveLevel(tcbLevels, svn)) };
}

const MODULE = 'TDX module';

function moduleIdentity({ tdxModule, tdxModuleIdentities = [] }: TcbInfo['content'], version: number) {
  const id = `TDX_${version.toString(16).toUpperCase().padStart(2, '0')}`;
  const first = tdxModule && { ...tdxModule, id, tcbLevels: undefined };
  const identity = version === 0 ? first : tdxModuleIdentities.find((each) => each.id === id);
  if (!identity)
    throw failure('TCB_UNACCEPTABLE', { part: MODULE, detail: `Intel knows none with the id ${id}` });
  return identity;
}

/** The quoting enclave, which must be the one that Intel describes. */
export function quotingEnclaveLevel({ tcbLevels }: EnclaveIdentity['content'], isvsvn: number): Level {
  return levelOf('quoting enclave', enclaveLevel(tcbLevels, isvsvn));
}

function enclaveLevel(levels: EnclaveIdentity['content']['tcbLevels'], isvsvn: number) {
  return levels.toSorted((a, b) => b.tcb.isvsvn - a.tcb.isvsvn).find(({ tcb }) => isvsvn >= tcb.isvsvn);
}

/** Whether what the mask selects is as expected; all of the same length, in hexadecimal. */
export function isMasked(actual: string, mask: string, expected: string): boolean {
  const bits = Buffer.from(mask, 'hex');
  const masked = Buffer.from(actual, 'hex').map((byte, index) => byte & (bits[index] ?? 0));
  return Buffer.from(masked).toString('hex') === expected;
}

/**
 * The status of all parts together: what is wrong with any of them is wrong with the whole.
 * @param levels of platform, quoting enclave and module
 */
export function converge(levels: readonly Level[]): Status {
  const all = new Set(levels.flatMap(({ status }) => categories[status]));
  const isConfigurationNeeded = all.has('insecure-configuration');
  if (all.has('outdated-tcb')) return isConfigurationNeeded ? 'OutOfDateConfigurationNeeded' : 'OutOfDate';
  if (all.has('software-hardening-needed'))
    return isConfigurationNeeded ? 'ConfigurationAndSWHardeningNeeded' : 'SWHardeningNeeded';
  return isConfigurationNeeded ? 'ConfigurationNeeded' : 'UpToDate';
}

/**
 * The status where a module that was out of date was replaced by the newest one while the domain ran, so that starting
 * the domain anew is all that is missing.
 * @returns undefined where it was not, or a report of 1.0 does not tell
 */
export function relaunchStatus(
  content: TcbInfo['content'],
  pck: PckExtension,
  domain: DomainReport,
  levels: { platform: Level; qe: Level; module?: Level | undefined },
): Status | undefined {
  const { platform, qe, module } = levels;
  if (domain.teeTcbSvn2 === undefined || !module || !asks('outdated-tcb', module)) return undefined;
  // Without the components of TDX, which are what is replaced.
  const processor = platformLevel(content, pck, undefined);
  if (asks('outdated-tcb', processor, qe)) return undefined;
  const [svn = 0, version = 0, loadedUnder = 0] = Buffer.from(domain.teeTcbSvn2, 'hex');
  const [first = 0, , third = 0] = content.tcbLevels[0]?.tcb.tdxtcbcomponents ?? [];
  const newest = moduleIdentity(content, version).tcbLevels?.map(({ tcb }) => tcb.isvsvn) ?? [first];
  if (svn < Math.max(...newest) || loadedUnder < third) return undefined;
  return asks('insecure-configuration', processor, platform, qe, module)
    ? 'TDRelaunchAdvisedConfigurationNeeded'
    : 'TDRelaunchAdvised';
}

const asks = (category: string, ...levels: Level[]) =>
  levels.some(({ status }) => categories[status].includes(category));
