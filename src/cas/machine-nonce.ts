import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Keyring } from './keyring.ts';
import type { Store } from './store/store.ts';

/**
 * Nonces by which a CAS knows how old the Evidence about a machine is: the time, and a code over it that only this CAS can
 * make. Nothing is kept of them. Those of about the same time are equal, so that launchers which start all at once share
 * what their LAS has to have made.
 */
export interface MachineNonces {
  /** @param now milliseconds since 1970 */
  issue(now: number): Buffer;
  /** Age in milliseconds, at least; undefined of what this CAS did not give, or where its clock was set back since. */
  age(nonce: Buffer, now: number): number | undefined;
}

const SHARED_FOR = 5_000;
const TIME = 6;
const PLACE = 'state/machine-nonce-key';

/** Those of a CAS, whose key is made once and kept, so that all its processes know each other's. */
export async function openMachineNonces(store: Store, keyring: Keyring): Promise<MachineNonces> {
  const name = 'machine-nonce-key';
  const sealed =
    (await store.readState(name)) ?? (await store.createState(name, keyring.seal(randomBytes(32), PLACE)));
  return createMachineNonces(keyring.open(sealed, PLACE));
}

export function createMachineNonces(key: Buffer): MachineNonces {
  const nonceAt = (time: number) => {
    const bytes = Buffer.alloc(TIME);
    bytes.writeUIntBE(time, 0, TIME);
    return Buffer.concat([bytes, createHmac('sha256', key).update(bytes).digest()]);
  };
  return {
    issue: (now) => nonceAt(now - (now % SHARED_FOR)),
    age(nonce, now) {
      if (nonce.length !== TIME + 32) return undefined;
      const time = nonce.readUIntBE(0, TIME);
      // One from the future is from before the clock was set back.
      return now >= time && timingSafeEqual(nonce, nonceAt(time)) ? now - time : undefined;
    },
  };
}
