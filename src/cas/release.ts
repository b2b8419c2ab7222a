import { isUtf8 } from 'node:buffer';
import { appraise, chained } from '../attestation/appraise.ts';
import type { Claims } from '../attestation/claims.ts';
import { causes, Failure, failure } from '../errors.ts';
import { hostVariable, parseHostArguments } from '../policy/host.ts';
import type { Service } from '../policy/session.ts';
import type { ConfigurationMessage, GrantedMessage } from '../protocol/launch.ts';
import { formatsOf, SecretUnusable } from '../secrets/kinds.ts';
import { partsOf, placed, substitution, TemplateError, TooLarge } from '../secrets/substitute.ts';
import { type Admission, admissionOf, evidenceDemandOf, factorsOf } from './admission.ts';
import type { Cas } from './cas.ts';
import { decidingSecrets } from './deciding.ts';
import { checkAge, verifyLaunchEvidence } from './evidence.ts';
import { collectForms, type Forms } from './expand.ts';
import { formatted } from './format.ts';
import { injectionOf } from './injection.ts';
import { BYTES_OF_STEP, inPieces } from './limits/pace.ts';
import { metrics, since } from './observe/metrics.ts';
import { type Step, step, traced } from './observe/tracing.ts';
import { trustedPlatforms } from './owner/owner.ts';
import {
  checkAccessToken,
  checkOneTimePassword,
  checkSingleton,
  type LaunchAttempt,
} from './second-factors.ts';
import { createResolver, type Recipient, type Resolver } from './secrets.ts';
import { requireService, type SessionVersion } from './versions.ts';

/**
 * Decides one launch, and records what was decided, and on which grounds, before anybody is told.
 * @throws Failure with the reason of a refusal, or Challenge
 */
export function release(cas: Cas, attempt: LaunchAttempt): Promise<GrantedMessage> {
  return traced('release', () => decideAndRecord(cas, attempt));
}

/** How often a decision is made anew since what it rests on has changed meanwhile. */
const TRIES = 4;

async function decideAndRecord(cas: Cas, attempt: LaunchAttempt): Promise<GrantedMessage> {
  let grounds: Grounds = { factors: [] };
  const { session, service } = attempt.request;
  const start = performance.now();
  const about = () => ({ session, service, ...shown(grounds), source: attempt.connection.source });
  try {
    let granted = await decide(cas, attempt, grounds);
    for (let tries = 1; !(await isPresent(cas, grounds)); tries++) {
      if (tries === TRIES) throw failure('CAS_BUSY', new Error('its sessions change all the time'));
      grounds = { factors: [] };
      granted = await decide(cas, attempt, grounds);
    }
    await step('audit', () => cas.audit.record({ operation: 'service_released', ...about() }));
    cas.log.info(about(), 'released');
    metrics.released({ root: grounds.claims?.root ?? 'none' });
    metrics.releaseSeconds({ outcome: 'released' }, since(start));
    return granted;
  } catch (error) {
    if (error instanceof Failure) {
      const { code } = error;
      await step('audit', () => cas.audit.recordRefusal({ operation: 'service_refused', code, ...about() }));
      metrics.releaseSeconds({ outcome: 'refused' }, since(start));
    }
    throw error;
  }
}

/** Whether no session has changed since a decision has read it: what was confirmed meanwhile is in force. */
async function isPresent(cas: Cas, { sessions }: Grounds): Promise<boolean> {
  const read = (await sessions?.()) ?? new Map();
  const newest = await cas.store.newest([...read.keys()]);
  return [...read].every(([name, number]) => newest.get(name) === number);
}

/** What a decision rests on, as far as it has come. */
interface Grounds {
  version?: number;
  /** Numbers of the versions that it has read, by session; undefined for one that is not there. */
  sessions?: () => Promise<Map<string, number | undefined>>;
  claims?: Claims | undefined;
  /** Second factors that were shown, by kind. */
  factors: ('access token' | 'first of its process' | 'one-time password')[];
  /** How often the same launch came before with what is good once. */
  repetition?: number;
}

/** As it is written down: who asked, by what the Evidence says, and nothing that is secret. */
function shown({ version, claims, factors, repetition }: Grounds): object {
  return {
    version,
    factors,
    ...(repetition && { repetition }),
    ...(claims && {
      root: claims.root,
      measurement: claims.measurement,
      platform: claims.platform,
      debug: claims.debug,
      properties: claims.properties,
      weaknesses: claims.weaknesses,
      advisories: claims.advisories,
      process: claims.process,
      cgroup: claims.cgroup,
      credentials: claims.credentials,
    }),
  };
}

