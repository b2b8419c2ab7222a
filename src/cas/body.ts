import * as v from 'valibot';
import { failure } from '../errors.ts';

/** Bodies of requests, as they are read in a thread, too. */

export const invalid = (detail: string) => failure('REQUEST_INVALID', { detail });

/** @throws Failure REQUEST_INVALID */
export function readText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw invalid('the body is not a text in UTF-8');
  }
}

/** @throws Failure REQUEST_INVALID */
export function parseJson<Schema extends v.GenericSchema>(
  text: string,
  schema: Schema,
): v.InferOutput<Schema> {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    throw invalid('the body is no JSON');
  }
  const parsed = v.safeParse(schema, content, { abortEarly: true });
  if (parsed.success) return parsed.output;
  throw invalid(`the body has something unexpected at ${v.getDotPath(parsed.issues[0]) ?? 'the top'}`);
}
