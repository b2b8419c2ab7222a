import { failure } from '../../errors.ts';
import { sessionNamePattern } from '../../policy/names.ts';
import { InvalidText, type Problem } from '../../policy/problem.ts';
import { parseSession, type Session } from '../../policy/session.ts';
import {
  isSignedSession,
  parseSignedSession,
  type SignedSession,
  verifySignatures,
} from '../../policy/signed-session.ts';
import { readYaml } from '../../policy/yaml.ts';
import { readInput } from '../input.ts';
import { InvalidFile, warnOf } from '../report.ts';
import { withKey } from './edit.ts';

/** How a session file becomes a session. */
export interface TemplateOptions {
  /** NAME=VALUE each. */
  e?: string[];
  useEnv?: boolean;
  /** Name in the place of the one in the file. */
  name?: string;
  failOnWarning?: boolean;
  /** Values of variables may be references to secrets. */
  allowReferences?: boolean;
}

/** Bytes; what a CAS takes is less. */
const LARGEST = 16 * 1024 * 1024;

/** A session from a file, understood. */
export interface SessionFile {
  path: string;
  /** The text of the session, variables filled in. */
  text: string;
  session: Session;
  /** What was said of it. */
  warnings: Problem[];
  /** Where it is signed: the text, and by whom. */
  signed?: SignedSession;
}

/**
 * Reads a session file, signed or not, fills in its variables and checks it, signatures included. Warnings go to
 * standard error.
 * @throws InvalidFile, Failure FILE_INVALID, SIGNED_SESSION_INVALID, SIGNATURE_INVALID, WARNINGS or USAGE
 */
export async function loadSession(path: string, options: TemplateOptions): Promise<SessionFile> {
  const loaded = await loadUpload(path, options);
  if (typeof loaded !== 'string') return loaded;
  throw failure('FILE_INVALID', { path, detail: 'it is encrypted, so only the CAS can look into it' });
}

/** The same of a file that may also be an encrypted session, of which it gives the text as it is. */
export async function loadUpload(path: string, options: TemplateOptions): Promise<SessionFile | string> {
  if (options.name !== undefined && !sessionNamePattern.test(options.name))
    throw failure('USAGE', { detail: `--name takes a session name, not ${JSON.stringify(options.name)}` });
  const content = readText(path);
  const isEncrypted = await looksEncrypted(content);
  const isSigned = !isEncrypted && isSignedSession(content);
  if (options.name !== undefined && (isEncrypted || isSigned))
    throw failure('USAGE', {
      detail: `--name cannot change a session that is ${isSigned ? 'signed' : 'encrypted'} already`,
    });
  if (isEncrypted) return content;
  const loaded = inFile(path, () => (isSigned ? readSigned(path, content) : fillIn(path, content, options)));
  for (const warning of loaded.warnings) warnOf(path, warning);
  if (options.failOnWarning && loaded.warnings.length > 0)
    throw failure('WARNINGS', { path, count: loaded.warnings.length });
  return loaded;
}

/** What is uploaded of a session file. */
export function uploadOf({ text, signed }: SessionFile): string {
  return signed ? JSON.stringify(signed) : text;
}

/** The same file with another value of one key at its top. */
export function changed(file: SessionFile, key: string, value: Parameters<typeof withKey>[3]): SessionFile {
  return inFile(file.path, () => {
    const { text, session } = parseSession(withKey(file.path, file.text, key, value));
    return { ...file, text, session };
  });
}

function readText(path: string): string {
  const bytes = readInput(path, LARGEST);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw failure('FILE_INVALID', { path, detail: 'it is no text in UTF-8' });
  }
}

/** The library that encrypts is brought in only where a text begins as a JWE does. */
async function looksEncrypted(content: string): Promise<boolean> {
  if (!/^\s*eyJ/.test(content)) return false;
  const { isEncryptedSession } = await import('../../protocol/encrypted-session.ts');
  return isEncryptedSession(content);
}

function readSigned(path: string, content: string): SessionFile {
  const signed = parseSignedSession(content);
  verifySignatures(signed);
  const { text, session, warnings } = parseSession(signed.policy);
  return { path, text, session, warnings, signed };
}

function fillIn(
  path: string,
  template: string,
  { e, useEnv, name, allowReferences }: TemplateOptions,
): SessionFile {
  const given = new Map((e ?? []).map(readAssignment));
  const variables = (variable: string) => given.get(variable) ?? (useEnv ? process.env[variable] : undefined);
  const { text, session, warnings } =
    name === undefined
      ? parseSession(template, variables, allowReferences)
      : parseSession(withKey(path, readYaml(template, variables, allowReferences).text, 'name', name));
  return { path, text, session, warnings };
}

function readAssignment(text: string): [string, string] {
  const equals = text.indexOf('=');
  if (equals < 1) throw failure('USAGE', { detail: `-e takes NAME=VALUE, not ${JSON.stringify(text)}` });
  return [text.slice(0, equals), text.slice(equals + 1)];
}

/** Says of which file a text is that is wrong. */
function inFile<Result>(path: string, read: () => Result): Result {
  try {
    return read();
  } catch (error) {
    if (error instanceof InvalidText) throw new InvalidFile(path, error);
    throw error;
  }
}
