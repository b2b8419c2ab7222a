import * as v from 'valibot';
import type { Cas } from './cas.ts';
import { countStored } from './limits/stored.ts';
import type { Generation } from './store/store.ts';

/** As it is sealed. The names are those of certificates, which were kept first. */
const issuedForm = v.object({
  certificate: v.string(),
  from: v.optional(v.number(), 0),
  renew: v.number(),
  issuer: v.string(),
});

/** What a CAS has issued. */
export interface Issued {
  content: Buffer;
  /** From when it is valid, and when it is to be made anew; milliseconds since 1970. */
  from: number;
  renew: number;
}

/** What is issued for a secret. */
export interface Issue {
  session: string;
  /** Of the version, or 0 for what all versions share. */
  number: number;
  /** Of the secret. */
  name: string;
  /** Digest of what it is made of, hexadecimal: once that is another, it is made anew. */
  madeOf: string;
  /** Whether what was kept is still right, beyond `madeOf`. */
  isRight?(content: Buffer): boolean;
  make(now: number): Promise<Issued>;
}

/** Issues what is not there yet, or is to be made anew; all answers give the same until then. */
export async function issuedOnce(cas: Cas, issue: Issue): Promise<Issued> {
  const { session, number, name, madeOf } = issue;
  const now = cas.clock();
  const placeOf = (generation: number) => `certificate/${session}/${number}/${name}/${generation}`;
  const usable = ({ generation, sealed }: Generation): Issued | undefined => {
    const kept = v.parse(issuedForm, JSON.parse(cas.keyring.open(sealed, placeOf(generation)).toString()));
    const content = Buffer.from(kept.certificate, 'base64');
    // A clock that was ahead may have made one that is not valid yet.
    const isCurrent = now >= kept.from && now < kept.renew;
    if (!isCurrent || kept.issuer !== madeOf || issue.isRight?.(content) === false) return undefined;
    return { content, from: kept.from, renew: kept.renew };
  };

  const stored = await cas.store.issued(session, number, name);
  const present = stored && usable(stored);
  if (present) return present;

  const made = await issue.make(now);
  const form: v.InferOutput<typeof issuedForm> = {
    certificate: made.content.toString('base64'),
    from: made.from,
    renew: made.renew,
    issuer: madeOf,
  };
  const generation = (stored?.generation ?? 0) + 1;
  const sealed = cas.keyring.seal(Buffer.from(JSON.stringify(form)), placeOf(generation));
  countStored(sealed.length);
  // Who was faster may have made it of something else, while that was changing: then each gives its own, this once.
  return usable(await cas.store.keepIssued({ session, number, name, generation, sealed })) ?? made;
}
