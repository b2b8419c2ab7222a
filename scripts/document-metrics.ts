import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeMetrics } from '../src/cas/observe/metrics.ts';

/** Where the table of metrics stands: `node scripts/node.cjs scripts/document-metrics.ts` writes it, a test compares. */
export const metricsDocument = join(import.meta.dirname, '../docs/metrics.md');

const HEAD = '| metric | type | labels | meaning |\n|---|---|---|---|\n';

/** The document, with the table that the metrics of the program give. */
export function documentMetrics(): string {
  const [before = '', after = ''] = readFileSync(metricsDocument, 'utf8').split(HEAD, 2);
  const rows = describeMetrics().map(
    ({ name, type, labels, help }) =>
      `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help} |`,
  );
  return `${before}${HEAD}${rows.join('\n')}\n\n${after.slice(after.indexOf('## '))}`;
}

if (import.meta.main) writeFileSync(metricsDocument, documentMetrics());
