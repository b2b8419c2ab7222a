import { normalize } from 'node:path/posix';
import * as v from 'valibot';
import { InvalidText, type Path } from './problem.ts';
import { type LauncherConfiguration, launcherConfiguration } from './schema/launcher.ts';
import { invalid, readYaml } from './yaml.ts';

/**
 * Reads /etc/envcas/config.yaml. It holds no secrets: what they contain never counts as YAML or as a path.
 * @throws InvalidText
 */
export function parseLauncherConfiguration(content: string): LauncherConfiguration {
  const yaml = readYaml(content);
  const result = v.safeParse(launcherConfiguration, yaml.value);
  if (!result.success) throw invalid(yaml, result.issues);
  const { injection_files = [], injected_file = [], ...rest } = result.output;
  const problems = [...contradictions(result.output)].map(([path, message]) => yaml.problem(path, message));
  if (problems.length > 0) throw new InvalidText(problems);
  return { ...rest, injection_files: [...injection_files, ...injected_file] };
}

/** What each key allows, and all of them together do not. */
function* contradictions(written: v.InferOutput<typeof launcherConfiguration>): Generator<[Path, string]> {
  const { directories = [] } = written;
  const generations = directories.filter(({ generation }) => generation);
  const seen = new Set<string>();
  const repeated = (target: string) => seen.size === seen.add(target).size;
  for (const key of ['injection_files', 'injected_file'] as const)
    for (const [index, { to }] of (written[key] ?? []).entries()) {
      const target = typeof to === 'string' ? normalize(to) : `descriptor ${to.fd}`;
      if (repeated(target)) yield [[key, index, 'to'], `two files are written to ${target}`];
      if (target !== to && generations.some(({ path }) => target.startsWith(`${path}/`)))
        yield [[key, index, 'to'], 'a path within a generation has no ., .. or doubled slashes'];
    }
  for (const [index, { path }] of directories.entries()) {
    const at = ['directories', index, 'path'];
    if (repeated(path)) yield [at, `${path} is there twice, or a file as well`];
    if (generations.some((it) => path.startsWith(`${it.path}/`)))
      yield [at, 'folders within a generation are made by themselves'];
  }
}
