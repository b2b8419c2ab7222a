import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errors } from '../src/errors.ts';

/** Where the list of errors stands: `node scripts/node.cjs scripts/document-errors.ts` writes it, a test compares. */
export const errorsDocument = join(import.meta.dirname, '../docs/errors.md');

export function documentErrors(): string {
  const rows = Object.entries(errors).map(([code, row]) => {
    const http = 'http' in row ? row.http : '';
    return `| \`${code}\` | ${row.exit} | ${http} | ${tableCell(row.message)} | ${tableCell(row.hint)} |`;
  });
  return [
    '# Errors',
    '',
    'Every error of `envcas`, `scone`, the CAS and the LAS. A code never changes its meaning. *Exit* is the exit status',
    'of `envcas` and `scone`: the numbers of sysexits(3), and 126 and 127 as in POSIX `env`. *HTTP* is the status on the',
    "CAS's REST interface. What stands in braces is filled in.",
    '',
    '| code | exit | HTTP | message | what to do |',
    '|---|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

/** Template references, pipes and angle brackets as they are, in a table of Markdown. */
function tableCell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}

if (import.meta.main) writeFileSync(errorsDocument, documentErrors());
