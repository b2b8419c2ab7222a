import { createHash } from 'node:crypto';
import { Malformed, type Reader, reader } from '../bytes.ts';
import { algorithms } from './structures.ts';

/**
 * The event log of a boot (TCG PC Client Platform Firmware Profile Specification §10): what was measured into which
 * register, in order. It is believed only as far as it leads to the registers that a TPM has signed. Little-endian.
 */
export interface BootEvent {
  register: number;
  /** EV_…, where it is a known one, else its number. */
  type: string;
  /** SHA-256, hexadecimal. */
  digest: string;
  /** What is readable of what was measured; whoever wrote the log may have written what he likes. */
  description: string;
}

const LARGEST = 4 * 1024 * 1024;
const MOST_EVENTS = 16_384;
const SPECIFICATION = 'Spec ID Event03\0';
const NO_ACTION = 3;

const types: Readonly<Record<number, string>> = {
  0: 'EV_PREBOOT_CERT',
  1: 'EV_POST_CODE',
  3: 'EV_NO_ACTION',
  4: 'EV_SEPARATOR',
  5: 'EV_ACTION',
  6: 'EV_EVENT_TAG',
  7: 'EV_S_CRTM_CONTENTS',
  8: 'EV_S_CRTM_VERSION',
  9: 'EV_CPU_MICROCODE',
  10: 'EV_PLATFORM_CONFIG_FLAGS',
  11: 'EV_TABLE_OF_DEVICES',
  12: 'EV_COMPACT_HASH',
  13: 'EV_IPL',
  14: 'EV_IPL_PARTITION_DATA',
  15: 'EV_NONHOST_CODE',
  16: 'EV_NONHOST_CONFIG',
  17: 'EV_NONHOST_INFO',
  18: 'EV_OMIT_BOOT_DEVICE_EVENTS',
  2147483649: 'EV_EFI_VARIABLE_DRIVER_CONFIG',
  2147483650: 'EV_EFI_VARIABLE_BOOT',
  2147483651: 'EV_EFI_BOOT_SERVICES_APPLICATION',
  2147483652: 'EV_EFI_BOOT_SERVICES_DRIVER',
  2147483653: 'EV_EFI_RUNTIME_SERVICES_DRIVER',
  2147483654: 'EV_EFI_GPT_EVENT',
  2147483655: 'EV_EFI_ACTION',
  2147483656: 'EV_EFI_PLATFORM_FIRMWARE_BLOB',
  2147483657: 'EV_EFI_HANDOFF_TABLES',
  2147483658: 'EV_EFI_PLATFORM_FIRMWARE_BLOB2',
  2147483659: 'EV_EFI_HANDOFF_TABLES2',
  2147483660: 'EV_EFI_VARIABLE_BOOT2',
  2147483664: 'EV_EFI_HCRTM_EVENT',
  2147483872: 'EV_EFI_VARIABLE_AUTHORITY',
  2147483873: 'EV_EFI_SPDM_FIRMWARE_BLOB',
  2147483874: 'EV_EFI_SPDM_FIRMWARE_CONFIG',
};

/**
 * Reads a log and does again what the firmware did: each digest is put behind the register's value, and the hash of both is
 * its next one.
 * @returns the events that were measured, and what each register that is spoken of comes to in the SHA-256 bank
 * @throws Malformed
 */
export function replay(bytes: Buffer): { events: BootEvent[]; registers: Record<string, string> } {
  if (bytes.length > LARGEST) throw new Malformed(`the event log has more than ${LARGEST} bytes`);
  const log = reader(bytes, 'the event log');
  const header = firstEvent(log);
  const sizes = digestSizes(header);
  const events: BootEvent[] = [];
  const registers = new Map<number, Buffer>();
  // Firmware leaves the rest of the table empty.
  while (bytes.subarray(log.offset).some((byte) => byte !== 0)) {
    if (events.length === MOST_EVENTS)
      throw new Malformed(`the event log has more than ${MOST_EVENTS} events`);
    const { register, type, digest, data } = nextEvent(log, sizes);
    if (type === NO_ACTION) {
      if (!isLocality(data)) continue;
      if (registers.has(0)) throw new Malformed('the event log begins register 0 twice');
      registers.set(0, Buffer.concat([Buffer.alloc(31), data.subarray(16)]));
      continue;
    }
    if (register > 23) throw new Malformed(`the event log speaks of register ${register}`);
    events.push({
      register,
      type: types[type] ?? `0x${type.toString(16)}`,
      digest: digest.toString('hex'),
      description: readable(data),
    });
    const before = registers.get(register) ?? Buffer.alloc(32);
    registers.set(register, createHash('sha256').update(before).update(digest).digest());
  }
  return {
    events,
    registers: Object.fromEntries(
      [...registers].map(([register, value]) => [register, value.toString('hex')]),
    ),
  };
}

/** From which locality the TPM was started, which register 0 begins with (§10.4.5.3). */
const LOCALITY = 'StartupLocality\0';
const isLocality = (data: Buffer) =>
  data.length === 17 && data.subarray(0, 16).toString('latin1') === LOCALITY;

/** TCG_PCClientPCREvent: the first event, in the form of TPM 1.2, says how the others are written. */
function firstEvent(log: Reader): Reader {
  if (log.u32le() !== 0 || log.u32le() !== NO_ACTION)
    throw new Malformed('the event log does not begin as one');
  log.zeros(20);
  return log.part(log.u32le(), "the event log's header");
}

/** Bytes of the digests of each algorithm, from TCG_EfiSpecIdEvent. */
function digestSizes(header: Reader): ReadonlyMap<number, number> {
  if (header.bytes(16).toString('latin1') !== SPECIFICATION)
    throw new Malformed('the event log is not in the format of TPM 2.0');
  header.bytes(8);
  const count = header.u32le();
  if (count > 16) throw new Malformed(`the event log has digests of ${count} algorithms`);
  const sizes = new Map<number, number>();
  for (let index = 0; index < count; index++) sizes.set(header.u16le(), header.u16le());
  header.bytes(header.u8());
  header.end();
  if (sizes.get(algorithms.sha256) !== 32) throw new Malformed('the event log has no digests of SHA-256');
  return sizes;
}

/** TCG_PCR_EVENT2 */
function nextEvent(log: Reader, sizes: ReadonlyMap<number, number>) {
  const register = log.u32le();
  const type = log.u32le();
  const count = log.u32le();
  if (count > sizes.size) throw new Malformed(`an event has ${count} digests`);
  let digest: Buffer | undefined;
  for (let index = 0; index < count; index++) {
    const algorithm = log.u16le();
    const size = sizes.get(algorithm);
    if (size === undefined) throw new Malformed(`an event has a digest of the algorithm ${algorithm}`);
    const value = log.bytes(size);
    if (algorithm === algorithms.sha256) digest = value;
  }
  const data = log.bytes(log.u32le());
  if (!digest) throw new Malformed('an event has no digest of SHA-256');
  return { register, type, digest, data };
}

/** Latin and UTF-16 letters that follow each other. */
function readable(data: Buffer): string {
  const text = data.subarray(0, 1024).toString('latin1').replaceAll('\0', '');
  return (text.match(/[ -~]{4,}/g) ?? []).join(' ').slice(0, 200);
}
