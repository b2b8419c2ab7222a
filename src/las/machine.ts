import { generateKeyPairSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import type { MachineEvidence } from '../attestation/hardware-evidence.ts';
import { machineReportData } from '../attestation/report-data.ts';
import { platformOf } from '../attestation/software.ts';
import { causes, failure } from '../errors.ts';
import { oneAtATime } from '../platform/in-turn.ts';
import type { Mode } from '../platform/mode.ts';
import type { LasKey } from './key.ts';
import { isEnrolled, openTpm, type Tpm } from './tpm.ts';
import { TSM_REPORTS, type TsmFiles, type TsmReport, tsmReport } from './tsm.ts';

type WithoutNonce<Evidence> = Evidence extends unknown ? Omit<Evidence, 'nonce'> : never;
/** What hardware says of this machine, over 64 bytes. */
export type Quote = WithoutNonce<MachineEvidence>;

/** Hardware that can say what machine this is. */
export interface Hardware {
  quote(reportData: Buffer): Promise<Quote>;
  /** Whether the machine is still the one of a quote that was taken before. */
  isSame(quote: Quote): Promise<boolean>;
}

export interface HardwareOptions {
  mode: Mode;
  /** Where a TPM's attestation key is kept. */
  directory: string;
  env: NodeJS.ProcessEnv;
  log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  /** Folder of configfs-tsm, and how it is written and read. */
  reports?: string;
  files?: TsmFiles;
}

/** The machine of a LAS, which hardware vouches for together with the LAS's key. */
export interface Machine {
  root: Quote['type'];
  /** Made when the LAS started, and nowhere but in its memory. */
  key: LasKey;
  /**
   * Evidence about the machine and the key.
   * @param nonce of a CAS, which wants it made anew unless it was made over the same one; without, the last one does
   * @param user whose turn it is to be, since a quote may take a second
   * @throws Failure HARDWARE_UNUSABLE or TPM_UNUSABLE
   */
  evidence(nonce: Buffer | undefined, user?: number): Promise<MachineEvidence>;
}

/**
 * Finds out what hardware vouches for this machine, and has it do so once.
 * @returns undefined where software alone vouches
 * @throws Failure HARDWARE_MISSING, HARDWARE_UNUSABLE or TPM_UNUSABLE, with mode `hw`
 */
export async function openMachine(options: HardwareOptions): Promise<Machine | undefined> {
  const { mode, log } = options;
  if (mode === 'sim') return undefined;
  try {
    const hardware = await findHardware(options);
    if (hardware) return await createMachine(hardware);
  } catch (error) {
    if (mode === 'hw') throw error;
    log.warn({ error: causes(error).join(': ') }, 'the hardware gives no Evidence: software alone vouches');
    return undefined;
  }
  if (mode === 'auto') return undefined;
  throw failure('HARDWARE_MISSING', {
    detail: `there is no ${options.reports ?? TSM_REPORTS}, and no TPM was enrolled in ${options.directory}`,
  });
}

async function findHardware(options: HardwareOptions): Promise<Hardware | undefined> {
  const { reports = TSM_REPORTS, files, directory, env } = options;
  if (existsSync(reports))
    return {
      quote: async (data) => quoteOf(await tsmReport(data, reports, files)),
      // What was measured stays for as long as the machine runs.
      isSame: async () => true,
    };
  return isEnrolled(directory) ? tpmHardware(await openTpm({ directory, env })) : undefined;
}

function quoteOf({ provider, outblob, auxblob }: TsmReport): Quote {
  if (provider === 'tdx_guest') return { type: 'tdx', quote: outblob.toString('base64') };
  if (provider === 'sev_guest')
    return {
      type: 'sev-snp',
      report: outblob.toString('base64'),
      certificates: auxblob.toString('base64'),
    };
  throw failure('HARDWARE_UNUSABLE', { what: 'configfs-tsm', detail: `the provider is ${provider}` });
}

function tpmHardware(tpm: Tpm): Hardware {
  const clocks = new WeakMap<Quote, string>();
  const boot = async () => {
    const { resetCount, restartCount } = await tpm.clock();
    return `${resetCount}.${restartCount}`;
  };
  return {
    async quote(data) {
      const before = await boot();
      const { message, signature, pcrs } = await tpm.quote(data);
      const quote: Quote = {
        type: 'tpm',
        message: message.toString('base64'),
        signature: signature.toString('base64'),
        key: tpm.attestationKey.toString('base64'),
        pcrs,
      };
      clocks.set(quote, before);
      return quote;
    },
    isSame: async (quote) => clocks.get(quote) === (await boot()),
  };
}

/** @throws Failure HARDWARE_UNUSABLE or TPM_UNUSABLE */
async function createMachine(hardware: Hardware): Promise<Machine> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const platform = platformOf(publicKey);
  const take = async (nonce: Buffer) => {
    const quote = await hardware.quote(machineReportData(platform, nonce));
    return { nonce, quote };
  };
  let last = await take(Buffer.alloc(0));
  // One after the other; a CAS gives launchers that come at about the same time the same nonce.
  const inTurn = oneAtATime();
  return {
    root: last.quote.type,
    key: { private: privateKey, platform },
    async evidence(nonce, user) {
      const { quote, nonce: over } = await inTurn(async () => {
        const isWanted = nonce === undefined || nonce.equals(last.nonce);
        if (!isWanted || !(await hardware.isSame(last.quote))) last = await take(nonce ?? last.nonce);
        return last;
      }, user);
      return { ...quote, nonce: over.toString('base64') };
    },
  };
}
