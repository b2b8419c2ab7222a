import { failure } from '../errors.ts';

/**
 * A measurement or LAS key from the command line, in lower case.
 * @throws Failure USAGE
 */
export function readDigest(text: string, what: string): string {
  if (!/^[0-9a-fA-F]{64}$/.test(text))
    throw failure('USAGE', { detail: `${what} has 64 hexadecimal digits: ${JSON.stringify(text)}` });
  return text.toLowerCase();
}
