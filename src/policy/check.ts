import { isIP } from 'node:net';
import { checkValue, DEFAULT_SIZE } from '../secrets/generate.ts';
import { formatOf, formatsOf } from '../secrets/kinds.ts';
import { parseSharedSecret } from '../secrets/one-time-password.ts';
import {
  type Part,
  parseTemplate,
  type Reference,
  splitReference,
  TemplateError,
} from '../secrets/substitute.ts';
import { hostVariable, parseHostArguments } from './host.ts';
import { LAUNCHER_CONFIGURATION_PATH, parseLauncherConfiguration } from './launcher-configuration.ts';
import { resolveSessionName } from './names.ts';
import { nearest } from './nearest.ts';
import { didYouMean, InvalidText, MOST_PROBLEMS, type Path, type Problem } from './problem.ts';
import * as schema from './schema.ts';
import { oneTimePasswordReference, variantsOf } from './service.ts';
import type { YamlText } from './yaml.ts';

const hostName = /^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?$/;

/** What one session may make the CAS do: an RSA key takes it up to a second. */
const MOST_SECRETS = 2000;
const MOST_RSA_KEYS = 16;
const MOST_SECRET_BYTES = 8 * 1024 * 1024;

/** What the schema of single values cannot see: references, duplicates, combinations. */
export function check(
  session: schema.Session,
  yaml: YamlText,
): { errors: Problem[]; warnings: Problem[]; unsupported: Problem[] } {
  const errors: Problem[] = [];
  const warnings: Problem[] = [];
  const unsupported: Problem[] = [];
  /** @param meant gives a guess; not asked once there are enough errors, since guessing takes long */
  const error = (path: Path, message: string, meant?: () => string | undefined) => {
    if (errors.length < MOST_PROBLEMS)
      errors.push({ ...yaml.problem(path, message), ...didYouMean(meant?.()) });
  };
  const refuse = (path: Path, what: string) => {
    if (unsupported.length < MOST_PROBLEMS)
      unsupported.push(yaml.problem(path, `${what}: a CAS of this version takes no such session`));
  };
  const warn = (path: Path, message: string) => {
    if (warnings.length < MOST_PROBLEMS) warnings.push(yaml.problem(path, message, 'warning'));
  };
  // What is said by a variable is known only when it is used.
  const security = typeof session.security === 'string' ? undefined : session.security;
  const attestation = typeof security?.attestation === 'string' ? undefined : security?.attestation;

  const unique = (list: readonly { name: string }[], key: string) => {
    const seen = new Set<string>();
    list.forEach(({ name }, index) => {
      if (seen.has(name)) error([key, index, 'name'], `there are two ${key} of the name ${name}`);
      seen.add(name);
    });
  };
  unique(session.services, 'services');
  unique(session.images, 'images');
  unique(session.secrets, 'secrets');
  unique(session.volumes, 'volumes');
  if (session.secrets.length > MOST_SECRETS)
    error(['secrets'], `expected at most ${MOST_SECRETS} secrets, found ${session.secrets.length}`);
  const isRsa = (secret: schema.SecretDefinition) =>
    'key_type' in secret && secret.key_type?.startsWith('RSA');
  if (session.secrets.filter(isRsa).length > MOST_RSA_KEYS)
    error(['secrets'], `expected at most ${MOST_RSA_KEYS} RSA keys; others are made much faster`);
  const generated = session.secrets.map((secret) => Number(('size' in secret && secret.size) || 0));
  if (generated.reduce((sum, size) => sum + size, 0) > MOST_SECRET_BYTES)
    error(['secrets'], `the sizes of all secrets are more than ${MOST_SECRET_BYTES} together`);

  const secrets = new Map(session.secrets.map((secret) => [secret.name, secret]));
  const nameOf = ({ text }: Reference) => splitReference(text, (name) => secrets.has(name));
  const checkReference = (reference: Reference, path: Path, place: 'text' | 'file' | 'policy') => {
    const { name, format } = nameOf(reference);
    const secret = secrets.get(name);
    if (!secret)
      return error(path, `there is no secret ${JSON.stringify(name)} in this session`, () =>
        nearest(name, secrets.keys()),
      );
    // The kind of an imported secret may be unknown here.
    if (secret.kind === undefined) return;
    const found = formatOf(secret.kind, format);
    if (!found)
      error(
        path,
        `${name} is of kind ${secret.kind}, which has no format ${format || '(none)'}; it has: ${formatsOf(
          secret.kind,
        )
          .map((known) => known || '(none)')
          .join(' ')}`,
      );
    else if (found.raw && (place === 'text' || reference.escape))
      error(
        path,
        `raw bytes cannot stand in an argument, variable or JSON; add a format such as :hex to ${name}`,
      );
  };
  const partsOf = (template: string, path: Path): Part[] => {
    try {
      return parseTemplate(Buffer.from(template));
    } catch (thrown) {
      if (!(thrown instanceof TemplateError)) throw thrown;
      error(path, thrown.message);
      return [];
    }
  };
  const checkTemplate = (template: string | null, path: Path, place: 'text' | 'file' | 'policy') => {
    for (const part of partsOf(template ?? '', path))
      if (!Buffer.isBuffer(part)) checkReference(part, path, place);
  };
  const checkSharedSecret = (value: string | undefined, path: Path) => {
    if (value === undefined) return;
    const [only, ...more] = partsOf(value, path);
    let literal: string | undefined = value;
    if (only && !Buffer.isBuffer(only)) {
      if (more.length > 0) return error(path, 'expected base32, or one reference to a secret');
      const { name, format } = nameOf(only);
      const secret = secrets.get(name);
      checkReference(only, path, 'file');
      literal = undefined;
      if (secret && !schema.isImported(secret) && secret.kind === 'binary') {
        if (format !== ':base32nopad') warn(path, `the bytes of ${name} are used; write :base32nopad`);
        const bytes =
          secret.value === undefined ? Number(secret.size ?? DEFAULT_SIZE) : secret.value.length / 2;
        if (bytes < 16) error(path, `${name} has fewer than 16 bytes, too few for one-time passwords`);
      }
      if (secret && !schema.isImported(secret) && secret.kind === 'ascii') {
        literal = secret.value;
        if (literal === undefined)
          error(path, `${name} is generated as any ASCII; for one-time passwords use kind binary, size 20`);
      }
    }
    const parsed = literal === undefined ? undefined : parseSharedSecret(literal);
    if (typeof parsed === 'string') error(path, parsed);
  };

  const checkLauncher = (image: schema.Image, content: string, path: Path) => {
    if (errors.length >= MOST_PROBLEMS) return;
    try {
      const { files } = parseLauncherConfiguration(content);
      const injected = new Set(image.injection_files.map((file) => file.path));
      for (const { from } of files)
        if (!injected.has(from)) error(path, `\`from: ${from}\` is none of the injected files`);
    } catch (thrown) {
      if (!(thrown instanceof InvalidText)) throw thrown;
      for (const problem of thrown.problems)
        error(path, `in this file, line ${problem.line}, column ${problem.column}: ${problem.message}`);
    }
  };

  /** An issuer may have an issuer, but none can be its own. */
  const checkIssuers = (start: string, path: Path) => {
    const seen = new Set([start]);
    for (
      let at = secrets.get(start);
      at && 'issuer' in at && at.issuer !== undefined;
      at = secrets.get(at.issuer)
    ) {
      if (seen.has(at.issuer)) return error(path, `${at.issuer} is issued by itself, in a circle`);
      seen.add(at.issuer);
    }
  };

  session.secrets.forEach((secret, index) => {
    const at = (...path: Path) => ['secrets', index, ...path];
    const wrong = 'value' in secret ? checkValue(secret as Parameters<typeof checkValue>[0]) : undefined;
    if (wrong) error(at('value'), wrong);
    for (const [exported, target] of (secret.export ?? []).entries()) {
      const name = target.session ?? target.namespace ?? '';
      if (target.cas_key === undefined && resolveSessionName(session.name, name) === undefined)
        error(at('export', exported), `${name} leads to no session, seen from ${session.name}`);
    }
    if (secret.export_public && secret.kind === 'private-key')
      error(
        at('export_public'),
        'a private key is not for everybody; publish a public-key secret made from it',
      );
    if ('import' in secret) {
      const { session: name } = secret.import;
      if (resolveSessionName(session.name, name) === undefined)
        error(at('import', 'session'), `${name} leads to no session, seen from ${session.name}`);
      return;
    }
    if ('import_akv' in secret) {
      refuse(at('import_akv'), 'Azure Key Vault');
      return;
    }
    const refersTo = (key: string, name: string | undefined, ...expected: string[]) => {
      if (name === undefined) return;
      const other = secrets.get(name);
      if (!other)
        error(at(key), `there is no secret ${JSON.stringify(name)} in this session`, () =>
          nearest(name, secrets.keys()),
        );
      else if (other.kind !== undefined && !expected.includes(other.kind))
        error(at(key), `${name} is of kind ${other.kind}, expected ${expected.join(' or ')}`);
    };
    if (secret.kind === 'aad-token') refuse(at('kind'), 'tokens of Azure Active Directory');
    if (secret.kind === 'jwt') {
      refersTo('signer', secret.signer, 'private-key');
      const signer = secrets.get(secret.signer);
      if (signer?.kind === 'private-key' && 'key_type' in signer && signer.key_type !== 'P-384')
        error(at('signer'), `${secret.signer} is of key_type ${signer.key_type}; ES384 takes a key of P-384`);
      for (const [claim, value] of Object.entries(secret.payload)) {
        if (!value.includes('$$') || value === schema.SOFTWARE_IDENTITY) continue;
        const parts = partsOf(value, at('payload', claim));
        const [only] = parts;
        if (parts.length !== 1 || !only || Buffer.isBuffer(only) || only.escape)
          error(at('payload', claim), 'a claim is a text, or one variable and nothing else');
        else checkReference(only, at('payload', claim), 'text');
      }
    }
    if (secret.kind === 'public-key') {
      refersTo('private_key', secret.private_key, 'private-key');
      if ((secret.private_key === undefined) === (secret.value === undefined))
        error(at(), 'expected one of private_key and value');
    }
    if (secret.kind === 'x509' || secret.kind === 'x509-ca') {
      refersTo('private_key', secret.private_key, 'private-key');
      refersTo('issuer', secret.issuer, 'x509-ca');
      if (secret.private_key === undefined && secret.value === undefined)
        error(at(), 'the key "private_key" is missing: which key is the certificate for?');
      if (secret.value !== undefined && secret.issuer !== undefined)
        error(at('issuer'), 'a certificate that is given has its issuers after it, and no issuer here');
      checkIssuers(secret.name, at('issuer'));
    }
    if (secret.kind === 'x509') {
      if (secret.dns !== undefined && secret.endpoint === 'client')
        error(at('dns'), 'a client certificate has no host names');
      secret.san?.forEach((name, position) => {
        const [, type, value = ''] = /^(dns|ip):(.*)$/s.exec(name) ?? [];
        if (type === 'ip' ? isIP(value) === 0 || value.includes('%') : !hostName.test(value))
          error(at('san', position), 'expected "dns:" and a host name, or "ip:" and an address');
      });
      secret.dns?.forEach((name, position) => {
        if (!hostName.test(name)) error(at('dns', position), 'expected a host name');
      });
    }
  });

  if (session.secret_config?.store_in && '!akv' in session.secret_config.store_in)
    refuse(['secret_config', 'store_in'], 'Azure Key Vault');
  if (attestation?.mode === 'maa') refuse(['security', 'attestation', 'mode'], 'attestation mode maa');
  if (attestation?.must_be_sgx_local)
    refuse(['security', 'attestation', 'must_be_sgx_local'], 'local attestation');
  if (security?.service_access_token !== undefined)
    checkTemplate(security.service_access_token, ['security', 'service_access_token'], 'text');
  if (security?.service_access_token === '')
    error(['security', 'service_access_token'], 'an empty token is none');
  if (security?.singleton_enclaves === true && attestation?.mode === 'none')
    error(
      ['security', 'singleton_enclaves'],
      'a process is known by Evidence alone, which attestation mode none does not ask for',
    );
  const checkValues = (value: unknown, path: Path): void => {
    if (typeof value === 'string') checkTemplate(value, path, 'policy');
    else if (typeof value === 'object' && value !== null)
      for (const [key, item] of Object.entries(value))
        checkValues(item, [...path, Array.isArray(value) ? Number(key) : key]);
  };
  checkValues(session.access_policy, ['access_policy']);
  if (!security) checkValues(session.security, ['security']);

  const images = new Set(session.images.map(({ name }) => name));
  session.images.forEach((image, index) => {
    const paths = new Set<string>();
    image.injection_files.forEach((file, fileIndex) => {
      const at = ['images', index, 'injection_files', fileIndex];
      if (paths.has(file.path)) error(at, `the file ${file.path} is injected twice`);
      paths.add(file.path);
      checkTemplate(file.content ?? null, [...at, 'content'], 'file');
      if (file.path === LAUNCHER_CONFIGURATION_PATH && file.content !== undefined)
        checkLauncher(image, file.content, [...at, 'content']);
    });
    image.provide_secrets?.forEach((name, nameIndex) => {
      if (!secrets.has(name))
        error(['images', index, 'provide_secrets', nameIndex], `there is no secret ${name} in this session`);
    });
  });

  checkSharedSecret(attestation?.one_time_password_shared_secret, [
    'security',
    'attestation',
    'one_time_password_shared_secret',
  ]);
  session.services.forEach((service, index) => {
    const at = (...path: Path) => ['services', index, ...path];
    if (service.image_name !== undefined && !images.has(service.image_name))
      error(at('image_name'), `there is no image ${JSON.stringify(service.image_name)} in this session`);

    const positions = new Set<number>();
    service.command.forEach((word) => {
      checkTemplate(word, at('command'), 'text');
      for (const part of parseHostArguments(word)) {
        if (typeof part === 'string') continue;
        if (positions.has(part.argument)) error(at('command'), `@@${part.argument} is used twice`);
        positions.add(part.argument);
      }
    });
    const variables = new Set<string>();
    for (const [key, value] of Object.entries(service.environment ?? {})) {
      const name = hostVariable(key) ?? key;
      if (variables.has(name)) error(at('environment', key), `the variable ${name} is given twice`);
      variables.add(name);
      if (hostVariable(key) === undefined) checkTemplate(value, at('environment', key), 'text');
    }

    checkSharedSecret(service.one_time_password_shared_secret, at('one_time_password_shared_secret'));
    checkValues(service.platforms, at('platforms'));
    checkValues(service.mrenclaves, at('mrenclaves'));
    if (typeof service.attestation === 'string') checkValues(service.attestation, at('attestation'));
    for (const variant of variantsOf(service)) checkValues(variant.mrenclave ?? [], at('attestation'));
    const inVariants = variantsOf(service).map((variant) => variant.one_time_password_shared_secret);
    for (const value of inVariants) checkSharedSecret(value, at('attestation'));
    const own = service.one_time_password_shared_secret;
    if (inVariants.some((value) => value !== inVariants[0] || (own && value && value !== own)))
      error(
        at('attestation'),
        'a service has one shared secret for one-time passwords, the same for every variant',
      );

    const { attestation: variants } = service;
    if (attestation?.mode === 'hardware' && variants.length + service.mrenclaves.length === 0)
      error(at('name'), `no launcher is admitted: give the service an \`attestation\` with \`mrenclave\``);
    if (
      attestation?.mode === 'none' &&
      oneTimePasswordReference(session, service) === undefined &&
      security?.service_access_token === undefined
    )
      warn(
        at('name'),
        'attestation mode is none and no second factor is asked for: whoever reaches the CAS can start this service, and is given what it is given',
      );
  });
  if (attestation?.ignore_advisories.includes('*') && !attestation.tolerate.includes('debug-mode'))
    warn(
      ['security', 'attestation', 'ignore_advisories'],
      '"*" ignores every advisory, those to come included, also for launchers that are not in debug mode',
    );
  return { errors, warnings, unsupported };
}
