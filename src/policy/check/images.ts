import { parseLauncherConfiguration } from '../launcher-configuration.ts';
import { nearest } from '../nearest.ts';
import { InvalidText, type Path } from '../problem.ts';
import type { LauncherConfiguration } from '../schema/launcher.ts';
import { LAUNCHER_CONFIGURATION_PATH } from '../schema/launcher.ts';
import type { Image } from '../schema/session.ts';
import type { Scope } from './scope.ts';

/** Images: injected files, what the launcher's configuration says of them, and volumes. */
export function checkImages(scope: Scope): void {
  const { session, error } = scope;
  const volumes = new Set(session.volumes.map(({ name }) => name));
  session.images.forEach((image, index) => {
    const at = (...path: Path) => ['images', index, ...path];
    const paths = new Set<string>();
    image.injection_files.forEach(({ path, content }, file) => {
      if (paths.has(path)) error(at('injection_files', file), `the file ${path} is injected twice`);
      paths.add(path);
      scope.template(content, at('injection_files', file, 'content'), 'file');
      if (path === LAUNCHER_CONFIGURATION_PATH && content !== undefined)
        checkLauncher(scope, image, content, at('injection_files', file, 'content'));
    });
    image.provide_secrets?.forEach((name, position) => {
      if (!scope.secrets.has(name)) scope.noSecret(at('provide_secrets', position), name);
    });
    image.volumes.forEach(({ name }, position) => {
      if (!volumes.has(name))
        error(at('volumes', position, 'name'), `there is no volume ${name} in this session`, () =>
          nearest(name, volumes),
        );
    });
  });
  session.volumes.forEach(({ fspf_key }, index) => {
    scope.values(fspf_key, ['volumes', index, 'fspf_key']);
  });
}

function checkLauncher({ error, warn, isFull }: Scope, image: Image, content: string, path: Path): void {
  if (isFull()) return;
  try {
    const launcher = parseLauncherConfiguration(content);
    const injected = new Set(image.injection_files.map((file) => file.path));
    for (const { from } of launcher.injection_files)
      if (!injected.has(from)) error(path, `\`from: ${from}\` is none of the injected files`);
    for (const message of withoutEffect(launcher)) warn(path, `in this file, ${message}`);
  } catch (thrown) {
    if (!(thrown instanceof InvalidText)) throw thrown;
    for (const { line, column, message } of thrown.problems)
      error(path, `in this file, line ${line}, column ${column}: ${message}`);
  }
}

/** What is asked for and changes nothing, so that its author may have meant more. */
function* withoutEffect({
  injection_files,
  directories = [],
  supervise = {},
}: LauncherConfiguration): Generator<string> {
  const { on_change = 'restart', remove_files } = supervise;
  const paths = injection_files.flatMap(({ to }) => (typeof to === 'string' ? to : []));
  for (const { path } of directories.filter(({ generation }) => generation))
    if (!paths.some((to) => to.startsWith(`${path}/`))) yield `no file is written to the generation ${path}`;
  if (remove_files && paths.length === 0) yield 'there are no files for `remove_files` to remove';
  if (on_change === 'restart') return;
  if (paths.length === 0) yield '`on_change` is about files, and none is written';
  if (paths.length < injection_files.length)
    yield 'a descriptor keeps what it held when the program was started, unless `on_change` is restart';
}
