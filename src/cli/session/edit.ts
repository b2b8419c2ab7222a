import { isDeepStrictEqual } from 'node:util';
import { isAlias, isMap, isScalar, type Node, parseDocument, Scalar, type YAMLMap } from 'yaml';
import { failure } from '../../errors.ts';
import { readYaml, type Value } from '../../policy/yaml.ts';

/**
 * Sets a key at the top of a session text: puts another value in the place of the one it has, or the key before all
 * others. Everything else of the text stays as it is, comments included.
 * @param file where the text is from, for the error
 * @param value written as JSON, which YAML contains
 * @throws InvalidText where the text is no YAML, Failure FILE_INVALID where its form is too unusual
 */
export function withKey(file: string, text: string, key: string, value: Value): string {
  const { value: before } = readYaml(text);
  const edited = edit(text, key, JSON.stringify(value));
  const expected = typeof before === 'object' ? { ...before, [key]: value } : undefined;
  if (edited !== undefined && isDeepStrictEqual(readYaml(edited).value, expected)) return edited;
  throw failure('FILE_INVALID', { path: file, detail: `cannot fill in \`${key}\`; write it into the file` });
}

function edit(text: string, key: string, value: string): string | undefined {
  const { contents } = parseDocument(text, { uniqueKeys: false });
  if (!isMap(contents)) return undefined;
  const pair = contents.items.find((item) => isScalar(item.key) && item.key.value === key);
  if (!pair) return insert(text, contents, key, value);
  const node = pair.value as Node | null;
  if (!node?.range || !(isScalar(node) || isAlias(node))) return undefined;
  const [start, end] = node.range;
  const isBlock = isScalar(node) && (node.type === Scalar.BLOCK_LITERAL || node.type === Scalar.BLOCK_FOLDED);
  // An empty value begins right after its colon.
  const space = /\s/.test(text.charAt(start - 1)) ? '' : ' ';
  return text.slice(0, start) + space + value + (isBlock ? '\n' : '') + text.slice(end);
}

function insert(text: string, map: YAMLMap, key: string, value: string): string | undefined {
  const start = map.range?.[0] ?? 0;
  if (map.flow) {
    const after = start + 1;
    return `${text.slice(0, after)}${JSON.stringify(key)}: ${value}, ${text.slice(after)}`;
  }
  const line = Math.max(text.lastIndexOf('\n', start - 1) + 1, text.startsWith('\ufeff') ? 1 : 0);
  const [indentation = ''] = /^ */.exec(text.slice(line, start)) ?? [];
  return `${text.slice(0, line)}${indentation}${key}: ${value}\n${text.slice(line)}`;
}
