import { randomBytes } from 'node:crypto';
import promises, { constants } from 'node:fs/promises';
import { join } from 'node:path';
import { failure, reason } from '../errors.ts';

/**
 * Evidence of a confidential virtual machine through the kernel's configfs-tsm (Documentation/ABI/testing/configfs-tsm,
 * Linux 6.7 and newer): a folder for each request, whose files are written and read.
 */
export type TsmFiles = Pick<typeof promises, 'mkdir' | 'open' | 'readFile' | 'rmdir'>;

export const TSM_REPORTS = '/sys/kernel/config/tsm/report';

export interface TsmReport {
  /** Name of the kernel's driver: `tdx_guest`, `sev_guest`. */
  provider: string;
  /** A TDX quote, or an SEV-SNP report. */
  outblob: Buffer;
  /** SEV-SNP: certificates that the host gave along (GHCB certificate table), often none. */
  auxblob: Buffer;
}

const ATTEMPTS = 3;

/**
 * Has the hardware make a report.
 * @param data 64 bytes that it is made over
 * @throws Failure HARDWARE_UNUSABLE
 */
export async function tsmReport(
  data: Buffer,
  reports = TSM_REPORTS,
  files: TsmFiles = promises,
): Promise<TsmReport> {
  for (let attempt = 1; ; attempt++)
    try {
      return await requestReport(data, join(reports, `envcas-${randomBytes(8).toString('hex')}`), files);
    } catch (error) {
      // Something else has changed the request meanwhile, or the hardware was busy.
      const isPassing =
        error instanceof Error && 'code' in error && /^(EWOULDBLOCK|EAGAIN|EBUSY)$/.test(String(error.code));
      if (!isPassing || attempt === ATTEMPTS)
        throw failure('HARDWARE_UNUSABLE', { what: reports, detail: reason(error) }, error);
    }
}

async function requestReport(data: Buffer, folder: string, files: TsmFiles): Promise<TsmReport> {
  await files.mkdir(folder);
  try {
    const text = async (name: string) => (await files.readFile(join(folder, name))).toString('utf8').trim();
    const before = Number(await text('generation'));
    const provider = await text('provider');
    let writes = 1;
    await writeOnce(join(folder, 'inblob'), data, files);
    // A guest under a paravisor may ask for its own level, or one below.
    const level = await text('privlevel_floor').catch(() => '0');
    if (level !== '0') {
      await writeOnce(join(folder, 'privlevel'), Buffer.from(level), files);
      writes++;
    }
    const outblob = await files.readFile(join(folder, 'outblob'));
    const auxblob = await files.readFile(join(folder, 'auxblob')).catch(() => Buffer.alloc(0));
    // Older kernels lose the error of a write; only the counter tells that just this request was taken.
    const generation = Number(await text('generation'));
    if (generation !== before + writes) throw new Error(`generation ${generation} after ${before}`);
    return { provider, outblob, auxblob };
  } finally {
    await files.rmdir(folder).catch(() => {});
  }
}

/** One write(2), by a descriptor that can do nothing else: the kernel takes what it is given when that is closed. */
async function writeOnce(path: string, data: Buffer, files: TsmFiles): Promise<void> {
  const file = await files.open(path, constants.O_WRONLY);
  try {
    const { bytesWritten } = await file.write(data);
    if (bytesWritten !== data.length) throw new Error('a request was taken in part only');
  } finally {
    await file.close();
  }
}
