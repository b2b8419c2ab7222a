import { readFileSync } from 'node:fs';
import * as v from 'valibot';
import { failure, reason } from '../errors.ts';
import { InvalidText } from '../policy/problem.ts';
import { parseSession } from '../policy/session.ts';
import { callApi } from '../protocol/api-client.ts';
import type { Output } from './output.ts';
import { InvalidFile, warnOf } from './report.ts';
import { connectAsUser } from './state.ts';

export interface TemplateOptions {
  /** NAME=VALUE each. */
  e?: string[];
  useEnv?: boolean;
}

const sessionHash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));

/** `scone session check FILE`: prints the session with its template variables filled in. */
export async function checkSession(file: string, options: TemplateOptions): Promise<Output> {
  const session = loadSession(file, options);
  return { text: session, json: { session } };
}

/** `scone session create FILE`: prints the hash of the stored session, and nothing else, on standard output. */
export async function createSession(
  file: string,
  options: TemplateOptions & { cas?: string },
): Promise<Output> {
  const text = loadSession(file, options);
  const connection = await connectAsUser(process.env, options.cas);
  const { hash } = await callApi(
    connection,
    { method: 'POST', path: '/session', body: text },
    v.object({ hash: sessionHash }),
  );
  return { text: `${hash}\n`, json: { hash } };
}

/** `scone session read NAME`: prints the text of the newest version, or its hash. */
export async function readSession(name: string, options: { cas?: string; hash?: boolean }): Promise<Output> {
  const connection = await connectAsUser(process.env, options.cas);
  const path = `/session/${name.split('/').map(encodeURIComponent).join('/')}`;
  const answer = v.object({ session: v.string(), hash: sessionHash });
  const { session, hash } = await callApi(connection, { method: 'GET', path }, answer);
  const printed = options.hash ? hash : session;
  return { text: printed.endsWith('\n') ? printed : `${printed}\n`, json: { session, hash } };
}

/** Reads a session file, fills in its template variables and checks it; warnings go to standard error. */
function loadSession(file: string, options: TemplateOptions): string {
  let template: string;
  try {
    template = readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    throw failure('FILE_INVALID', { path: file, detail: reason(error) });
  }
  const given = new Map((options.e ?? []).map(readAssignment));
  const variables = (name: string) => given.get(name) ?? (options.useEnv ? process.env[name] : undefined);
  try {
    const { text, warnings } = parseSession(template, variables);
    for (const warning of warnings) warnOf(file, warning);
    return text;
  } catch (error) {
    if (error instanceof InvalidText) throw new InvalidFile(file, error);
    throw error;
  }
}

function readAssignment(text: string): [string, string] {
  const equals = text.indexOf('=');
  if (equals < 1) throw failure('USAGE', { detail: `-e takes NAME=VALUE, not ${JSON.stringify(text)}` });
  return [text.slice(0, equals), text.slice(equals + 1)];
}
