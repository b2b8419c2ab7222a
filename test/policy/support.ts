import assert from 'node:assert/strict';
import { InvalidText } from '../../src/policy/problem.ts';

/** A session text that is accepted; `lines` begin at line 4. */
export const sessionText = (...lines: string[]) =>
  ['name: s', 'version: "0.3"', 'security: {attestation: {mode: none}}', ...lines].join('\n');

/** What is wrong, as `line:column path: message`; fails where nothing is. */
export function problemsOf(run: () => unknown): string[] {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof InvalidText, `${error}`);
    return error.problems.map(
      ({ line, column, path, message }) => `${line}:${column} ${path ? `${path}: ` : ''}${message}`,
    );
  }
  return assert.fail('nothing was refused');
}

/**
 * Runs it; whatever it refuses, it refuses as InvalidText with places inside the text. Only the first problem is
 * looked at unless `all` are wanted: those that follow a syntax error have wrong places, see yaml.test.ts.
 */
export function onlyInvalidText(text: string, run: () => unknown, all = false): void {
  try {
    run();
  } catch (error) {
    if (!(error instanceof InvalidText)) throw error;
    assert.ok(error.problems.length > 0);
    const lines = text.split('\n');
    for (const { line, column, message } of error.problems.slice(0, all ? undefined : 1)) {
      assert.ok(message.length > 0);
      assert.ok(line >= 1 && line <= lines.length, `line ${line} of ${lines.length}`);
      const length = lines[line - 1]?.length ?? 0;
      assert.ok(column >= 1 && column <= length + 1, `column ${column} of ${length}`);
    }
  }
}

/** Template variables of a table. */
export const variablesFrom = (table: Record<string, string>) => (name: string) =>
  Object.hasOwn(table, name) ? table[name] : undefined;
