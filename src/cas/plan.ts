import { failure } from '../errors.ts';
import { hostVariable, parseHostArguments } from '../policy/host.ts';
import type { ServiceName } from '../policy/names.ts';
import {
  defaultModes,
  LAUNCHER_CONFIGURATION_PATH,
  type LauncherConfiguration,
  supervisionDefaults,
} from '../policy/schema/launcher.ts';
import { partsOf, TemplateError } from '../secrets/substitute.ts';
import { authorize, type Client } from './access.ts';
import type { Cas } from './cas.ts';
import { injectionOf } from './injection.ts';
import { createPace } from './limits/pace.ts';
import { createSecretSources, type SecretSource } from './secret-source.ts';
import { requireService } from './versions.ts';

/** What something that a program is given is made of. What that holds is never said, secret or not. */
export type Source =
  /** Text that stands in the policy. */
  | { from: 'policy' }
  | SecretSource
  | { from: 'host-argument'; argument: number }
  | { from: 'host-variable'; variable: string }
  /** A template on the launcher's host. */
  | { from: 'host-file'; path: string };

/** Characters of what is said of the secrets of one service. */
const LARGEST = 2 * 1024 * 1024;

/**
 * What a launch of a service would do, for whoever may read the session. No secret is made, issued or asked for, so it
 * is said of services as well that cannot be launched at present; `problems` says why.
 * @throws Failure SESSION_NOT_FOUND, SERVICE_NOT_FOUND or ACCESS_DENIED
 */
export async function planLaunch(cas: Cas, named: ServiceName, client: Client): Promise<object> {
  const { version, service } = await requireService(cas, named);
  await authorize(cas, version, 'read', client);
  const pace = createPace();
  const secretSource = createSecretSources(cas, pace);
  const { image, launcher, files: given, refusal } = injectionOf(version, service);
  const problems = new Set<string>();
  if (refusal) problems.add(refusal.message);

  let size = 0;
  const counted = <One extends Source>(source: One): One => {
    for (const value of Object.values(source)) size += String(value).length + 32;
    if (size > LARGEST) throw failure('CONFIGURATION_TOO_LARGE', { limit: LARGEST });
    return source;
  };
  /** @param isGiven false where it is not part of a launch */
  const ofSecret = async (reference: string, isGiven = true) => {
    const source = await secretSource(version, reference);
    const { secret, unavailable } = source;
    if (isGiven && unavailable !== null)
      problems.add(
        failure('SECRET_UNAVAILABLE', { secret, session: version.session.name, detail: unavailable }).message,
      );
    return counted(source);
  };
  const ofTemplate = async (template: string, isGiven = true): Promise<Source[]> => {
    const sources = new Map<string, Source>();
    try {
      for (const part of partsOf(Buffer.from(template))) {
        const turn = pace();
        if (turn) await turn;
        if (Buffer.isBuffer(part)) sources.set('', { from: 'policy' });
        else if (!sources.has(part.text)) sources.set(part.text, await ofSecret(part.text, isGiven));
      }
    } catch (error) {
      if (!(error instanceof TemplateError)) throw error;
      if (isGiven) problems.add(error.message);
    }
    return sources.size === 0 ? [{ from: 'policy' }] : [...sources.values()];
  };

  const words: Source[][] = [];
  for (const word of service.command) {
    const sources: Source[] = [];
    for (const part of parseHostArguments(word))
      if (typeof part !== 'string') sources.push({ from: 'host-argument', ...part });
      else for (const source of await ofTemplate(part)) sources.push(source);
    words.push(distinct(sources));
  }
  const environment: { name: string; sources: Source[] }[] = [];
  for (const [key, value] of Object.entries(service.environment ?? {})) {
    const variable = hostVariable(key);
    environment.push(
      variable === undefined
        ? { name: key, sources: await ofTemplate(value ?? '') }
        : { name: variable, sources: [{ from: 'host-variable', variable }] },
    );
  }
  const injected = new Map<string, Source[]>();
  const isGiven = new Set(given);
  for (const file of image?.injection_files ?? [])
    injected.set(
      file.path,
      file.content === undefined
        ? [{ from: 'host-file', path: file.path }]
        : await ofTemplate(file.content, isGiven.has(file)),
    );
  const isOnHost = given.some(
    ({ path, content }) => path === LAUNCHER_CONFIGURATION_PATH && content === undefined,
  );
  const configuration = launcher ? 'policy' : isOnHost ? 'host' : null;
  if (configuration === null && !refusal) problems.add(failure('LAUNCHER_CONFIG_MISSING').message);

  const provided: SecretSource[] = [];
  const hasTemplates = given.some(({ content }) => content === undefined);
  if (hasTemplates) for (const name of image?.provide_secrets ?? []) provided.push(await ofSecret(name));

  const { user = null, group = null, umask } = launcher ?? {};
  const files = (launcher?.injection_files ?? []).map(({ from, to, ...written }) => ({
    from,
    ...(typeof to === 'string' ? { to, fd: null } : { to: `/proc/self/fd/${to.fd}`, fd: to.fd }),
    ...ownership(written, defaultModes.file),
    generation: typeof to === 'string' ? generationOf(to) : null,
    sources: injected.get(from) ?? [],
  }));
  const written = new Set(files.map(({ from }) => from));
  function ownership({ mode, owner, group: its }: Written, usual: number) {
    return { mode: octal(mode ?? usual), owner: owner ?? user, group: its ?? group };
  }
  function generationOf(to: string): string | null {
    return launcher?.directories?.find((it) => it.generation && to.startsWith(`${it.path}/`))?.path ?? null;
  }
  return {
    session: version.session.name,
    service: service.name,
    configuration,
    program: launcher?.program ?? null,
    sha256: launcher?.sha256 !== undefined,
    user,
    group,
    umask: umask === undefined ? null : octal(umask),
    pwd: service.pwd ?? launcher?.pwd ?? null,
    // The first word of the command is the launcher's own name.
    arguments: words.slice(1).map((sources, index) => ({ number: index + 1, sources })),
    environment,
    directories: (launcher?.directories ?? []).map(({ path, generation = false, ...written }) => ({
      path,
      ...ownership(written, defaultModes.directory),
      generation,
    })),
    files,
    otherFiles: [...injected]
      .filter(([path]) => path !== LAUNCHER_CONFIGURATION_PATH && !written.has(path))
      .map(([from, sources]) => ({ from, sources })),
    providedSecrets: hasTemplates && image?.provide_secrets === undefined ? null : provided,
    supervise: launcher?.supervise ? supervisionOf(launcher.supervise) : null,
    problems: [...problems],
  };
}

type Written = { mode?: number | undefined; owner?: string | undefined; group?: string | undefined };

const octal = (bits: number) => bits.toString(8).padStart(4, '0');

function supervisionOf(written: NonNullable<LauncherConfiguration['supervise']>) {
  const { on_change, ...rest } = { splay: null, ...supervisionDefaults, ...written };
  return {
    onChange: typeof on_change === 'object' && 'command' in on_change ? commandOf(on_change) : on_change,
    killSignal: rest.kill_signal,
    killTimeout: rest.kill_timeout,
    splay: rest.splay,
    debounce: rest.debounce,
    removeFiles: rest.remove_files,
    redact: rest.redact,
  };
}

/** Its arguments are text in the policy, which is not said. */
const commandOf = ({ command: [program, ...others] }: { command: string[] }) => ({
  command: program,
  arguments: others.length,
});

/** Sources, each once, in the order in which they come first. */
function distinct(sources: Source[]): Source[] {
  return [...new Map(sources.map((source) => [JSON.stringify(source), source])).values()];
}
