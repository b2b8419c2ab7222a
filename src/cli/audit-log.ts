import { createReadStream } from 'node:fs';
import * as v from 'valibot';
import { LONGEST_LINE, parseEntry } from '../audit/entry.ts';
import { checkHead, headAnswer } from '../audit/tree-head.ts';
import { type Knowledge, verdicts, verifyLog } from '../audit/verify-log.ts';
import { failure, reason } from '../errors.ts';
import { linesIn } from '../lines.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import { callApi } from '../protocol/api-client.ts';
import { printable } from '../protocol/refusal.ts';
import { type CasClient, connectTo, type NetworkOptions, openCas } from './connect.ts';
import { formatJson, jsonList, type LongOutput } from './output.ts';
import { seenLog } from './seen-log.ts';
import { knownCas } from './state.ts';

const AT_ONCE = 1000;
const page = v.object({
  lines: v.pipe(v.array(v.pipe(v.string(), v.maxLength(LONGEST_LINE))), v.maxLength(AT_ONCE)),
});

/** `scone cas read-audit-log`: the lines of the log as it is now, for its owner, as they come. */
export async function readAuditLog(options: NetworkOptions & { first: number }): Promise<LongOutput> {
  const cas = await openCas(options);
  return {
    async tell(say, inJson) {
      const head = await cas.call({ method: 'GET', path: '/v1/audit-log/head' }, headAnswer);
      const { size } = head.head;
      const list = inJson ? jsonList(say) : undefined;
      for (let next = options.first; next <= size; ) {
        const lines = await linesFrom(cas, next, Math.min(AT_ONCE, size - next + 1));
        for (const { line, entry } of lines) await (list ? list.add(entry) : say(`${printable(line)}\n`));
        next += lines.length;
      }
      await list?.end();
    },
  };
}

/** @throws Failure CAS_PROTOCOL where they do not go on from a number, so that an end is reached */
async function linesFrom(cas: CasClient, first: number, limit: number) {
  const path = `/v1/audit-log/entries?first=${first}&limit=${limit}`;
  const { lines } = await cas.call({ method: 'GET', path }, page);
  const untrue = (detail: string) => failure('CAS_PROTOCOL', { address: cas.name, detail });
  if (lines.length === 0 || lines.length > limit) throw untrue('an audit log that does not go on');
  return lines.map((line, index) => {
    const entry = parseEntry(Buffer.from(line), first + index);
    if (entry.sequence !== first + index)
      throw untrue(`entry ${entry.sequence} of its log for ${first + index}`);
    return { line, entry };
  });
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
export const verifyAuditLog = (file: string, options: VerifyOptions): Promise<LongOutput> =>
  verify(file, options, false);

/** `scone cas attest-audit-log FILE`: with what the CAS says now, too. */
export const attestAuditLog = (file: string, options: VerifyOptions): Promise<LongOutput> =>
  verify(file, options, true);

async function verify(file: string, options: VerifyOptions, asksCas: boolean): Promise<LongOutput> {
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
  return {
    async tell(say, inJson) {
      const found = await verifyLog(
        () => linesOf(file),
        known,
        async (_, line) => {
          if (printLog && !inJson) await say(`${printable(line.toString())}\n`);
        },
      );
      const { exit, text } = verdicts[found.verdict];
      process.exitCode = exit;
      const range = found.last > 0 ? `Entries ${found.first} to ${found.last}. ` : '';
      const detail = found.detail === '' ? '' : ` (${found.detail})`;
      await say(inJson ? formatJson({ exit, ...found }) : `${range}${text}${detail}.\n`);
    },
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
  const tooLong = (line: number) =>
    failure('AUDIT_LOG_DAMAGED', { sequence: line, detail: 'it is too long' });
  try {
    for await (const line of linesIn(createReadStream(file), LONGEST_LINE, tooLong))
      if (line.length > 0) yield line;
  } catch (error) {
    if (error instanceof Error && 'errno' in error)
      throw failure('FILE_INVALID', { path: file, detail: reason(error) });
    throw error;
  }
}
