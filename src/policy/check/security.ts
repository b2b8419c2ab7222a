import { DEFAULT_SIZE, parseValue } from '../../secrets/generate.ts';
import { referencesIn } from '../conditions.ts';
import { isImported } from '../schema/session.ts';
import { isReference } from '../schema/values.ts';
import { checkSharedSecret } from './one-time-password.ts';
import type { Scope } from './scope.ts';

const SHORTEST_TOKEN = 16;
/** Principals that one operation may have, in all of its rules: each costs a look at a key, at every request. */
const MOST_PRINCIPALS = 256;

/** At upload alone: what was taken before goes on as it was. */
function checkPrincipals({ session: { access_policy }, error }: Scope): void {
  if (typeof access_policy === 'string') return;
  for (const [operation, written] of Object.entries(access_policy)) {
    const principals = namedIn(written);
    const at = ['access_policy', operation];
    if (principals.length > MOST_PRINCIPALS)
      error(at, `expected at most ${MOST_PRINCIPALS} principals, found ${principals.length}`);
    if (principals.some((text) => text.split('-----BEGIN CERTIFICATE-----').length > 2))
      error(at, 'expected one certificate; each of several is a principal of its own');
  }
}

/** All principals, however deep in rules. */
function namedIn(written: unknown): string[] {
  if (typeof written === 'string') return [written];
  return typeof written === 'object' && written !== null ? Object.values(written).flatMap(namedIn) : [];
}

/** An access token that could be guessed, as far as the text says what it is. */
function checkAccessToken(scope: Scope): void {
  const security = wholeValue(scope, scope.session.security);
  if (typeof security !== 'object' || security === null || !('service_access_token' in security)) return;
  const token = wholeValue(scope, security.service_access_token);
  if (typeof token !== 'string' || token === '') return;
  if (token.replaceAll(/\$\$.*?\$\$/gs, (reference) => standIn(scope, reference)).length >= SHORTEST_TOKEN)
    return;
  scope.warn(
    scope.security ? ['security', 'service_access_token'] : ['security'],
    `${scope.security ? 'it' : 'service_access_token'} has less than ${SHORTEST_TOKEN} characters, and could be guessed; let the CAS make it: a secret of kind ascii`,
  );
}

const MOST_FRAGMENTS = 16;

/** What a variable that is a whole value stands for, where that is a config-fragment of the same text. */
function wholeValue(scope: Scope, value: unknown): unknown {
  let whole = value;
  for (let way = 0; isReference(whole) && way < MOST_FRAGMENTS; way++) {
    const secret = secretIn(scope, whole);
    if (!secret || isImported(secret) || secret.kind !== 'config-fragment') break;
    whole = secret.value;
  }
  return whole;
}

/** A text as long as what a reference stands for; long where that is not known. */
function standIn(scope: Scope, reference: string): string {
  const secret = secretIn(scope, reference);
  const unknown = 'x'.repeat(SHORTEST_TOKEN);
  if (!secret || isImported(secret) || (secret.kind !== 'ascii' && secret.kind !== 'binary')) return unknown;
  const given = parseValue(secret);
  const bytes = Buffer.isBuffer(given)
    ? given
    : Buffer.alloc(Math.min(secret.size ?? DEFAULT_SIZE, SHORTEST_TOKEN));
  // No format of bytes has more characters than hexadecimal.
  return bytes.toString(secret.kind === 'ascii' ? 'utf8' : 'hex');
}

function secretIn({ nameOf, secrets }: Scope, reference: string) {
  const [text = ''] = referencesIn(reference);
  return secrets.get(nameOf({ text, escape: undefined }).name);
}

/** The sections `security` and `access_policy`, and where secrets are kept. */
export function checkSecurity(scope: Scope): void {
  const { session, security, attestation, error, warn, refuse } = scope;
  scope.values(session.access_policy, ['access_policy']);
  checkPrincipals(scope);
  if (session.secret_config?.store_in && '!akv' in session.secret_config.store_in)
    refuse(['secret_config', 'store_in'], 'Azure Key Vault');
  checkAccessToken(scope);
  if (!security) return void scope.values(session.security, ['security']);

  const { service_access_token: token, singleton_enclaves: singleton } = security;
  scope.template(token, ['security', 'service_access_token'], 'text');
  scope.values(singleton, ['security', 'singleton_enclaves']);
  if (singleton === true && attestation?.mode === 'none')
    error(
      ['security', 'singleton_enclaves'],
      'a process is known by Evidence alone, which attestation mode none does not ask for',
    );

  const path = ['security', 'attestation'];
  if (!attestation) return void scope.values(security.attestation, path);
  const { one_time_password_shared_secret: sharedSecret, ...others } = attestation;
  scope.values(others, path);
  checkSharedSecret(scope, sharedSecret, [...path, 'one_time_password_shared_secret']);
  if (attestation.mode === 'maa') refuse([...path, 'mode'], 'attestation mode maa');
  if (attestation.mode === 'none' && (attestation.require?.length ?? 0) > 0)
    error(
      [...path, 'require'],
      'properties are known by Evidence alone, which attestation mode none does not ask for',
    );
  if (attestation.must_be_sgx_local) refuse([...path, 'must_be_sgx_local'], 'local attestation');
  if (attestation.ignore_advisories.includes('*') && !attestation.tolerate.includes('debug-mode'))
    warn(
      [...path, 'ignore_advisories'],
      '"*" counts only beside debug-mode in `tolerate`; without, each advisory that applies has to be named',
    );
}
