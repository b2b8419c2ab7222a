import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import * as v from 'valibot';
import { LONGEST_LINE, parseEntry } from '../audit/entry.ts';
import { checkHead, headAnswer } from '../audit/tree-head.ts';
import { type Knowledge, verdicts, verifyLog } from '../audit/verify-log.ts';
import { failure, reason } from '../errors.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import { callApi } from '../protocol/api-client.ts';
import { printable } from '../protocol/refusal.ts';
import { connectTo, type NetworkOptions, openCas } from './connect.ts';
import type { Output } from './output.ts';
import { seenLog } from './seen-log.ts';
import { knownCas } from './state.ts';

const AT_ONCE = 1000;

/** `scone cas read-audit-log`: the lines of the log, for its owner. */
export async function readAuditLog(options: NetworkOptions & { first: number }): Promise<Output> {
  const cas = await openCas(options);
  const answer = v.object({ lines: v.array(v.string()) });
  const all: string[] = [];
  for (let first = options.first; ; first += AT_ONCE) {
    const path = `/v1/audit-log/entries?first=${first}&limit=${AT_ONCE}`;
    const { lines } = await cas.call({ method: 'GET', path }, answer);
    all.push(...lines);
    if (lines.length < AT_ONCE) break;
  }
  return {
    text: all.map((line) => `${printable(line)}\n`).join(''),
    json: all.map((line) => JSON.parse(line)),
  };
}

export interface VerifyOptions {
  cas?: string;
  casKeyHash?: string;
  predecessor?: string;
  last?: string;
  printLog?: boolean;
  retries: number;
}

/** `scone cas verify-audit-log FILE`: with what this user remembers. */
export const verifyAuditLog = (file: string, options: VerifyOptions): Promise<Output> =>
  verify(file, options, false);

/** `scone cas attest-audit-log FILE`: with what the CAS says now, too. */
export const attestAuditLog = (file: string, options: VerifyOptions): Promise<Output> =>
  verify(file, options, true);

async function verify(file: string, options: VerifyOptions, asksCas: boolean): Promise<Output> {
  const { predecessor, last, printLog } = options;
  const isKnown = options.casKeyHash === undefined || options.cas !== undefined || asksCas;
  const cas = isKnown ? knownCas(process.env, options.cas) : undefined;
  const remembered = cas && seenLog(cas.name);
  const known: Knowledge = {
    cas: options.casKeyHash === undefined ? cas?.key : parseKeyHash(options.casKeyHash, '-c'),
    ...{ predecessor, last },
    remembered: remembered && { size: remembered.size, root: Buffer.from(remembered.root, 'hex') },
    ...(asksCas && cas && { present: (size: number) => presentOf(cas, size, options.retries) }),
  };
  const printed: string[] = [];
  const found = await verifyLog(
    () => linesOf(file),
    known,
    (_, line) => {
      if (printLog) printed.push(`${printable(line.toString())}\n`);
    },
  );
  const { exit, text } = verdicts[found.verdict];
  process.exitCode = exit;
  const range = found.last > 0 ? `Entries ${found.first} to ${found.last}. ` : '';
  const detail = found.detail === '' ? '' : ` (${found.detail})`;
  return {
    text: `${printed.join('')}${range}${text}${detail}.\n`,
    json: { exit, ...found },
  };
}

async function presentOf(cas: ReturnType<typeof knownCas>, size: number, retries: number) {
  const connection = await connectTo(cas, retries);
  const call = { method: 'GET', path: `/v1/audit-log/head?first=${size}` } as const;
  const answer = await callApi(connection, call, headAnswer);
  const { size: now, root } = checkHead(answer, cas.key, undefined, cas.name);
  return {
    tree: { size: now, root: Buffer.from(root, 'hex') },
    proof: (answer.proof ?? []).map((hash) => Buffer.from(hash, 'hex')),
    restored: answer.restored?.time,
  };
}

async function* linesOf(file: string): AsyncGenerator<Buffer> {
  const input = createReadStream(file);
  try {
    for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      if (line === '') continue;
      if (line.length > LONGEST_LINE) parseEntry(Buffer.from(line), 0);
      yield Buffer.from(line);
    }
  } catch (error) {
    if (error instanceof Error && 'errno' in error)
      throw failure('FILE_INVALID', { path: file, detail: reason(error) });
    throw error;
  }
}
