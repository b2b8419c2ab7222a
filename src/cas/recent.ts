/** What was made of bytes lately, so that it need not be made again from the very same ones. */
export interface Recent<Value> {
  /**
   * What was made of these bytes, or undefined.
   * @param key whatever stands for the bytes
   */
  find(key: string, bytes: Buffer): Value | undefined;
  /** Keeps what was made of bytes; what was made of others under their key is forgotten. */
  keep(key: string, bytes: Buffer, value: Value): void;
}

/** @param most bytes to keep what was made of, in all; of more than half of them nothing is kept */
export function createRecent<Value>(most: number): Recent<Value> {
  const kept = new Map<string, { bytes: Buffer; value: Value }>();
  let total = 0;
  const forget = (key: string) => {
    total -= kept.get(key)?.bytes.length ?? 0;
    kept.delete(key);
  };
  return {
    find(key, bytes) {
      const known = kept.get(key);
      if (!known?.bytes.equals(bytes)) return undefined;
      // The one that was used last stands last.
      kept.delete(key);
      kept.set(key, known);
      return known.value;
    },
    keep(key, bytes, value) {
      forget(key);
      if (bytes.length > most / 2) return;
      kept.set(key, { bytes, value });
      total += bytes.length;
      for (const oldest of kept.keys()) {
        if (total <= most) break;
        forget(oldest);
      }
    },
  };
}
