import { isIP } from 'node:net';
import { checkValue } from '../../secrets/generate.ts';
import { parsePrivateKey, publicKeyOf } from '../../secrets/private-key.ts';
import { certificatePublicKey, parseCertificates } from '../../secrets/x509.ts';
import { resolveSessionName } from '../names.ts';
import type { Path } from '../problem.ts';
import { SOFTWARE_IDENTITY } from '../schema/secrets.ts';
import { isImported, type SecretDefinition } from '../schema/session.ts';
import type { Scope } from './scope.ts';

/** What one session may make the CAS do: an RSA key takes it up to a second. */
const MOST_RSA_KEYS = 16;
const MOST_SECRET_BYTES = 8 * 1024 * 1024;
/** Anybody may ask for all of them at once. */
const MOST_PUBLIC = 64;

type Made<Kind extends string> = Extract<SecretDefinition, { kind: Kind }>;
type At = (...path: Path) => Path;

/** Secrets: values, whom they are shared with, and what they are made from. */
export function checkSecrets(scope: Scope): void {
  checkAmount(scope);
  scope.session.secrets.forEach((secret, index) => {
    checkSecret(scope, secret, (...path) => ['secrets', index, ...path]);
  });
}

function checkAmount({ session: { secrets }, error }: Scope): void {
  const isRsa = (secret: SecretDefinition) => 'key_type' in secret && secret.key_type?.startsWith('RSA');
  if (secrets.filter(isRsa).length > MOST_RSA_KEYS)
    error(['secrets'], `expected at most ${MOST_RSA_KEYS} RSA keys; others are made much faster`);
  const published = secrets.filter((secret) => secret.export_public).length;
  if (published > MOST_PUBLIC)
    error(['secrets'], `expected at most ${MOST_PUBLIC} secrets with export_public, found ${published}`);
  const sizes = secrets.map((secret) => Number(('size' in secret && secret.size) || 0));
  if (sizes.reduce((sum, size) => sum + size, 0) > MOST_SECRET_BYTES)
    error(['secrets'], `the sizes of all secrets are more than ${MOST_SECRET_BYTES} together`);
}

function checkSecret(scope: Scope, secret: SecretDefinition, at: At): void {
  const { error, refuse } = scope;
  const wrong = 'value' in secret ? checkValue(secret as Parameters<typeof checkValue>[0]) : undefined;
  if (wrong) error(at('value'), wrong);
  checkSharing(scope, secret, at);
  if ('import' in secret) return;
  if ('import_akv' in secret) return void refuse(at('import_akv'), 'Azure Key Vault');
  switch (secret.kind) {
    case 'aad-token':
      return void refuse(at('kind'), 'tokens of Azure Active Directory');
    case 'jwt':
      return void checkJwt(scope, secret, at);
    case 'public-key':
      checkReferred(scope, at('private_key'), secret.private_key, 'private-key');
      if ((secret.private_key === undefined) === (secret.value === undefined))
        error(at(), 'expected one of private_key and value');
      return;
    case 'x509':
      checkNames(scope, secret, at);
      return void checkCertificate(scope, secret, at);
    case 'x509-ca':
      return void checkCertificate(scope, secret, at);
  }
}

function checkSharing({ session, error }: Scope, secret: SecretDefinition, at: At): void {
  const leadsNowhere = (name: string) => resolveSessionName(session.name, name) === undefined;
  const message = (name: string) => `${name} leads to no session, seen from ${session.name}`;
  for (const [index, target] of (secret.export ?? []).entries()) {
    const name = target.session ?? target.namespace ?? '';
    if (target.cas_key === undefined && leadsNowhere(name)) error(at('export', index), message(name));
  }
  if (secret.export_public && secret.kind === 'private-key')
    error(
      at('export_public'),
      'a private key is not for everybody; publish a public-key secret made from it',
    );
  if ('import' in secret && leadsNowhere(secret.import.session))
    error(at('import', 'session'), message(secret.import.session));
}

/** Another secret of the session that this one is made from. */
function checkReferred(
  { secrets, error, noSecret }: Scope,
  path: Path,
  name: string | undefined,
  kind: string,
) {
  if (name === undefined) return;
  const other = secrets.get(name);
  if (!other) noSecret(path, name);
  else if (other.kind !== undefined && other.kind !== kind)
    error(path, `${name} is of kind ${other.kind}, expected ${kind}`);
}

