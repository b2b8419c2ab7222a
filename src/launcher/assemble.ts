import { closeSync, readSync } from 'node:fs';
import { failure, reason } from '../errors.ts';
import type { Ownership } from '../platform/ownership.ts';
import { findGroup, findUser, type User } from '../platform/users.ts';
import { defaultModes, LAUNCHER_CONFIGURATION_PATH, type Supervision } from '../policy/schema/launcher.ts';
import type { Configuration } from '../protocol/launch.ts';
import { substitute, TemplateError, TooLarge } from '../secrets/substitute.ts';
import { openFile } from './folder.ts';
import type { Settings } from './settings.ts';

/** Bytes of a file whose template is on this host, secrets included. */
const LARGEST_FILE = 16 * 1024 * 1024;

/** A file to write: the absolute path, or the descriptor that the program inherits. */
export interface FileToWrite extends Ownership {
  to: string | { fd: number };
  content: Buffer;
}

/** A folder to make where there is none. */
export interface DirectoryToMake extends Ownership {
  path: string;
  /** The path is a symbolic link to a folder of its own, which is swapped whole when a file in it changes. */
  generation: boolean;
}

/** Everything that a launch will do, decided before any of it is done. */
export interface Launch {
  program: string;
  /** SHA-256 that the program may have, hexadecimal; undefined is any. */
  sha256: string[] | undefined;
  arguments: string[];
  environment: Record<string, string>;
  pwd: string | undefined;
  umask: number | undefined;
  /** Whom the program runs as, where not as the launcher itself. */
  user: User | undefined;
  gid: number | undefined;
  directories: DirectoryToMake[];
  files: FileToWrite[];
  supervise: Supervision | undefined;
  /** Released secrets, to be kept out of the program's output. */
  redact: Buffer[] | undefined;
}

/**
 * Puts together what was released with what the host offers.
 * @throws Failure LAUNCHER_CONFIG_*, FILE_NOT_INJECTED, FILE_UNREADABLE, TEMPLATE_INVALID, USER_UNKNOWN,
 *   GROUP_UNKNOWN, HOST_ARGUMENT_MISSING or NUL_BYTE
 */
export async function assemble(configuration: Configuration, settings: Settings): Promise<Launch> {
  const forms = new Map(configuration.secrets.map(({ reference, value }) => [reference, value]));
  const injected = new Map(
    configuration.files.map(({ path, content }) => [
      path,
      content ?? fillIn(readTemplate(path), forms, path),
    ]),
  );
  const launcher = configuration.launcher ?? (await ownConfiguration(configuration));
  const { program, sha256, umask, supervise, injection_files = [], directories = [] } = launcher;
  const user = launcher.user === undefined ? undefined : findUser(launcher.user);
  const gid = launcher.group === undefined ? user?.gid : findGroup(launcher.group);
  // Else it would keep the launcher's own.
  if (user && gid === undefined)
    throw failure('GROUP_UNKNOWN', { group: `that user ${user.uid} belongs to` });
  /** What the program is given belongs to whom it runs as, unless told otherwise. */
  const ownership = (written: Written, usual: number): Ownership => ({
    mode: written.mode ?? usual,
    uid: written.owner === undefined ? user?.uid : findUser(written.owner).uid,
    gid: written.group === undefined ? gid : findGroup(written.group),
  });

  const environment: Record<string, string> = { ...configuration.environment };
  for (const name of configuration.hostEnvironment) environment[name] = settings.hostEnvironment[name] ?? '';
  for (const [name, value] of Object.entries(environment)) withoutNul(value, `the variable ${name}`);

  return {
    program,
    sha256,
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
    pwd: configuration.pwd ?? launcher.pwd,
    umask,
    user,
    gid,
    directories: directories.map(({ path, generation = false, ...written }) => ({
      path,
      generation,
      ...ownership(written, defaultModes.directory),
    })),
    files: injection_files.map(({ from, to, ...written }) => {
      const content = injected.get(from);
      if (!content)
        throw failure('FILE_NOT_INJECTED', { path: from, paths: [...injected.keys()].join(', ') });
      return { to, content, ...ownership(written, defaultModes.file) };
    }),
    supervise,
    redact: supervise?.redact ? secretsToRedact(configuration) : undefined,
  };
}

/** Only the CAS can tell what of a configuration is secret, and it does not know a file on this host. */
function secretsToRedact({ redact }: Configuration): Buffer[] {
  if (redact) return redact;
  throw failure('LAUNCHER_CONFIG_INVALID', { detail: 'supervise.redact needs it to stand in the policy' });
}

type Written = { mode?: number | undefined; owner?: string | undefined; group?: string | undefined };

/** /etc/envcas/config.yaml where it is a file on this host. Only then is a YAML parser needed here. */
async function ownConfiguration({ files }: Configuration): Promise<NonNullable<Configuration['launcher']>> {
  const { parseLauncherConfiguration } = await import('../policy/launcher-configuration.ts');
  const path = LAUNCHER_CONFIGURATION_PATH;
  if (!files.some((file) => file.path === path)) throw failure('LAUNCHER_CONFIG_MISSING');
  const content = readTemplate(path).toString();
  try {
    return parseLauncherConfiguration(content);
  } catch (error) {
    throw failure('LAUNCHER_CONFIG_INVALID', { detail: reason(error) });
  }
}

/** What whoever runs the launcher could not read by himself is not read for him. */
function readTemplate(path: string): Buffer {
  try {
    const fd = openFile(path);
    try {
      return readAll(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw failure('FILE_UNREADABLE', { path, detail: reason(error) });
  }
}

function readAll(fd: number): Buffer {
  const chunks: Buffer[] = [];
  for (let size = 0; ; ) {
    const chunk = Buffer.alloc(64 * 1024);
    const count = readSync(fd, chunk);
    if (count === 0) return Buffer.concat(chunks);
    size += count;
    if (size > LARGEST_FILE) throw new Error(`it has more than ${LARGEST_FILE} bytes`);
    chunks.push(chunk.subarray(0, count));
  }
}

function fillIn(template: Buffer, forms: ReadonlyMap<string, Buffer>, place: string): Buffer {
  try {
    return substitute(template, forms, LARGEST_FILE);
  } catch (error) {
    if (error instanceof TooLarge)
      throw failure('TEMPLATE_INVALID', { place, detail: `it has more than ${LARGEST_FILE} bytes` });
    if (!(error instanceof TemplateError)) throw error;
    throw failure('TEMPLATE_INVALID', { place, detail: error.message });
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
