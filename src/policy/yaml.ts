import type * as v from 'valibot';
import { isAlias, isMap, isPair, isScalar, isSeq, type Node, parseDocument } from 'yaml';
import { didYouMean, formatPath, InvalidText, MOST_PROBLEMS, type Path, type Problem } from './problem.ts';
import { suggestionFor } from './shapes.ts';
import { expandTemplate, type Variables } from './template.ts';

/** A plain value of a YAML text, in which every scalar but null is the text that the user wrote. */
export type Value = string | null | Value[] | { [key: string]: Value };

/** A YAML text that parsed, with the way back from a value to its place. */
export interface YamlText {
  /** The text; where template variables were filled in, with their values. */
  text: string;
  value: Value;
  /** Makes a Problem at the value with this path, or at the nearest one above it, in the original text. */
  problem(path: Path, message: string, severity?: Problem['severity']): Problem;
}

/** What a text may cost: characters, values (what aliases stand for counts each time) and nesting. */
export const limits = { characters: 4 * 1024 * 1024, values: 100_000, depth: 64 } as const;

/**
 * Parses one YAML 1.2 document.
 *
 * Numbers and booleans stay text, because `0.3` is a version, `00ff` a digest and `0o700` a mode: a schema
 * says later what each must look like. Only an unquoted null is null.
 *
 * @param variables fills in template variables; without it, `$NAME` is text like any other
 * @throws InvalidText with the first syntax error, or every variable without a value, its line and column
 */
export function readYaml(text: string, variables?: Variables): YamlText {
  if (text.length > limits.characters)
    throw new InvalidText([problemOf(1, 1, [], `the text is longer than ${limits.characters} characters`)]);
  const document = parseDocument(text, {
    prettyErrors: false,
    // Checked below: the library compares every key with every other.
    uniqueKeys: false,
  });
  let starts: number[] | undefined;
  const problemAt = (offset: number, path: Path, message: string, severity?: Problem['severity']) => {
    starts ??= [0, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1)];
    const line = starts.findLastIndex((start) => start <= offset);
    return problemOf(line + 1, offset - (starts[line] ?? 0) + 1, path, message, severity);
  };
  // After the first one, places are guesses.
  const [syntaxError] = document.errors;
  if (syntaxError)
    throw new InvalidText([problemAt(syntaxError.pos[0], [], withoutQuotes(syntaxError.message))]);

  const problems: Problem[] = [];
  const expanded =
    variables === undefined
      ? text
      : expandTemplate(document, text, variables, (offset, path, name) => {
          if (problems.length < MOST_PROBLEMS)
            problems.push(problemAt(offset, path, `Value for variable $${name} is missing`));
        });
  if (problems.length > 0) throw new InvalidText(problems);

  let values = 0;
  let characters = 0;
  const anchors = new Map<string, Node>();
  const targets = new Map<Node, Node>();
  const visited = new Set<Node>();
  const failAt =
    (node: Node | null | undefined, path: Path) =>
    (message: string): never => {
      throw new InvalidText([problemAt(node?.range?.[0] ?? 0, path, message)]);
    };
  const toValue = (node: Node | null | undefined, path: Path, depth: number): Value => {
    const fail = failAt(node, path);
    if (++values > limits.values) fail(`more than ${limits.values} values, aliases included`);
    if (depth > limits.depth) fail(`nested deeper than ${limits.depth} levels`);
    if (isAlias(node)) {
      // An alias means the last anchor before it, also where what holds it is used again further down.
      const target =
        targets.get(node) ?? anchors.get(node.source) ?? fail('there is no such anchor before this');
      targets.set(node, target);
      return toValue(target, path, depth + 1);
    }
    if (node && 'anchor' in node && node.anchor && !visited.has(node)) anchors.set(node.anchor, node);
    if (node) visited.add(node);
    // The language has two tags of its own; others mean nothing here.
    if (node?.tag === '!cas' || node?.tag === '!akv')
      return { [node.tag]: isScalar(node) ? null : untagged(node, path, depth) };
    return untagged(node, path, depth);
  };
  const untagged = (node: Node | null | undefined, path: Path, depth: number): Value => {
    const fail = failAt(node, path);
    if (isScalar(node)) {
      if (node.value === null) return null;
      const scalar = typeof node.value === 'string' ? node.value : (node.source ?? String(node.value));
      characters += scalar.length;
      if (characters > limits.characters) fail(`more than ${limits.characters} characters, aliases included`);
      return scalar;
    }
    if (isSeq(node))
      return node.items.map((item, index) => toValue(item as Node, [...path, index], depth + 1));
    if (isMap(node)) {
      const map: { [key: string]: Value } = {};
      for (const { key, value } of node.items) {
        if (!isScalar(key)) return fail('a key must be a text');
        const name = typeof key.value === 'string' ? key.value : (key.source ?? '');
        const at = [...path, name];
        if (name in Object.prototype || name === 'prototype')
          throw new InvalidText([problemAt(key.range?.[0] ?? 0, at, `the key ${name} is not allowed`)]);
        if (Object.hasOwn(map, name))
          throw new InvalidText([problemAt(key.range?.[0] ?? 0, at, 'the key is there twice')]);
        map[name] = toValue(value as Node | null, at, depth + 1);
      }
      return map;
    }
    return node ? fail('this kind of value is not understood') : null;
  };

  return {
    text: expanded,
    value: toValue(document.contents, [], 0),
    problem: (path, message, severity) =>
      problemAt(offsetOf(document.contents, path), path, message, severity),
  };
}

/** The error for a value that does not have the shape a schema asks for. */
export function invalid(yaml: YamlText, issues: readonly v.BaseIssue<unknown>[]): InvalidText {
  return new InvalidText(
    issues.slice(0, MOST_PROBLEMS).map((issue) => ({
      ...yaml.problem(
        (issue.path ?? []).map(({ key }) => key as string | number),
        issue.message,
      ),
      ...didYouMean(suggestionFor(issue)),
    })),
  );
}

/** What the parser says, less what it quotes of the text, which may be a secret. */
function withoutQuotes(message: string): string {
  return message.replace(/\s+/g, ' ').replace(/: ".*$|"[^"]*"/g, '');
}

/** Offset of the value at a path; of its key where the value is empty; of the nearest one above otherwise. */
function offsetOf(root: Node | null, path: Path): number {
  let node: unknown = root;
  let offset = root?.range?.[0] ?? 0;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && (key.source ?? String(key.value)) === step);
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
  return { severity, line, column, path: formatPath(path), message };
}
