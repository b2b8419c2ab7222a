/** Finds many patterns in one pass (Aho and Corasick, 1975), byte by byte. A state is a number; 0 is the first one. */
export interface Automaton {
  next(state: number, byte: number): number;
  /** Bytes of the longest pattern that ends here; 0 where none does. */
  found(state: number): number;
  /** The state to go on from after a find: one that some pattern goes on from. */
  settle(state: number): number;
  /** How many of the last bytes may belong to a pattern that is not at its end yet. */
  depth(state: number): number;
  /**
   * The same where the first `count` bits of one more byte are known, that byte not counted.
   * @returns -1 where no pattern has them next
   */
  reach(state: number, bits: number, count: number): number;
}

/** Takes 21 bytes of memory for each byte of the patterns, and time that grows with their sum. */
export function createAutomaton(patterns: readonly Buffer[]): Automaton {
  const most = patterns.reduce((sum, { length }) => sum + length, 1);
  const label = new Uint8Array(most);
  const child = new Int32Array(most);
  const sibling = new Int32Array(most);
  const depth = new Int32Array(most);
  const longest = new Int32Array(most);
  /** The state of the longest proper end of what has been read that some pattern begins with. */
  const fallback = new Int32Array(most);
  const first = new Int32Array(256);

  const find = (state: number, byte: number): number => {
    let at = state === 0 ? (first[byte] ?? 0) : (child[state] ?? 0);
    while (at !== 0 && label[at] !== byte) at = sibling[at] ?? 0;
    return at;
  };
  const next = (state: number, byte: number): number => {
    let from = state;
    while (from !== 0) {
      const at = find(from, byte);
      if (at !== 0) return at;
      from = fallback[from] ?? 0;
    }
    return first[byte] ?? 0;
  };

  let size = 1;
  for (const pattern of patterns) {
    let state = 0;
    for (const byte of pattern) {
      let at = find(state, byte);
      if (at === 0) {
        at = size++;
        label[at] = byte;
        depth[at] = (depth[state] ?? 0) + 1;
        sibling[at] = child[state] ?? 0;
        child[state] = at;
        if (state === 0) first[byte] = at;
      }
      state = at;
    }
    longest[state] = pattern.length;
  }

  // Shorter ones first, since each state's fallback is found from that of the state before it.
  const order = new Int32Array(size);
  let known = 1;
  for (const state of order)
    for (let at = child[state] ?? 0; at !== 0; at = sibling[at] ?? 0) {
      order[known++] = at;
      if (state !== 0) fallback[at] = next(fallback[state] ?? 0, label[at] ?? 0);
      if (longest[at] === 0) longest[at] = longest[fallback[at] ?? 0] ?? 0;
    }

  return {
    next,
    found: (state) => longest[state] ?? 0,
    settle(state) {
      let at = state;
      while (at !== 0 && child[at] === 0) at = fallback[at] ?? 0;
      return at;
    },
    depth: (state) => depth[state] ?? 0,
    reach(state, bits, count) {
      for (let from = state; ; from = fallback[from] ?? 0) {
        for (let at = child[from] ?? 0; at !== 0; at = sibling[at] ?? 0)
          if ((label[at] ?? 0) >> (8 - count) === bits) return depth[from] ?? 0;
        if (from === 0) return -1;
      }
    },
  };
}
