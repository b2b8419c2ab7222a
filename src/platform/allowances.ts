/** Something that sources use up, and are given anew as time goes by. */
export interface Allowances {
  /** What a source has left. */
  left(source: string): number;
  /** Takes from what a source has left, below zero as well. */
  take(source: string, amount: number): void;
}

/** Sources that are remembered; of those that have long not been here, whoever has used up least is forgotten first. */
const MOST_SOURCES = 16_384;

/**
 * @param most that a source has, at first and after a while
 * @param aSecond what it is given each second
 */
export function createAllowances(most: number, aSecond: number): Allowances {
  /** What sources had left at a time (milliseconds). */
  const allowances = new Map<string, { left: number; at: number }>();
  const leftOf = (source: string) => {
    const before = allowances.get(source);
    if (!before) return most;
    return Math.min(most, before.left + ((performance.now() - before.at) / 1000) * aSecond);
  };
  return {
    left: leftOf,
    take(source, amount) {
      const left = leftOf(source) - amount;
      allowances.delete(source);
      allowances.set(source, { left, at: performance.now() });
      if (allowances.size > MOST_SOURCES) {
        const oldest = [...allowances.entries().take(16)];
        allowances.delete(oldest.reduce((a, b) => (b[1].left > a[1].left ? b : a))[0]);
      }
    },
  };
}
