import { launcherJsonSchema } from '../../policy/json-schema.ts';
import type { Output } from '../output.ts';

/** `scone launch schema`: the JSON Schema of /etc/envcas/config.yaml. */
export function showLauncherSchema(): Output {
  const schema = launcherJsonSchema();
  return { text: `${JSON.stringify(schema, null, 2)}\n`, json: schema };
}
