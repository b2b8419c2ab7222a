import assert from 'node:assert/strict';

/** One line of the exposition format: a time series, and its value. */
export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** Metrics in Prometheus' text format 0.0.4, read by its description; it fails where they break it. */
export function parseExposition(text: string): Sample[] {
  assert.ok(text.endsWith('\n'));
  const types = new Map<string, string>();
  const helps = new Set<string>();
  const samples: Sample[] = [];
  for (const line of text.split('\n')) {
    const [, kind, about = '', rest = ''] =
      /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line) ?? [];
    if (line === '') continue;
    if (kind === 'HELP') {
      assert.ok(!helps.has(about), line);
      helps.add(about);
      continue;
    }
    if (kind === 'TYPE') {
      assert.ok(!types.has(about) && /^(counter|gauge|histogram)$/.test(rest), line);
      types.set(about, rest);
      continue;
    }
    const [, name = '', inner = '', value = ''] =
      /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([-+]?(?:\d[\d.e+-]*|Inf)|NaN)$/.exec(line) ?? [];
    assert.ok(name, `not a sample: ${line}`);
    const labels: Record<string, string> = {};
    const whole = inner.replace(/([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)/g, (_, key, text) => {
      labels[key] = text;
      return '';
    });
    assert.equal(whole, '', line);
    const family = name.replace(/_(bucket|sum|count)$/, '');
    assert.ok(types.has(name) || types.get(family) === 'histogram', `no type of ${name}`);
    samples.push({ name, labels, value: Number(value.replace('Inf', 'Infinity')) });
  }
  for (const [name, type] of types) {
    assert.ok(helps.has(name), `no help of ${name}`);
    if (type === 'counter') assert.match(name, /_total$/);
    if (type === 'histogram') checkHistogram(name, samples);
  }
  const series = samples.map(formatSeries);
  assert.equal(new Set(series).size, series.length, 'a series is there twice');
  return samples;
}

/** Buckets count what is at most as much, so none has less than the one before, and the last has all. */
function checkHistogram(name: string, samples: readonly Sample[]): void {
  for (const { labels, value } of samples.filter((sample) => sample.name === `${name}_count`)) {
    const isSame = ({ labels: { le, ...its } }: Sample) => formatLabels(its) === formatLabels(labels);
    const buckets = samples.filter((sample) => sample.name === `${name}_bucket` && isSame(sample));
    const counts = buckets.map((bucket) => bucket.value);
    assert.deepEqual(
      counts,
      counts.toSorted((a, b) => a - b),
    );
    assert.deepEqual([buckets.at(-1)?.labels.le, buckets.at(-1)?.value], ['+Inf', value]);
  }
}

const formatLabels = (labels: Record<string, string>) =>
  Object.entries(labels)
    .sort()
    .map(([key, value]) => `${key}=${value}`)
    .join(',');

export const formatSeries = ({ name, labels }: Sample): string => `${name}{${formatLabels(labels)}}`;

/** The sum of what has a name, and these labels among others. */
export function total(samples: readonly Sample[], name: string, labels: Record<string, string> = {}): number {
  const fits = (sample: Sample) =>
    sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value);
  return samples.filter(fits).reduce((sum, { value }) => sum + value, 0);
}
