import { sessionJsonSchema } from '../../policy/json-schema.ts';
import type { Output } from '../output.ts';

/** `scone session schema`: the JSON Schema of sessions. */
export function showSchema(): Output {
  const schema = sessionJsonSchema();
  return { text: `${JSON.stringify(schema, null, 2)}\n`, json: schema };
}
