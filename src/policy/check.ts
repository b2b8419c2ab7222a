import { checkDefinition, DEFAULT_SIZE, formatOf, formatsOf } from '../secrets/kinds.ts';
import { parseSharedSecret } from '../secrets/one-time-password.ts';
import { type Part, parseTemplate, type Reference, TemplateError } from '../secrets/substitute.ts';
import { hostVariable, parseHostArguments } from './host.ts';
import { LAUNCHER_CONFIGURATION_PATH, parseLauncherConfiguration } from './launcher-configuration.ts';
import { InvalidText, MOST_PROBLEMS, type Path, type Problem } from './problem.ts';
import type * as schema from './schema.ts';
import { admittedMeasurements, oneTimePasswordReference } from './service.ts';
import type { YamlText } from './yaml.ts';

/** What the schema of single values cannot see: references, duplicates, combinations. */
export function check(session: schema.Session, yaml: YamlText): { errors: Problem[]; warnings: Problem[] } {
  const errors: Problem[] = [];
  const warnings: Problem[] = [];
  const error = (path: Path, message: string) => {
    if (errors.length < MOST_PROBLEMS) errors.push(yaml.problem(path, message));
  };
  const warn = (path: Path, message: string) => {
    if (warnings.length < MOST_PROBLEMS) warnings.push(yaml.problem(path, message, 'warning'));
  };
  const { attestation } = session.security;

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

  const secrets = new Map(session.secrets.map((secret) => [secret.name, secret]));
  const checkReference = ({ name, format }: Reference, path: Path, place: 'text' | 'file') => {
    const secret = secrets.get(name);
    if (!secret) return error(path, `there is no secret ${JSON.stringify(name)} in this session`);
    const found = formatOf(secret.kind, format);
    if (!found)
      error(
        path,
        `${name} is of kind ${secret.kind}, which has no format ${format}; it has: ${formatsOf(secret.kind).join(' ')}`,
      );
    else if (found.raw && place === 'text')
      error(path, `raw bytes cannot stand in an argument or variable; add a format such as :hex to ${name}`);
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
  const checkTemplate = (template: string | null, path: Path, place: 'text' | 'file') => {
    for (const part of partsOf(template ?? '', path))
      if (!Buffer.isBuffer(part)) checkReference(part, path, place);
  };
  const checkSharedSecret = (value: string | undefined, path: Path) => {
    if (value === undefined) return;
    const [only, ...more] = partsOf(value, path);
    let literal: string | undefined = value;
    if (only && !Buffer.isBuffer(only)) {
      if (more.length > 0) return error(path, 'expected base32, or one reference to a secret');
      const secret = secrets.get(only.name);
      checkReference(only, path, 'file');
      if (secret?.kind === 'binary') {
        if (only.format !== ':base32nopad')
          warn(path, `the bytes of ${only.name} are used; write :base32nopad`);
        const bytes = secret.value === undefined ? (secret.size ?? DEFAULT_SIZE) : secret.value.length / 2;
        if (bytes < 16) error(path, `${only.name} has fewer than 16 bytes, too few for one-time passwords`);
      }
      literal = secret?.kind === 'ascii' ? secret.value : undefined;
      if (secret?.kind === 'ascii' && literal === undefined)
        error(
          path,
          `${only.name} is generated as any ASCII; for one-time passwords use kind binary, size 20`,
        );
    }
    const parsed = literal === undefined ? undefined : parseSharedSecret(literal);
    if (typeof parsed === 'string') error(path, parsed);
  };

  const checkLauncher = (image: schema.Image, content: string, path: Path) => {
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

  session.secrets.forEach((secret, index) => {
    const wrong = checkDefinition(secret);
    if (wrong) error(['secrets', index, 'value'], wrong);
  });

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

  checkSharedSecret(attestation.one_time_password_shared_secret, [
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
    const inVariants = service.attestation.map((variant) => variant.one_time_password_shared_secret);
    for (const value of inVariants) checkSharedSecret(value, at('attestation'));
    const own = service.one_time_password_shared_secret;
    if (inVariants.some((value) => value !== inVariants[0] || (own && value && value !== own)))
      error(
        at('attestation'),
        'a service has one shared secret for one-time passwords, the same for every variant',
      );

    if (attestation.mode === 'hardware' && admittedMeasurements(service).length === 0)
      error(at('name'), `no launcher is admitted: give the service an \`attestation\` with \`mrenclave\``);
    if (attestation.mode === 'none' && oneTimePasswordReference(session, service) === undefined)
      warn(
        at('name'),
        'attestation mode is none and no second factor is asked for: whoever reaches the CAS can start this service, and is given what it is given',
      );
  });
  if (attestation.ignore_advisories.includes('*') && !attestation.tolerate.includes('debug-mode'))
    warn(
      ['security', 'attestation', 'ignore_advisories'],
      '"*" ignores every advisory, those to come included, also for launchers that are not in debug mode',
    );
  return { errors, warnings };
}
