import { readFileSync } from 'node:fs';
import { failure, reason } from '../errors.ts';
import type { Configuration } from '../protocol/launch.ts';
import type { TypedSecret } from '../secrets/kinds.ts';
import { Secret } from '../secrets/secret.ts';
import { substitute, TemplateError } from '../secrets/substitute.ts';
import { CONFIGURATION_PATH, parseLauncherConfiguration } from './configuration.ts';
import type { Settings } from './settings.ts';

/** Everything that a launch will do, decided before any of it is done. */
export interface Launch {
  program: string;
  arguments: string[];
  environment: Record<string, string>;
  pwd: string | undefined;
  /** Files to write: absolute path and content. */
  files: { to: string; content: Buffer }[];
}

/**
 * Puts together what was released with what the host offers.
 * @throws Failure LAUNCHER_CONFIG_*, FILE_NOT_INJECTED, FILE_UNREADABLE, TEMPLATE_INVALID,
 *   HOST_ARGUMENT_MISSING or NUL_BYTE
 */
export function assemble(configuration: Configuration, settings: Settings): Launch {
  const injected = injectedFiles(configuration);
  const own = injected.get(CONFIGURATION_PATH);
  if (!own) throw failure('LAUNCHER_CONFIG_MISSING');
  const { program, files } = parseLauncherConfiguration(own);

  const environment: Record<string, string> = { ...configuration.environment };
  for (const name of configuration.hostEnvironment) environment[name] = settings.hostEnvironment[name] ?? '';
  for (const [name, value] of Object.entries(environment)) withoutNul(value, `the variable ${name}`);

  return {
    program,
    // The first word of the command is the launcher's own name.
    arguments: configuration.command
      .slice(1)
      .map((parts, index) =>
        withoutNul(
          parts
            .map((part) => (typeof part === 'string' ? part : hostArgument(settings, part.argument)))
            .join(''),
          `argument ${index + 1}`,
        ),
      ),
    environment,
    pwd: configuration.pwd,
    files: files.map(({ from, to }) => {
      const content = injected.get(from);
      if (!content)
        throw failure('FILE_NOT_INJECTED', { path: from, paths: [...injected.keys()].join(', ') });
      return { to, content };
    }),
  };
}

/** Contents by path. A file without content is a template on this host, whose references are filled in here. */
function injectedFiles({ files, secrets }: Configuration): Map<string, Buffer> {
  const provided = new Map<string, TypedSecret>(
    secrets.map(({ name, kind, value }) => [name, { kind, secret: new Secret(value) }]),
  );
  return new Map(files.map(({ path, content }) => [path, content ?? fillTemplate(path, provided)]));
}

function fillTemplate(path: string, secrets: ReadonlyMap<string, TypedSecret>): Buffer {
  let template: Buffer;
  try {
    template = readFileSync(path);
  } catch (error) {
    throw failure('FILE_UNREADABLE', { path, detail: reason(error) });
  }
  try {
    return substitute(template, secrets);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw failure('TEMPLATE_INVALID', { place: path, detail: error.message });
  }
}

function hostArgument({ hostArguments }: Settings, number: number): string {
  const value = hostArguments[number - 1];
  if (value === undefined) throw failure('HOST_ARGUMENT_MISSING', { number, count: hostArguments.length });
  return value;
}

function withoutNul(value: string, place: string): string {
  if (value.includes('\0')) throw failure('NUL_BYTE', { place });
  return value;
}
