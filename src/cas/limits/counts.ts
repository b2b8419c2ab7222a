/** Counts by source. One that has none is forgotten, so that strangers fill no memory. */
export interface Counts {
  of(source: string): number;
  add(source: string, more: number): void;
}

export function createCounts(): Counts {
  const counts = new Map<string, number>();
  const of = (source: string) => counts.get(source) ?? 0;
  return {
    of,
    add(source, more) {
      const now = of(source) + more;
      if (now > 0) counts.set(source, now);
      else counts.delete(source);
    },
  };
}
