import { createPublicKey, type KeyObject } from 'node:crypto';
import { failure } from '../../errors.ts';
import { refersToCreator, type Session } from '../../policy/session.ts';
import {
  addSignature,
  messageToSign,
  type SignedSession,
  signerDigest,
  signSession,
} from '../../policy/signed-session.ts';
import { readPublicKey } from '../../quick-key.ts';
import { parsePublicKey } from '../../secrets/private-key.ts';
import { readInput } from '../input.ts';
import type { Output } from '../output.ts';
import { openSigningKey } from '../state.ts';
import { changed, loadSession, type SessionFile, type TemplateOptions } from './file.ts';

/** Bytes of a public key in PEM with text around it, and of a signature. */
const LARGEST = 65_536;

type How = 'sign-with-cli-identity' | 'generate-message-to-be-signed' | 'add-signature';

/** `scone session sign FILE …`: prints a signed session, or what is to be signed for one. */
export async function signSessionFile(
  path: string,
  how: How,
  signerPath: string | undefined,
  signature: string | undefined,
  options: TemplateOptions,
): Promise<Output> {
  const usage = (detail: string) => failure('USAGE', { detail });
  if (how === 'sign-with-cli-identity' && signerPath !== undefined)
    throw usage('sign-with-cli-identity takes no signer: the key is the one of this user');
  if (how === 'generate-message-to-be-signed' && signature !== undefined)
    throw usage('a signature is for add-signature');
  if (how === 'add-signature' && signerPath === undefined)
    throw usage('add-signature takes a file with the public key of the signer');
  if (
    [path, signerPath, how === 'add-signature' && !signature ? '-' : ''].filter((it) => it === '-').length > 1
  )
    throw usage('only one of session, signer and signature can come from standard input');

  const file = await loadSession(path, options);
  if (how === 'sign-with-cli-identity') return shown(signWithOwnKey(file));
  const signer = signerPath === undefined ? undefined : readSigner(signerPath);
  const session = withCreator(file, signer);
  if (how === 'generate-message-to-be-signed') {
    const message = messageToSign(session.text).toString();
    return { text: message, json: { message } };
  }
  const bytes = signature === undefined ? readInput('-', LARGEST) : readBase64(signature);
  return shown(addSignature(session.signed ?? session.text, pemOf(signer as KeyObject), bytes));
}

/** Adds the signature of this user. */
export function signWithOwnKey(file: SessionFile): SignedSession {
  const key = openSigningKey(process.env);
  const { signed, text } = withCreator(file, createPublicKey(key));
  return signSession(signed ?? text, key);
}

/**
 * Makes the first signer the creator of a session that speaks of one and names none: once signed, the text stays as it
 * is, and the CAS cannot know who is meant.
 */
function withCreator(file: SessionFile, signer: KeyObject | undefined): SessionFile {
  if (file.signed || file.session.creator !== undefined || !maySpeakOfCreator(file.session)) return file;
  if (signer) return changed(file, 'creator', { signer: pemOf(signer) });
  if (refersToCreator(file.session)) throw failure('CREATOR_UNKNOWN');
  return file;
}

/** A variable in an access policy can stand for anybody. */
function maySpeakOfCreator(session: Session): boolean {
  return refersToCreator(session) || JSON.stringify(session.access_policy).includes('$$');
}

function readSigner(path: string): KeyObject {
  const pem = readInput(path, LARGEST).toString('latin1');
  const spki = parsePublicKey(pem);
  const digest = typeof spki === 'string' ? spki : signerDigest(pem);
  if (typeof digest === 'string') throw failure('FILE_INVALID', { path, detail: digest });
  return readPublicKey(spki as Buffer);
}

function readBase64(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.toString('base64') === text) return bytes;
  throw failure('USAGE', { detail: 'the signature is not base64; give its bytes on standard input instead' });
}

function pemOf(key: KeyObject): string {
  return key.export({ type: 'spki', format: 'pem' }).toString();
}

function shown(signed: SignedSession): Output {
  return { text: `${JSON.stringify(signed, null, 2)}\n`, json: signed };
}
