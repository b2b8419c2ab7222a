import assert from 'node:assert/strict';
import { InvalidText, MOST_PROBLEMS } from '../../src/policy/problem.ts';

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
 * Runs it; whatever it refuses, it refuses as InvalidText, with problems that can be shown and places inside the text.
 * @returns what it returned, or undefined where it refused
 */
export function onlyInvalidText<T>(text: string, run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof InvalidText)) throw error;
    assert.ok(error.problems.length > 0 && error.problems.length <= MOST_PROBLEMS);
    const lines = text.split('\n');
    for (const { severity, line, column, path, message } of error.problems) {
      assert.equal(severity, 'error');
      for (const shown of [path, message]) assert.doesNotMatch(shown, /\p{Cc}/u);
      assert.ok(message.length > 0);
      assert.ok(line >= 1 && line <= lines.length, `line ${line} of ${lines.length}`);
      const length = lines[line - 1]?.length ?? 0;
      assert.ok(column >= 1 && column <= length + 1, `column ${column} of ${length}`);
    }
    return undefined;
  }
}

/** Template variables of a table. */
export const variablesFrom = (table: Record<string, string>) => (name: string) =>
  Object.hasOwn(table, name) ? table[name] : undefined;
