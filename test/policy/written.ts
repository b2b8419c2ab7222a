import type { Tree } from './sessions.ts';

const plain = /^[A-Za-z0-9$/](?:[A-Za-z0-9 _.$/~-]*[A-Za-z0-9_.$/~-])?$/;
const literal = /^[^\s\p{Cc}\ufeff][^\ufeff]*$/u;

/**
 * A YAML text that holds a tree, in any of the styles that YAML has for it.
 * @param choose gives the next choice among so many
 */
export function written(tree: Tree, choose: (among: number) => number): string {
  const quoted = (text: string) => {
    const styles = [JSON.stringify(text)];
    if (!/\p{Cc}/u.test(text)) styles.push(`'${text.replaceAll("'", "''")}'`);
    if (plain.test(text) && !/^null$/i.test(text)) styles.push(text);
    return styles[choose(styles.length)] ?? '';
  };
  const flow = (value: Tree): string => {
    if (value === null) return choose(2) ? '~' : 'null';
    if (typeof value === 'string') return quoted(value);
    if (Array.isArray(value)) return `[${value.map(flow).join(choose(2) ? ', ' : ` ,\n${' '.repeat(60)}`)}]`;
    const pairs = Object.entries(value).map(([key, item]) => `${quoted(key)}: ${flow(item)}`);
    return `{${pairs.join(', ')}}`;
  };
  const block = (value: Tree, indent: string): string => {
    const isText = typeof value === 'string';
    if (isText && literal.test(value) && !/[^\P{Cc}\n]/u.test(value) && choose(2)) {
      const trailing = /\n*$/.exec(value)?.[0].length ?? 0;
      const lines = value.slice(0, value.length - trailing).split('\n');
      const body = lines.map((line) => `\n${indent}${line}`).join('');
      return ` |${['-', ''][trailing] ?? '+'}${body}${'\n'.repeat(Math.max(0, trailing - 1))}`;
    }
    if (isText || value === null || Object.keys(value).length === 0 || !choose(4))
      return ` ${flow(value)}${choose(3) ? '' : ' # a comment: with $'}`;
    const entries = Array.isArray(value)
      ? value.map((item) => `-${block(item, `${indent}  `)}`)
      : Object.entries(value).map(([key, item]) => `${quoted(key)}:${block(item, `${indent}  `)}`);
    return entries.map((entry) => `\n${indent}${entry}`).join('');
  };
  const text = `%YAML 1.2\n---${block(tree, ' ')}\n`;
  return choose(4) ? text : text.replaceAll('\n', '\r\n');
}
