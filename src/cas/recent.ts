/** What was made of bytes lately, so that it need not be made again from the very same ones. */
export interface Recent<Value> {
  /**
   * @param key whatever stands for the bytes; what was made of others under it is forgotten
   * @param make called where these bytes are new under the key; what it throws is not kept
   */
  get(key: string, bytes: Buffer, make: () => Value): Value;
}

/** @param most bytes to keep what was made of, in all; of more than a sixteenth of them nothing is kept */
export function createRecent<Value>(most: number): Recent<Value> {
  const kept = new Map<string, { bytes: Buffer; value: Value }>();
  let total = 0;
  const forget = (key: string) => {
    total -= kept.get(key)?.bytes.length ?? 0;
    kept.delete(key);
  };
  return {
    get(key, bytes, make) {
      const known = kept.get(key);
      const value = known?.bytes.equals(bytes) ? known.value : make();
      // The one that was used last stands last.
      forget(key);
      if (bytes.length > most / 16) return value;
      kept.set(key, { bytes, value });
      total += bytes.length;
      for (const oldest of kept.keys()) {
        if (total <= most) break;
        forget(oldest);
      }
      return value;
    },
  };
}