function checkJwt(scope: Scope, { signer, payload }: Made<'jwt'>, at: At): void {
  const { secrets, error } = scope;
  checkReferred(scope, at('signer'), signer, 'private-key');
  const key = secrets.get(signer);
  // The type of a key that is imported, or given, is known only when it is used.
  if (key?.kind === 'private-key' && !('import' in key) && !('value' in key && key.value !== undefined)) {
    const { key_type = 'P-256' } = key as Made<'private-key'>;
    if (key_type !== 'P-384')
      error(at('signer'), `${signer} is of key_type ${key_type}; ES384 takes a key of P-384`);
  }
  for (const [claim, value] of Object.entries(payload)) {
    if (!value.includes('$$') || value === SOFTWARE_IDENTITY) continue;
    const path = at('payload', claim);
    const [only, ...more] = scope.parts(value, path);
    if (more.length > 0 || !only || Buffer.isBuffer(only) || only.escape)
      error(path, 'a claim is a text, or one variable and nothing else');
    else scope.reference(only, path, 'text');
  }
}

function checkCertificate(scope: Scope, secret: Made<'x509'> | Made<'x509-ca'>, at: At): void {
  const { secrets, error } = scope;
  checkReferred(scope, at('private_key'), secret.private_key, 'private-key');
  checkReferred(scope, at('issuer'), secret.issuer, 'x509-ca');
  if (secret.private_key === undefined && secret.value === undefined)
    error(at(), 'the key "private_key" is missing: which key is the certificate for?');
  if (secret.value !== undefined) checkGiven(scope, secret, secret.value, at);
  // An issuer may have an issuer, but none can be its own.
  const seen = new Set([secret.name]);
  for (let { issuer } = secret; issuer !== undefined; ) {
    if (seen.has(issuer)) return void error(at('issuer'), `${issuer} is issued by itself, in a circle`);
    seen.add(issuer);
    const next = secrets.get(issuer);
    issuer = next && 'issuer' in next ? next.issuer : undefined;
  }
}

/** Nothing says how a certificate is made that is given, and its key must be its own. */
function checkGiven(
  { secrets, error }: Scope,
  secret: Made<'x509'> | Made<'x509-ca'>,
  value: string,
  at: At,
): void {
  if (secret.issuer !== undefined)
    error(at('issuer'), 'a certificate that is given has its issuers after it, and no issuer here');
  for (const key of ['common_name', 'valid_for', 'endpoint', 'dns', 'san'])
    if (Object.hasOwn(secret, key)) error(at(key), `a certificate that is given has its own ${key}`);

  const key = secrets.get(secret.private_key ?? '');
  if (key?.kind !== 'private-key' || isImported(key)) return;
  const { value: pem, migrate } = key as Made<'private-key'>;
  // One that is kept from an earlier version is known only when it is used.
  if (pem === undefined && !migrate)
    error(at('private_key'), `${key.name} is made anew, so it is not the key of a certificate that is given`);
  const given = pem === undefined ? undefined : parsePrivateKey(pem);
  const [certificate] = parseCertificates(value);
  if (typeof given !== 'object' || !Buffer.isBuffer(certificate)) return;
  if (!publicKeyOf(given.der).equals(certificatePublicKey(certificate)))
    error(at('private_key'), `${key.name} is not the key of this certificate`);
}

const hostName = /^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?$/;

function checkNames({ error }: Scope, { dns, san, endpoint }: Made<'x509'>, at: At): void {
  if (dns !== undefined && endpoint === 'client') error(at('dns'), 'a client certificate has no host names');
  san?.forEach((name, position) => {
    const [, type, value = ''] = /^(dns|ip):(.*)$/s.exec(name) ?? [];
    if (type === 'ip' ? isIP(value) === 0 || value.includes('%') : !hostName.test(value))
      error(at('san', position), 'expected "dns:" and a host name, or "ip:" and an address');
  });
  dns?.forEach((name, position) => {
    if (!hostName.test(name)) error(at('dns', position), 'expected a host name');
  });
}
