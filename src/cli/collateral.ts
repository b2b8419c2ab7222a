import { basename } from 'node:path';
import * as v from 'valibot';
import { parseCollateral } from '../attestation/collateral.ts';
import { documentsOf, issuersFirst } from '../attestation/documents.ts';
import { formatTime } from '../attestation/x509/chain.ts';
import { failure } from '../errors.ts';
import { printable } from '../protocol/refusal.ts';
import { type NetworkOptions, openCas } from './connect.ts';
import { readFiles } from './evidence/collateral.ts';
import type { Output } from './output.ts';

const time = v.number();
const listed = v.object({
  documents: v.array(v.object({ key: v.string(), from: time, until: time, kept: time })),
});
const added = v.object({
  documents: v.array(
    v.object({
      key: v.string(),
      until: time,
      outcome: v.picklist(['kept', 'older', 'refused']),
      detail: v.optional(v.string(), ''),
    }),
  ),
});

/** `scone cas collateral list` */
export async function listCollateral(options: NetworkOptions): Promise<Output> {
  const cas = await openCas(options);
  const { documents } = await cas.call({ method: 'GET', path: '/v1/collateral' }, listed);
  const lines = documents
    .toSorted((a, b) => a.key.localeCompare(b.key))
    .map(
      ({ key, until, kept }) => `until ${formatTime(until)}, came ${formatTime(kept)}  ${printable(key)}\n`,
    );
  const text = lines.join('') || 'The CAS has no collateral. It fetches what it needs when Evidence comes.\n';
  return { text, json: documents };
}

/** Documents in one request, which the largest that Intel publishes leave room for. */
const AT_ONCE = 8;

/** `scone cas collateral import FILE…` */
export async function importCollateral(paths: string[], options: NetworkOptions): Promise<Output> {
  // Issuers come before what they have signed, as all may be more than one request takes.
  const found = readFiles(paths)
    .flatMap((file) => documentsOf(parseCollateral([file]), basename(file.name)))
    .toSorted(issuersFirst)
    .map(({ file: { name, bytes } }) => JSON.stringify({ name, content: bytes.toString('base64') }));
  const files = [...new Set(found)];
  const cas = await openCas(options);
  const documents: v.InferOutput<typeof added>['documents'] = [];
  for (let from = 0; from < files.length; from += AT_ONCE) {
    const body = `{"files":[${files.slice(from, from + AT_ONCE).join()}]}`;
    const answer = await cas.call({ method: 'POST', path: '/v1/collateral', body }, added);
    for (const document of answer.documents) documents.push(document);
  }
  if (documents.length === 0)
    throw failure('FILE_INVALID', { path: paths.join(', '), detail: 'there is no collateral in it' });
  const counted = documents.filter(({ outcome }) => outcome !== 'refused');
  const [first] = documents;
  if (first && counted.length === 0)
    throw failure('COLLATERAL_INVALID', { what: first.key, detail: printable(first.detail) });
  const words = { kept: 'kept', older: 'not kept, the CAS has a newer one', refused: 'refused' };
  const lines = documents.map(({ key, until, outcome, detail }) => {
    const more = outcome === 'refused' ? `: ${detail}` : `, until ${formatTime(until)}`;
    return `${words[outcome]}: ${printable(key + more)}\n`;
  });
  return { text: lines.join(''), json: documents };
}