/**
 * The decision, in the order: is there such a service; does the Evidence verify, where any is asked for; is the
 * launcher admitted; are the second factors right, what can be used up last. Nobody who would not be admitted anyway can guess
 * a one-time password, or use one up. Variables of the policy are filled in where they are needed, and secrets touched last.
 *
 * @throws Failure with the reason of a refusal, or Challenge
 */
async function decide(cas: Cas, attempt: LaunchAttempt, grounds: Grounds): Promise<GrantedMessage> {
  const { request, interest } = attempt;
  const { session: sessionName, service: serviceName } = request;
  interest?.session(sessionName);
  const { version, service } = await step('session', () => requireService(cas, request));
  grounds.version = version.number;
  const recipient: Recipient = {};
  const resolver = createResolver(cas, recipient, interest);
  grounds.sessions = async () => (await resolver.sessions()).set(sessionName, version.number);
  const known = <Result>(
    what: Step,
    find: (...about: [Resolver, SessionVersion, Service]) => Promise<Result>,
  ) =>
    step(what, () => find(resolver, version, service)).catch((error: unknown) => {
      if (!(error instanceof Failure)) throw error;
      // What of the policy it is about is for those who may read it.
      cas.log.warn({ session: sessionName, service: serviceName, error: causes(error) }, 'policy not usable');
      throw error.code === 'CAS_BUSY' ? error : failure('ADMISSION_UNKNOWN');
    });
  const demand = await known('mode', evidenceDemandOf);
  const claims =
    demand.mode === 'none' ? undefined : await step('evidence', () => verifyLaunchEvidence(cas, attempt));
  grounds.claims = claims;
  // Before it is looked at: what an old quote says of the machine may be wrong by now.
  checkAge(cas, attempt, claims, demand.maxQuoteAge);
  if (demand.mode !== 'none' && !claims) throw failure('EVIDENCE_MISSING');
  const admission = await known('admission', admissionOf);
  checkAge(cas, attempt, claims, admission.maxQuoteAge);
  const trusted = claims ? await trustedPlatforms(cas) : [];
  await step('appraisal', async () => admit(trusted, admission, claims));
  const { oneTimePassword, accessToken } = await known('factors', factorsOf);
  const proof = await step('second factors', async () => {
    const proof = await checkAccessToken(cas, accessToken, attempt);
    if (proof) grounds.factors.push('access token');
    const asProcess = await checkSingleton(cas, admission.singleton, attempt, claims);
    if (admission.singleton) grounds.factors.push('first of its process');
    const byCode = await checkOneTimePassword(cas, { ...admission, oneTimePassword }, attempt, claims);
    grounds.repetition = Math.max(asProcess, byCode);
    if (oneTimePassword !== undefined) grounds.factors.push('one-time password');
    return proof;
  });
  if (claims)
    recipient.launcher = {
      measurement: claims.measurement,
      session: sessionName,
      isTrustedByOperator: trusted.includes(claims.platform) || isProvenToAnybody(claims),
    };

  const configuration = await step('configuration', () => configurationOf(cas, resolver, version, service));
  return { configuration, ...(proof && { accessToken: proof.toString('base64') }) };
}

/** Whether an enclave has proven itself whatever the policy tolerates, and whichever machine its author names. */
function isProvenToAnybody({ root, debug, weaknesses = [], advisories = [] }: Claims): boolean {
  return root === 'sgx' && !debug && weaknesses.length === 0 && advisories.length === 0;
}

/** @throws Failure of the first factor that failed, the others as its causes */
function admit(trusted: readonly string[], admission: Admission, claims: Claims | undefined): void {
  const refusals = appraise(
    { ...admission, trustedPlatforms: [...trusted, ...admission.trustedPlatforms] },
    claims,
  );
  const chain = chained(refusals);
  if (chain) throw chain;
}

/** Bytes of one configuration, secrets included. */
const LARGEST_CONFIGURATION = 8 * 1024 * 1024;

/**
 * The service's configuration with secrets in their places.
 * @throws Failure CONFIGURATION_TOO_LARGE, NOT_SUPPORTED or SECRET_UNAVAILABLE
 */
