import * as v from 'valibot';
import { failure } from '../../errors.ts';
import type { Problem } from '../../policy/problem.ts';
import { type CasClient, type NetworkOptions, openCas } from '../connect.ts';
import type { Output } from '../output.ts';
import { warnOf } from '../report.ts';
import { changed, loadSession, loadUpload, type TemplateOptions, uploadOf } from './file.ts';
import { sessionPath, versionHash } from './names.ts';

const stored = v.object({
  hash: versionHash,
  warnings: v.array(
    v.object({
      severity: v.literal('warning'),
      line: v.number(),
      column: v.number(),
      path: v.string(),
      message: v.string(),
    }),
  ),
});

/** `scone session create FILE`: prints the hash of the stored session, and nothing else, on standard output. */
export async function createSession(
  file: string,
  options: TemplateOptions & NetworkOptions,
): Promise<Output> {
  const loaded = await loadUpload(file, options);
  const cas = await openCas(options);
  if (typeof loaded === 'string') return upload(cas, file, loaded, []);
  return upload(cas, file, uploadOf(loaded), loaded.warnings);
}

/**
 * `scone session update FILE`: the same where there is a version before. Without a `predecessor` in the file, that is
 * the present one of the CAS.
 */
export async function updateSession(
  file: string,
  options: TemplateOptions & NetworkOptions,
): Promise<Output> {
  const loaded = await loadSession(file, options);
  const { name, predecessor } = loaded.session;
  if (predecessor === null && loaded.signed)
    throw failure('FILE_INVALID', {
      path: file,
      detail: 'it is signed, so its `predecessor` has to be written into it before',
    });
  const cas = await openCas(options);
  if (predecessor !== null) return upload(cas, file, uploadOf(loaded), loaded.warnings);
  const present = await cas.call(
    { method: 'GET', path: `/v1/hashes/${sessionPath(name)}` },
    v.object({ hash: versionHash }),
  );
  return upload(cas, file, uploadOf(changed(loaded, 'predecessor', present.hash)), loaded.warnings);
}

/** Tells what the CAS warns of, and was not said before. */
async function upload(cas: CasClient, file: string, body: string, said: readonly Problem[]): Promise<Output> {
  const { hash, warnings } = await cas.call({ method: 'POST', path: '/session', body }, stored);
  const known = new Set(said.map(({ path, message }) => `${path} ${message}`));
  for (const warning of warnings) if (!known.has(`${warning.path} ${warning.message}`)) warnOf(file, warning);
  return { text: `${hash}\n`, json: { hash } };
}
