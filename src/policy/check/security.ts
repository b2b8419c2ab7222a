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

/** The sections `security` and `access_policy`, and where secrets are kept. */
export function checkSecurity(scope: Scope): void {
  const { session, security, attestation, error, warn, refuse } = scope;
  scope.values(session.access_policy, ['access_policy']);
  checkPrincipals(scope);
  if (session.secret_config?.store_in && '!akv' in session.secret_config.store_in)
    refuse(['secret_config', 'store_in'], 'Azure Key Vault');
  if (!security) return void scope.values(session.security, ['security']);

  const { service_access_token: token, singleton_enclaves: singleton } = security;
  scope.template(token, ['security', 'service_access_token'], 'text');
  if (token !== undefined && !token.includes('$$') && token.length < SHORTEST_TOKEN)
    warn(
      ['security', 'service_access_token'],
      `it has less than ${SHORTEST_TOKEN} characters, and could be guessed; let the CAS make it: a secret of kind ascii`,
    );
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
