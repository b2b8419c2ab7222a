import { type Document, isMap, isScalar, isSeq, Scalar, type YAMLMap } from 'yaml';
import { embeddedAt, staysValue } from './embedded.ts';
import type { Path } from './problem.ts';
import { splitWords } from './words.ts';

/** Gives the value of a template variable, or undefined where it has none. */
export type Variables = (name: string) => string | undefined;

const token =
  /\\\$|(\$\$(?:SCONE|PALAEMON)::)((?:[^$]|\$(?!\$))*)(\$\$)|\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))/g;

/** What one unquoted variable looks like, and nothing else. */
const onlyVariable = /^\$(?:\{[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z_][A-Za-z0-9_]*)$/;

/**
 * Fills in the template variables of a document, in place: `$NAME` and `${NAME}` in values become the
 * variable's value, `\$` a dollar sign; `$$SCONE::…$$` stays as it is, but for variables in it. A value that is
 * all one unquoted variable with the value `~` becomes null. Nodes keep their places in the text.
 *
 * @param told.limit longest that the text may become, in characters
 * @param told.tooLong is told of the value at which it became longer
 * @param told.missing is told of each variable without a value, and the offset where it stands
 * @param told.turned is told where values would be more than values: what they would be
 * @param told.split is told of a command that is all one variable, whose value is split into words
 * @returns the text with the values filled in, each quoted, so that it never counts as YAML
 */
export function expandTemplate(
  document: Document,
  text: string,
  variables: Variables,
  told: {
    limit: number;
    tooLong: (offset: number, path: Path) => never;
    missing: (offset: number, path: Path, name: string) => void;
    turned: (offset: number, path: Path, names: readonly string[], what: string) => void;
    split: (offset: number, path: Path, name: string) => void;
  },
): string {
  const pieces: string[] = [];
  let copied = 0;
  let length = text.length;

  const expandNode = (node: Scalar<string>, path: Path, within: YAMLMap | undefined) => {
    const [start, end] = node.range ?? [0, 0];
    const isBlock = node.type === Scalar.BLOCK_LITERAL || node.type === Scalar.BLOCK_FOLDED;
    const body = isBlock ? text.indexOf('\n', start) : start;
    const used = variablesIn(node.value);
    const placed = variablesIn(text.slice(body, end));
    // Escapes of a double-quoted text can hide where a variable stands; its beginning is told then.
    const known = placed.length === used.length;
    used.forEach(({ name }, index) => {
      const value = variables(name);
      if (value === undefined) told.missing(known ? body + (placed[index]?.at ?? 0) : start, path, name);
      length += value?.length ?? 0;
      if (length > told.limit) told.tooLong(start, path);
    });

    const value = fill(node.value, variables);
    if (value === node.value) return;
    const names = [...new Set(used.map(({ name }) => name))];
    const template = node.value;
    const what =
      turnedInto(
        fill(template, () => 'x'),
        value,
        path,
      ) ??
      partOf(
        embeddedAt(path, within, (written) => fill(written, variables)),
        template,
        new Map(names.map((name) => [name, variables(name) ?? ''])),
      );
    if (what !== undefined) told.turned(start, path, names, what);
    else if (isCommandLine(path) && (splitWords(value) ?? []).length > 1 && onlyVariable.test(node.value))
      told.split(start, path, names[0] ?? '');
    const isNull = value === '~' && node.type === Scalar.PLAIN && !node.tag && onlyVariable.test(node.value);
    Object.assign(node, { value: isNull ? null : value, source: undefined });
    // A plain text may begin with a carriage return right after the colon; a quoted one needs a gap.
    const gap = /\S/.test(text[start - 1] ?? ' ') ? ' ' : '';
    pieces.push(text.slice(copied, start), gap, isNull ? '~' : JSON.stringify(value), isBlock ? '\n' : '');
    copied = end;
  };

  const visit = (node: unknown, path: Path, within?: YAMLMap): void => {
    if (isMap(node))
      for (const { key, value } of node.items)
        visit(value, [...path, isScalar(key) ? String(key.source) : '?'], node);
    else if (isSeq(node))
      node.items.forEach((item, index) => {
        visit(item, [...path, index]);
      });
    else if (isScalar<string>(node) && typeof node.value === 'string' && node.value.includes('$'))
      expandNode(node, path, within);
  };
  visit(document.contents, []);
  return pieces.join('') + text.slice(copied);
}

const isCommandLine = (path: Path) => path.at(-1) === 'command';
const count = (text: string, pattern: RegExp) => text.match(pattern)?.length ?? 0;

/** What values have made of a text beside filling it in: the language can write none of this as a mere value. */
function turnedInto(template: string, filled: string, path: Path): string | undefined {
  const isMore = (pattern: RegExp) => count(filled, pattern) > count(template, pattern);
  if (isMore(/\$\$(?:SCONE|PALAEMON)::/g)) return 'a variable that stands for a secret';
  if (path.includes('command') && isMore(/@@[1-9]/g)) return 'an argument of the host (@@N)';
  // All of it may be one variable.
  if (!isCommandLine(path) || template === 'x') return undefined;
  return splitWords(filled)?.length === splitWords(template)?.length
    ? undefined
    : 'several words, or a part of one; a command that is a list keeps each as it is';
}

/** What values have made of a text that has parts of its own. */
function partOf(
  embedded: ReturnType<typeof embeddedAt>,
  template: string,
  values: ReadonlyMap<string, string>,
): string | undefined {
  // All of it may be one variable.
  if (
    !embedded ||
    onlyVariable.test(template) ||
    staysValue(embedded, (value) => fill(template, value), values)
  )
    return undefined;
  return `more than a value in ${embedded.name}`;
}

/** Names of the variables in a text, and where each begins. */
function variablesIn(source: string): { name: string; at: number }[] {
  return [...source.matchAll(token)].flatMap((match) => {
    const [, open, inner = '', , braced, bare] = match;
    if (open) return variablesIn(inner).map(({ name, at }) => ({ name, at: match.index + open.length + at }));
    const name = braced ?? bare;
    return name === undefined ? [] : [{ name, at: match.index }];
  });
}

function fill(source: string, variables: Variables): string {
  return source.replace(token, (match, open, inner, close, braced, bare) => {
    if (match === '\\$') return '$';
    return open ? `${open}${fill(inner, variables)}${close}` : (variables(braced ?? bare) ?? '');
  });
}
