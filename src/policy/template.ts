import { type Document, isMap, isScalar, isSeq, Scalar } from 'yaml';
import type { Path } from './yaml.ts';

/** Gives the value of a template variable, or undefined where it has none. */
export type Variables = (name: string) => string | undefined;

const token =
  /\\\$|(\$\$(?:SCONE|PALAEMON)::)((?:[^$]|\$(?!\$))*)(\$\$)|\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))/g;

/**
 * Fills in the template variables of a document, in place: `$NAME` and `${NAME}` in values become the
 * variable's value, `\$` a dollar sign; `$$SCONE::…$$` stays as it is. A value that is all one unquoted
 * variable with the value `~` becomes null. Nodes keep their places in the text.
 *
 * @param missing is told of each variable without a value, and the offset where it stands
 * @returns whether anything was filled in
 */
export function expandTemplate(
  document: Document,
  text: string,
  variables: Variables,
  missing: (offset: number, path: Path, name: string) => void,
): boolean {
  let changed = false;

  const expandNode = (node: Scalar<string>, path: Path) => {
    let [from, end] = node.range ?? [0, text.length];
    const expand = (source: string): string =>
      source.replace(token, (match, open, inner, close, braced, bare) => {
        if (match === '\\$') return '$';
        if (open) return `${open}${expand(inner)}${close}`;
        const name: string = braced ?? bare;
        const at = text.indexOf(match, from);
        if (at >= 0 && at < end) from = at;
        const value = variables(name);
        if (value === undefined) missing(from, path, name);
        if (at >= 0 && at < end) from = at + match.length;
        return value ?? '';
      });
    const expanded = expand(node.value);
    if (expanded === node.value) return;
    changed = true;
    if (expanded === '~' && node.type === Scalar.PLAIN) Object.assign(node, { value: null });
    else node.value = expanded;
    delete node.source;
  };

  const visit = (node: unknown, path: Path): void => {
    if (isMap(node))
      for (const { key, value } of node.items)
        visit(value, [...path, isScalar(key) ? String(key.value) : '?']);
    else if (isSeq(node))
      node.items.forEach((item, index) => {
        visit(item, [...path, index]);
      });
    else if (isScalar<string>(node) && typeof node.value === 'string' && node.value.includes('$'))
      expandNode(node, path);
  };
  visit(document.contents, []);
  return changed;
}
