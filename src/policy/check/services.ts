import { conditionsOf, referencesIn } from '../conditions.ts';
import { hostVariable, parseHostArguments } from '../host.ts';
import { nearest } from '../nearest.ts';
import type { Path } from '../problem.ts';
import type { Service } from '../schema/session.ts';
import { oneTimePasswordReference, variantsOf } from '../service.ts';
import { checkSharedSecret } from './one-time-password.ts';
import type { Scope } from './scope.ts';

type At = (...path: Path) => Path;

/** Services: what they are given, and who is admitted. */
export function checkServices(scope: Scope): void {
  const images = new Set(scope.session.images.map(({ name }) => name));
  scope.session.services.forEach((service, index) => {
    const at: At = (...path) => ['services', index, ...path];
    const { image_name } = service;
    if (image_name !== undefined && !images.has(image_name))
      scope.error(at('image_name'), `there is no image ${JSON.stringify(image_name)} in this session`, () =>
        nearest(image_name, images),
      );
    checkConfiguration(scope, service, at);
    checkAdmission(scope, service, at);
  });
  checkProvided(scope);
}

function checkConfiguration(scope: Scope, { command, environment, fspf_key }: Service, at: At): void {
  const { error } = scope;
  const positions = new Set<number>();
  for (const word of command) {
    scope.template(word, at('command'), 'text');
    for (const part of parseHostArguments(word)) {
      if (typeof part === 'string') continue;
      if (positions.has(part.argument)) error(at('command'), `@@${part.argument} is used twice`);
      positions.add(part.argument);
    }
  }
  const variables = new Set<string>();
  for (const [key, value] of Object.entries(environment ?? {})) {
    const name = hostVariable(key) ?? key;
    if (variables.has(name)) error(at('environment', key), `the variable ${name} is given twice`);
    variables.add(name);
    if (hostVariable(key) === undefined) scope.template(value, at('environment', key), 'text');
  }
  scope.values(fspf_key, at('fspf_key'));
}

const MOST_NAMED = 8;

/**
 * Secrets that the conditions of the session and its services name, also through fragments: whoever has one can meet a condition
 * with it.
 */
function decidingIn({ session, secrets, nameOf }: Scope): Set<string> {
  const namesIn = (text: string) =>
    Array.from(referencesIn(text), (reference) => nameOf({ text: reference, escape: undefined }).name);
  const deciding = new Set(namesIn(conditionsOf(session)));
  // What is added meanwhile is looked at too.
  for (const name of deciding) {
    const secret = secrets.get(name);
    if (secret && 'value' in secret && secret.kind === 'config-fragment')
      for (const named of namesIn(JSON.stringify(secret.value))) deciding.add(named);
  }
  return deciding;
}

function shown(names: readonly string[]): string {
  const [named, others] = [names.slice(0, MOST_NAMED).join(', '), names.length - MOST_NAMED];
  return others > 0 ? `${named} and ${others} others` : named;
}

/** What a template on the host may use is for whoever writes that template to choose. */
function checkProvided(scope: Scope): void {
  const { session, warn, secrets } = scope;
  const open = session.images.flatMap(({ name, injection_files, provide_secrets }, index) => {
    const template = injection_files.find(({ content }) => content === undefined);
    const services = session.services.filter(({ image_name }) => image_name === name);
    return template && services.length > 0 ? { index, template, services, provide_secrets } : [];
  });
  if (open.length === 0) return;
  const deciding = decidingIn(scope);
  const names = [...secrets.keys()].filter((name) => !deciding.has(name));
  for (const { index, template, services, provide_secrets } of open) {
    provide_secrets?.forEach((name, position) => {
      if (deciding.has(name))
        warn(
          ['images', index, 'provide_secrets', position],
          `${name} decides who is admitted, and whoever writes ${template.path} on the host may read it`,
        );
    });
    if (!provide_secrets && names.length > 0)
      warn(
        ['images', index, 'injection_files'],
        `${template.path} is a template on the host, and may give ${shown(services.map(({ name }) => name))} each of the secrets ${shown(names)}; provide_secrets of the image names those that it needs`,
      );
  }
}

function checkAdmission(scope: Scope, service: Service, at: At): void {
  const { session, security, attestation, error, warn } = scope;
  const written = variantsOf(service);
  scope.values(service.platforms, at('platforms'));
  scope.values(service.mrenclaves, at('mrenclaves'));
  if (typeof service.attestation === 'string') scope.values(service.attestation, at('attestation'));
  else
    for (const variant of service.attestation)
      if (typeof variant === 'string') scope.values(variant, at('attestation'));
  for (const variant of written) {
    const { one_time_password_shared_secret: _, ...others } = variant;
    scope.values(others, at('attestation'));
    for (const message of unmeasured(variant)) warn(at('attestation'), message);
    if (variant.run_as !== undefined && attestation?.mode === 'none')
      error(
        at('attestation'),
        'as whom a launcher runs is known by Evidence alone, which attestation mode none does not ask for',
      );
  }

  if (service.mrenclaves.length > 0 && written.some((variant) => variant.run_as !== undefined))
    warn(
      at('mrenclaves'),
      'what is named here is admitted as whomever it runs; write it in a variant with run_as',
    );

  const own = service.one_time_password_shared_secret;
  checkSharedSecret(scope, own, at('one_time_password_shared_secret'));
  const inVariants = written.map((variant) => variant.one_time_password_shared_secret);
  for (const value of inVariants) checkSharedSecret(scope, value, at('attestation'));
  if (inVariants.some((value) => value !== inVariants[0] || (own && value && value !== own)))
    error(
      at('attestation'),
      'a service has one shared secret for one-time passwords, the same for every variant',
    );

  if (attestation?.mode === 'hardware' && service.attestation.length + service.mrenclaves.length === 0)
    error(at('name'), 'no launcher is admitted: give the service an `attestation` with `mrenclave`');
  const hasSecondFactor =
    oneTimePasswordReference(session, service) !== undefined || security?.service_access_token !== undefined;
  if (attestation?.mode === 'none' && !hasSecondFactor)
    warn(
      at('name'),
      'attestation mode is none and no second factor is asked for: whoever reaches the CAS can start this service, and is given what it is given',
    );
}

/** Registers of a TPM that hold boot loader and kernel (TCG PC Client, systemd). */
const kernelRegisters = ['4', '8', '9', '10', '11'];

/** What a variant's machines leave open that decides over what runs there. */
function unmeasured({ tdx, tpm }: ReturnType<typeof variantsOf>[number]): string[] {
  return [
    ...(tdx && tdx.rtmr1 === undefined && tdx.rtmr2 === undefined
      ? ['tdx names neither rtmr1 nor rtmr2: any kernel is admitted on that firmware']
      : []),
    ...(tpm && !kernelRegisters.some((register) => register in tpm.pcrs)
      ? [
          `tpm names none of the registers ${kernelRegisters.join(', ')}: any kernel is admitted on that firmware`,
        ]
      : []),
  ];
}
