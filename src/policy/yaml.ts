import type * as v from 'valibot';
import { isAlias, isMap, isPair, isScalar, isSeq, LineCounter, type Node } from 'yaml';
import { limits, parseDocument, TOO_DEEP } from './document.ts';
import {
  didYouMean,
  formatPath,
  InvalidText,
  MOST_PROBLEMS,
  onOneLine,
  type Path,
  type Problem,
} from './problem.ts';
import { suggestionFor } from './shapes.ts';
import { expandTemplate, type Variables } from './template.ts';

/** A plain value of a YAML text, in which every scalar but null is the text that the user wrote. */
export type Value = string | null | Value[] | { [key: string]: Value };

/** A YAML text that parsed, with the way back from a value to its place. */
export interface YamlText {
  /** The text; where template variables were filled in, with their values. */
  text: string;
  value: Value;
  /** What whoever filled in template variables may not have meant. */
  warnings: Problem[];
  /** Makes a Problem at the value with this path, or at the nearest one above it, in the original text. */
  problem(path: Path, message: string, severity?: Problem['severity']): Problem;
}

/**
 * Parses one YAML 1.2 document.
 *
 * Numbers and booleans stay text, because `0.3` is a version, `00ff` a digest and `0o700` a mode: a schema
 * says later what each must look like. Only an unquoted null is null.
 *
 * @param variables fills in template variables; without it, `$NAME` is text like any other
 * @param allowReferences whether a value of a variable may be a reference to a secret, or several words of a command
 * @throws InvalidText with the first syntax error, or with every key that is not allowed and every variable without
 *   a value
 */
export function readYaml(text: string, variables?: Variables, allowReferences = false): YamlText {
  if (text.length > limits.characters)
    throw new InvalidText([problemOf(1, 1, [], `the text is longer than ${limits.characters} characters`)]);
  let lines: LineCounter | undefined;
  const problemAt = (offset: number, path: Path, message: string, severity?: Problem['severity']) => {
    lines ??= linesOf(text);
    const { line, col } = lines.linePos(offset);
    return problemOf(line, col, path, message, severity);
  };
  const problems: Problem[] = [];
  const warnings: Problem[] = [];
  const tell = (offset: number, path: Path, message: string) => {
    if (problems.length < MOST_PROBLEMS) problems.push(problemAt(offset, path, message));
  };
  const failAt = (offset: number, path: Path, message: string): never => {
    throw new InvalidText([...problems, problemAt(offset, path, message)]);
  };
  const document = parseDocument(text, (offset, message) => failAt(offset, [], message));
  const expanded =
    variables === undefined
      ? text
      : expandTemplate(document, text, variables, {
          limit: limits.characters,
          tooLong: (offset, path) =>
            failAt(
              offset,
              path,
              `with its variables, the text is longer than ${limits.characters} characters`,
            ),
          missing: (offset, path, name) => tell(offset, path, `Value for variable $${name} is missing`),
          turned(offset, path, names, what) {
            if (allowReferences) return;
            const values = names.length === 1 ? 'the value' : 'a value';
            tell(
              offset,
              path,
              `${values} of ${names.map((name) => `$${name}`).join(', ')} would be ${what}; --allow-references takes it`,
            );
          },
          split(offset, path, name) {
            warnings.push(
              problemAt(
                offset,
                path,
                `the value of $${name} is split into the words of the command`,
                'warning',
              ),
            );
          },
        });

  let values = 0;
  let characters = 0;
  const anchors = new Map<string, Node>();
  const targets = new Map<Node, Node>();
  const visited = new Set<Node>();
  const visit = (node: Node | null | undefined) => {
    if (!node || visited.has(node)) return;
    visited.add(node);
    if ('anchor' in node && node.anchor) anchors.set(node.anchor, node);
  };
  const toValue = (node: Node | null | undefined, path: Path, depth: number): Value => {
    const fail = (message: string) => failAt(offsetIn(node), path, message);
    if (++values > limits.values) fail(`more than ${limits.values} values, aliases included`);
    if (depth > limits.depth) fail(TOO_DEEP);
    if (isAlias(node)) {
      // An alias means the last anchor before it, also where what holds it is used again further down.
      const target =
        targets.get(node) ?? anchors.get(node.source) ?? fail('there is no such anchor before this');
      targets.set(node, target);
      return toValue(target, path, depth + 1);
    }
    visit(node);
    // The language has two tags of its own; others mean nothing here.
    if (node?.tag === '!cas' || node?.tag === '!akv')
      return { [node.tag]: isScalar(node) ? null : untagged(node, path, depth) };
    return untagged(node, path, depth);
  };
  const untagged = (node: Node | null | undefined, path: Path, depth: number): Value => {
    const fail = (message: string) => failAt(offsetIn(node), path, message);
    const counted = (text: string) => {
      characters += text.length;
      if (characters > limits.characters) fail(`more than ${limits.characters} characters, aliases included`);
      if (!text.isWellFormed())
        tell(offsetIn(node), path, 'half of a character (a lone surrogate) is no text');
      return text;
    };
    if (isScalar(node)) {
      if (node.value === null) return null;
      return counted(typeof node.value === 'string' ? node.value : (node.source ?? String(node.value)));
    }
    if (isSeq(node))
      return node.items.map((item, index) => toValue(item as Node, [...path, index], depth + 1));
    if (isMap(node)) {
      const map: { [key: string]: Value } = {};
      for (const { key, value } of node.items) {
        const name = counted(textOf(key) ?? '?');
        const at = [...path, name];
        visit(key as Node);
        const item = toValue(value as Node | null, at, depth + 1);
        if (!isScalar(key)) tell(offsetIn(key), path, 'a key must be a text');
        else if (name in Object.prototype || name === 'prototype')
          tell(offsetIn(key), at, `the key ${name} is not allowed`);
        else if (Object.hasOwn(map, name)) tell(offsetIn(key), at, 'the key is there twice');
        else map[name] = item;
      }
      return map;
    }
    return node ? fail('this kind of value is not understood') : null;
  };

  const value = toValue(document.contents, [], 0);
  if (problems.length > 0) throw new InvalidText(problems);
  return {
    text: expanded,
    value,
    warnings,
    problem: (path, message, severity) =>
      problemAt(offsetOf(document.contents, path), path, message, severity),
  };
}

