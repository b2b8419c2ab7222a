import { styleText } from 'node:util';
import type { Command } from 'commander';
import { renderSVG, renderUnicodeCompact } from 'uqr';
import * as v from 'valibot';
import { failure } from '../errors.ts';
import { formatConfigId } from '../policy/names.ts';
import { oneTimePasswordUri, parseSharedSecret } from '../secrets/one-time-password.ts';
import { type NetworkOptions, openCas } from './connect.ts';
import type { Output } from './output.ts';
import { readServiceName, servicePath } from './session/names.ts';

const answer = v.object({ secret: v.string() });

/** The light margin of a QR code, in modules (ISO/IEC 18004 §9.1). */
const QUIET_ZONE = 4;

/**
 * `scone otp show SESSION/SERVICE`: prints the secret of its one-time passwords as a QR code that authenticator apps
 * take, and in letters.
 */
export async function showOneTimePassword(
  text: string,
  options: NetworkOptions & { svg?: boolean },
  command: Command,
): Promise<Output> {
  const name = readServiceName(text);
  const cas = await openCas(options);
  const { secret } = await cas.call({ method: 'GET', path: `/v1/otp/${servicePath(name)}` }, answer);
  const sharedSecret = parseSharedSecret(secret);
  if (typeof sharedSecret === 'string')
    throw failure('CAS_PROTOCOL', { address: cas.name, detail: sharedSecret });
  const account = formatConfigId(name);
  const uri = oneTimePasswordUri(sharedSecret, cas.name, account);
  const json = { uri, secret };
  const drawing = { border: QUIET_ZONE };
  if (options.svg) return { text: `${renderSVG(uri, drawing)}\n`, json };
  const toFile = command.optsWithGlobals<{ output?: string }>().output !== undefined;
  const code = renderUnicodeCompact(uri, drawing)
    .split('\n')
    // Blocks are the light parts; a terminal with dark letters on a light background would turn that round.
    .map((line) => (toFile ? line : styleText(['whiteBright', 'bgBlack'], line)));
  return {
    picture: `${code.join('\n')}\n`,
    text: `\nAccount: ${account} at ${cas.name}\nSecret:  ${secret}\n`,
    json,
  };
}
