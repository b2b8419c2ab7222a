import { createPublicKey, X509Certificate } from 'node:crypto';
import { failure } from '../../errors.ts';
import { parseKeyHash, publicKeyDigest } from '../../policy/key-hash.ts';
import {
  type KeyHolder,
  namedCreator,
  parseSession,
  refersToCreator,
  type Session,
  sessionHash,
} from '../../policy/session.ts';
import { type NetworkOptions, openCas } from '../connect.ts';
import type { Output } from '../output.ts';
import { warn } from '../report.ts';
import { openIdentity, openSigningKey } from '../state.ts';
import { changedSections } from './differences.ts';
import { loadSession, type SessionFile, type TemplateOptions } from './file.ts';
import { fetchSession, type StoredSession } from './read.ts';

/** `scone session calculate-hash FILE`: prints the hash that a CAS would give it. */
export async function calculateHash(
  file: string,
  options: TemplateOptions & { withSelfAsCreator?: 'tls' | 'signer'; identity?: string },
): Promise<Output> {
  const loaded = await loadSession(file, options);
  const hash = sessionHash(loaded.session, await creatorOf(loaded, options));
  return { text: `${hash}\n`, json: { hash } };
}

/** @throws Failure CREATOR_UNKNOWN where it matters who that is, and nothing says so */
async function creatorOf(
  { session, signed }: SessionFile,
  options: { withSelfAsCreator?: 'tls' | 'signer'; identity?: string },
): Promise<KeyHolder | null> {
  const named = creatorIn(session);
  if (named) return named;
  if (options.withSelfAsCreator === 'tls') {
    const { certificate } = await openIdentity(process.env, options.identity);
    return { certificate: publicKeyDigest(new X509Certificate(certificate).publicKey).toString('hex') };
  }
  if (options.withSelfAsCreator === 'signer')
    return { signer: publicKeyDigest(createPublicKey(openSigningKey(process.env))).toString('hex') };
  if (refersToCreator(session)) throw failure('CREATOR_UNKNOWN');
  if (!signed)
    warn(
      'this is the hash of a signed session without a creator; uploaded with a certificate, it has its holder as creator: --with-self-as-creator tls',
    );
  return null;
}

/** @throws Failure CREATOR_UNKNOWN where the session names somebody who cannot be known */
function creatorIn(session: Session): KeyHolder | undefined {
  const named = namedCreator(session);
  if (!named && session.creator !== undefined) throw failure('CREATOR_UNKNOWN');
  return named;
}

/**
 * `scone session verify FILE`: makes sure that the newest version on the CAS is the session in the file, and prints
 * its hash. Who created it the CAS says, and where the file names no predecessor, it may have any.
 */
export async function verifySession(
  file: string,
  options: TemplateOptions & NetworkOptions,
): Promise<Output> {
  const { session } = await loadSession(file, options);
  const present = await fetchSession(await openCas(options), session.name);
  const stored = parseSession(present.session).session;
  const expected = session.predecessor === null ? { ...session, predecessor: stored.predecessor } : session;
  const creator = creatorIn(session) ?? creatorOnCas(present);
  const hash = sessionHash(expected, creator);
  if (hash === present.hash) return { text: `${hash}\n`, json: { hash } };
  const sections = changedSections(stored, expected);
  if (expected.predecessor !== stored.predecessor) sections.push('predecessor');
  throw failure('SESSION_DIFFERS', {
    session: session.name,
    hash: present.hash,
    sections: sections.length > 0 ? sections.join(', ') : 'its creator, or in how the hash is made',
  });
}

function creatorOnCas({ creator }: StoredSession): KeyHolder | null {
  if (creator === null) return null;
  const digest = (keyHash: string) => parseKeyHash(keyHash, 'the creator').toString('hex');
  return 'signer' in creator
    ? { signer: digest(creator.signer) }
    : { certificate: digest(creator.certificate) };
}