/** Where in a value an issue of a schema is. */
export function pathOf({ path }: v.BaseIssue<unknown>): Path {
  return (path ?? []).map(({ key }) => key as string | number);
}

/** The error for a value that does not have the shape a schema asks for. */
export function invalid(yaml: YamlText, issues: readonly v.BaseIssue<unknown>[]): InvalidText {
  return new InvalidText(
    issues.slice(0, MOST_PROBLEMS).map((issue) => ({
      ...yaml.problem(pathOf(issue), issue.message),
      ...didYouMean(suggestionFor(issue)),
    })),
  );
}

function linesOf(text: string): LineCounter {
  const lines = new LineCounter();
  for (let start = 0; start >= 0; ) {
    lines.addNewLine(start);
    const end = text.indexOf('\n', start);
    start = end < 0 ? -1 : end + 1;
  }
  return lines;
}

/** A key as it was written; undefined where it is more than a text. */
function textOf(key: unknown): string | undefined {
  if (!isScalar(key)) return undefined;
  return typeof key.value === 'string' ? key.value : (key.source ?? '');
}

function offsetIn(node: unknown): number {
  return (node as Node | null | undefined)?.range?.[0] ?? 0;
}

/** Offset of the value at a path; of its key where the value is empty; of the nearest one above otherwise. */
function offsetOf(root: Node | null, path: Path): number {
  let node: unknown = root;
  let offset = root?.range?.[0] ?? 0;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => textOf(key) === step);
      if (!isPair(pair)) break;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(step)];
      offset = (node as Node | null)?.range?.[0] ?? offset;
    } else break;
    const own = (node as Node | null)?.range;
    if (own && own[1] > own[0] && !isMap(node)) offset = own[0];
  }
  return offset;
}

function problemOf(
  line: number,
  column: number,
  path: Path,
  message: string,
  severity: Problem['severity'] = 'error',
): Problem {
  return { severity, line, column, path: onOneLine(formatPath(path)), message: onOneLine(message) };
}
