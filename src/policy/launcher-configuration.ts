import * as v from 'valibot';
import { InvalidText } from './problem.ts';
import { list, object, text } from './shapes.ts';
import { invalid, readYaml } from './yaml.ts';

/** Where a policy injects the launcher's own configuration. */
export const LAUNCHER_CONFIGURATION_PATH = '/etc/envcas/config.yaml';

const filePath = v.pipe(
  text,
  v.regex(/^\/[^\0]*[^/\0]$/, 'expected the absolute path of a file'),
  v.check((path) => !path.includes('$$SCONE::'), 'a path holds no secret, since everybody can see it'),
);

const written = object({ from: text, to: filePath });

/** `injected_file` is another spelling of `injection_files`. */
const shape = object({
  program: filePath,
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
 * Reads /etc/envcas/config.yaml. It holds no secrets: what they contain never counts as YAML or as a path.
 * @throws InvalidText
 */
export function parseLauncherConfiguration(content: string): LauncherConfiguration {
  const yaml = readYaml(content);
  const result = v.safeParse(shape, yaml.value);
  if (!result.success) throw invalid(yaml, result.issues);
  const { program, injection_files = [], injected_file = [] } = result.output;
  const files = [...injection_files, ...injected_file];
  const seen = new Set<string>();
  for (const { to } of files) {
    if (seen.has(to))
      throw new InvalidText([yaml.problem(['injection_files'], `two files are written to ${to}`)]);
    seen.add(to);
  }
  return { program, files };
}
