import * as v from 'valibot';
import { failure } from '../errors.ts';
import { InvalidText } from '../policy/problem.ts';
import { list, object, text } from '../policy/shapes.ts';
import { readYaml, type YamlText } from '../policy/yaml.ts';

/** Where a policy injects the launcher's own configuration. */
export const CONFIGURATION_PATH = '/etc/envcas/config.yaml';

const absolutePath = v.pipe(
  text,
  v.startsWith('/', 'expected an absolute path'),
  v.check((path) => !path.includes('\0') && !path.endsWith('/'), 'expected the path of a file'),
);

const written = object({ from: absolutePath, to: absolutePath });

/** Shape of /etc/envcas/config.yaml. `injected_file` is another spelling of `injection_files`. */
const launcherConfiguration = object({
  program: absolutePath,
  injection_files: v.optional(list(written)),
  injected_file: v.optional(list(written)),
});

export interface LauncherConfiguration {
  /** Absolute path of the program to start. */
  program: string;
  /** Injected files, and where each is written. */
  files: { from: string; to: string }[];
}

/**
 * Reads the file, in which secrets stand already: no message quotes from it.
 * @throws Failure LAUNCHER_CONFIG_INVALID with line and column
 */
export function parseLauncherConfiguration(content: Buffer): LauncherConfiguration {
  const invalid = ({ line, column }: { line: number; column: number }, what: string) =>
    failure('LAUNCHER_CONFIG_INVALID', { detail: `line ${line}, column ${column}: ${what}` });
  let yaml: YamlText;
  try {
    yaml = readYaml(content.toString());
  } catch (error) {
    if (!(error instanceof InvalidText) || !error.problems[0]) throw error;
    throw invalid(error.problems[0], 'YAML syntax error');
  }
  const result = v.safeParse(launcherConfiguration, yaml.value);
  if (!result.success) {
    const [issue] = result.issues;
    const path = (issue.path ?? []).map(({ key }) => key as string | number);
    const unknown = issue.expected === 'never';
    throw invalid(
      yaml.problem(path, ''),
      unknown
        ? 'unknown key; there are program, injection_files, and from and to in each of these'
        : issue.message,
    );
  }
  const { program, injection_files = [], injected_file = [] } = result.output;
  const files = [...injection_files, ...injected_file];
  const targets = new Set(files.map(({ to }) => to));
  if (targets.size < files.length) throw invalid(yaml.problem([], ''), 'two files are written to one path');
  return { program, files };
}
