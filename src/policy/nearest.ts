import leven from 'leven';

/** The known name that somebody who wrote `name` probably meant, if any is near enough. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  if (name.length > 128) return undefined;
  const most = Math.max(1, Math.floor(name.length / 3));
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of known) {
    const distance = leven(name.toLowerCase(), candidate.toLowerCase(), { maxDistance: most + 1 });
    if (distance <= most && distance < (best?.distance ?? Number.POSITIVE_INFINITY))
      best = { candidate, distance };
  }
  return best?.candidate;
}
