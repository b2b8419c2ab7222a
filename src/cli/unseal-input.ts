import { readSync } from 'node:fs';
import { readPassphrase } from '../cas/seal/unseal.ts';
import { failure } from '../errors.ts';

/** What is typed where a person may be asked: nothing of it is shown, or ends in an argument or variable. */
const LONGEST = 4096;
const STANDARD_INPUT = 0;

/**
 * A secret line: from a file, or from standard input, which where it is a terminal does not show it.
 * @param question what a person is asked
 * @throws Failure USAGE where nothing comes
 */
export function readSecretLine(file: string | undefined, question: string): string {
  if (file !== undefined) return readPassphrase(file).toString();
  const line = process.stdin.isTTY ? readHidden(question) : readLine();
  if (line !== '') return line;
  throw failure('USAGE', { detail: `${question} is wanted on standard input, or in a file` });
}

/** One line, a byte at a time, so that what follows is left for whoever reads next. */
function readLine(): string {
  const bytes: number[] = [];
  const byte = Buffer.alloc(1);
  while (bytes.length < LONGEST && readSync(STANDARD_INPUT, byte) === 1) {
    if (byte[0] === 0x0a) break;
    bytes.push(byte[0] ?? 0);
  }
  return Buffer.from(bytes).toString().replace(/\r$/, '');
}

/** The terminal hands over each character as it is typed, and shows none (termios(3), ECHO and ICANON off). */
function readHidden(question: string): string {
  process.stderr.write(`${question}: `);
  process.stdin.setRawMode(true);
  const bytes: number[] = [];
  const byte = Buffer.alloc(1);
  try {
    for (;;) {
      let count: number;
      try {
        count = readSync(STANDARD_INPUT, byte);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN') continue;
        throw error;
      }
      const [code = 0] = byte;
      if (count === 0 || code === 0x0d || code === 0x0a) return Buffer.from(bytes).toString();
      if (code === 0x03) throw failure('USAGE', { detail: 'it was interrupted' });
      if (code === 0x7f || code === 0x08) bytes.pop();
      else if (bytes.length < LONGEST) bytes.push(code);
    }
  } finally {
    process.stdin.setRawMode(false);
    process.stderr.write('\n');
  }
}