async function configurationOf(
  cas: Cas,
  resolver: Resolver,
  version: SessionVersion,
  service: Service,
): Promise<ConfigurationMessage> {
  const { image, launcher, files, refusal } = injectionOf(version, service);
  if (refusal) throw refusal;
  const variables = Object.entries(service.environment ?? {});
  const policyVariables = variables.filter(([key]) => hostVariable(key) === undefined);

  const forms: Forms = new Map();
  const templates = [
    ...service.command,
    ...policyVariables.map(([, value]) => value ?? ''),
    ...files.map(({ content }) => content ?? ''),
  ];
  await step('secrets', async () => {
    for (const template of templates) await collectForms(resolver, version, template, forms);
  });

  let room = LARGEST_CONFIGURATION;
  const fill = async (template: string) => {
    await resolver.pace();
    const filled = await inPieces(resolver.pace, substitution(Buffer.from(template), forms, room));
    room -= filled.length;
    return filled;
  };
  const fillText = async (template: string, place: string) => {
    const filled = await fill(template);
    // An imported secret is known only now.
    if (isUtf8(filled)) return filled.toString();
    throw failure('POLICY_UNUSABLE', {
      section: place,
      detail: 'raw bytes cannot stand in an argument or variable',
    });
  };
  const onHost = files.some(({ content }) => content === undefined)
    ? await provided(cas, resolver, version, image?.provide_secrets)
    : [];
  try {
    const command: ConfigurationMessage['command'] = [];
    for (const word of service.command) {
      const parts: (typeof command)[number] = [];
      // Host arguments are found in the policy's text, before any secret stands in it.
      for (const part of parseHostArguments(word))
        parts.push(typeof part === 'string' ? await fillText(part, 'command') : part);
      command.push(parts);
    }
    const environment: [string, string][] = [];
    for (const [name, value] of policyVariables)
      environment.push([name, await fillText(value ?? '', `environment.${name}`)]);
    const filled: ConfigurationMessage['files'] = [];
    for (const { path, content } of files)
      filled.push(
        content === undefined ? { path } : { path, content: (await fill(content)).toString('base64') },
      );
    const others = onHost.map(({ value }) => value);
    return {
      command,
      environment: Object.fromEntries(environment),
      hostEnvironment: variables.flatMap(([key]) => hostVariable(key) ?? []),
      ...(service.pwd === undefined ? {} : { pwd: service.pwd }),
      ...(launcher && { launcher }),
      files: filled,
      secrets: onHost,
      ...(launcher?.supervise?.redact && {
        redact: await inPieces(resolver.pace, releasedForms(templates, forms, others)),
      }),
    };
  } catch (error) {
    if (error instanceof TemplateError)
      throw failure('POLICY_UNUSABLE', { section: 'a variable', detail: error.message });
    if (!(error instanceof TooLarge)) throw error;
    throw failure('CONFIGURATION_TOO_LARGE', { limit: LARGEST_CONFIGURATION });
  }
}

/** What of a configuration is secret, as it stands there, in base64. */
function* releasedForms(
  templates: readonly string[],
  forms: Forms,
  others: readonly string[],
): Generator<number, string[]> {
  const released = new Set<string>();
  const steps = (form: string) => 1 + form.length / BYTES_OF_STEP;
  for (const form of others) {
    released.add(form);
    yield steps(form);
  }
  for (const template of templates)
    for (const part of partsOf(Buffer.from(template))) {
      const form = Buffer.isBuffer(part) ? '' : placed(part, forms).toString('base64');
      released.add(form);
      yield steps(form);
    }
  released.delete('');
  return [...released];
}

/**
 * What templates on the launcher's file system may refer to, in every form: the secrets that the image provides;
 * by default all but those that decide over launches, which no program needs.
 */
async function provided(cas: Cas, resolver: Resolver, version: SessionVersion, names: string[] | undefined) {
  const { session } = version;
  const factors = names ? new Set<string>() : await decidingSecrets(cas, version, resolver);
  const forms: ConfigurationMessage['secrets'] = [];
  for (const { name } of session.secrets) {
    if (names ? !names.includes(name) : factors.has(name)) continue;
    const { secret } = await resolver.find(version, name);
    for (const format of formatsOf(secret.kind))
      try {
        const form = await formatted(secret, format);
        await resolver.hold(form.length);
        forms.push({ reference: `${name}${format}`, value: form.toString('base64') });
      } catch (error) {
        // A certificate whose key is not exported has fewer forms.
        if (!(error instanceof SecretUnusable)) throw error;
      }
  }
  return forms;
}
