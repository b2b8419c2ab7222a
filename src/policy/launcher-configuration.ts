import * as v from 'valibot';
import { InvalidText } from './problem.ts';
import { list, object, text } from './shapes.ts';
import { readYaml } from './yaml.ts';

/** Where a policy injects the launcher's own configuration. */
export const LAUNCHER_CONFIGURATION_PATH = '/etc/envcas/config.yaml';

const written = object({ from: text, to: text });

/** `injected_file` is another spelling of `injection_files`. */
const shape = object({
  program: text,
  injection_files: v.optional(list(written)),
  injected_file: v.optional(list(written)),
});

/** What the launcher does: start a program, once these files are written. */
export interface LauncherConfiguration {
  program: string;
  /** Injected files, and where each is written. */
  files: { from: string; to: string }[];
}

/**
 * Reads /etc/envcas/config.yaml. References to secrets are not filled in yet: they are part of the values, so
 * that what a secret contains never counts as YAML.
 * @throws InvalidText
 */
export function parseLauncherConfiguration(content: string): LauncherConfiguration {
  const yaml = readYaml(content);
  const result = v.safeParse(shape, yaml.value);
  if (!result.success)
    throw new InvalidText(
      result.issues.map((issue) =>
        yaml.problem(
          (issue.path ?? []).map(({ key }) => key as string | number),
          issue.message,
        ),
      ),
    );
  const { program, injection_files = [], injected_file = [] } = result.output;
  const files = [...injection_files, ...injected_file];
  const paths: [string, string][] = [
    ['program', program],
    ...files.map(({ to }): [string, string] => ['to', to]),
  ];
  for (const [key, path] of paths)
    if (!/^(\/|\$\$SCONE::).*[^/]$/s.test(path) || path.includes('\0'))
      throw new InvalidText([
        yaml.problem([], `\`${key}\` must be the absolute path of a file, not ${JSON.stringify(path)}`),
      ]);
  if (new Set(files.map(({ to }) => to)).size < files.length)
    throw new InvalidText([yaml.problem([], 'two files are written to one path')]);
  return { program, files };
}
