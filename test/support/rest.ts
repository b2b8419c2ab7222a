import { execFile, execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Stack } from './stack.ts';

export interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every form
  body: any;
}

/** The REST interface of a CAS as curl sees it, for people whose keys and certificates openssl makes. */
export interface Rest {
  get(path: string, who?: string): Promise<Answer>;
  send(method: string, path: string, body: string | Buffer, who?: string): Promise<Answer>;
  /** Uploads a session, and gives the whole answer. */
  upload(text: string, who?: string): Promise<Answer>;
  keyHash(who: string): string;
  /** Certificate, as PEM in a file. */
  certificate(who: string): string;
}

export function rest(stack: Stack): Rest {
  const file = (name: string) => join(stack.files, name);
  writeFileSync(file('cas.pem'), stack.scone('cas', 'show-identification', '--chain'));
  const certificate = (who: string) => {
    const path = file(`${who}.pem`);
    const subject = ['-subj', `/CN=${who}`, '-keyout', file(`${who}.key`), '-out', path];
    const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'];
    if (!existsSync(path)) execFileSync('openssl', ['req', '-x509', ...ec, ...subject], { stdio: 'ignore' });
    return path;
  };
  const identity = (who: string | undefined) =>
    who === undefined ? [] : ['--cert', certificate(who), '--key', file(`${who}.key`)];
  const curl = async (path: string, who: string | undefined, ...args: string[]): Promise<Answer> => {
    const run = () =>
      promisify(execFile)(
        'curl',
        [
          ...['-sS', '--cacert', file('cas.pem'), '-w', '\n%{http_code}', ...identity(who), ...args],
          `https://localhost:${stack.env.SCONE_CAS_API_PORT}${path}`,
        ],
        { maxBuffer: 1 << 26 },
      );
    // Who is refused before the whole body is sent may find the connection closed before the answer is read.
    const { stdout } = await run().catch(run);
    const split = stdout.lastIndexOf('\n');
    return { status: Number(stdout.slice(split + 1)), body: JSON.parse(stdout.slice(0, split)) };
  };
  let count = 0;
  const client: Rest = {
    get: (path, who) => curl(path, who),
    send: (method, path, body, who) => {
      const content = file(`body-${count++}`);
      writeFileSync(content, body);
      return curl(path, who, '-X', method, '--data-binary', `@${content}`);
    },
    upload: (text, who = 'alice') => client.send('POST', '/session', text, who),
    keyHash: (who) => stack.scone('cert', 'show-key-hash', certificate(who)).trim(),
    certificate,
  };
  return client;
}
