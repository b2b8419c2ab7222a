import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countStored } from '../../src/cas/limits/stored.ts';
import { correlated } from '../../src/cas/observe/correlation.ts';
import { bareCas } from '../support/cas.ts';

/** What one source may have recorded at once, and then each second (docs/architecture.md, known limits). */
const AT_ONCE = 262_144;
const A_SECOND = 256;

test('one identity that asks without an end has only so many entries recorded, of releases and of refusals', async (t) => {
  const bare = bareCas();
  const { audit } = bare.cas;
  const session = 'security: {attestation: {mode: none}}\nservices: [{name: s, command: envcas}]';
  await bare.upload(`name: open\nversion: "0.3.12"\n${session}\n`);
  const { now } = performance;
  // A whole number, so that a second later is one second later.
  let at = Math.ceil(performance.now());
  // A mock would keep each of its calls.
  performance.now = () => at;
  t.after(() => {
    performance.now = now;
  });
  const size = async () => (await audit.head()).head.size;
  const as = <Result>(source: string, work: () => Result) =>
    correlated('test', { source, identity: 'open' }, work);
  const launch = (source: string, name = 'open') => as(source, () => bare.launch(name, 's'));

  const before = await size();
  const refused = Array.from({ length: 100 }, () =>
    assert.rejects(launch('192.0.2.66', 'none'), { code: 'SESSION_NOT_FOUND' }),
  );
  await Promise.all(refused);
  assert.equal((await size()) - before, 50);
  // Others' are recorded all the same, with how many are not.
  await assert.rejects(launch('192.0.2.1', 'none'), { code: 'SESSION_NOT_FOUND' });
  assert.equal((await size()) - before, 52);

  await launch('192.0.2.66');
  const recorded = await size();
  // Counted as entries are, and not written, which would take minutes.
  const countMore = (count: number) =>
    as('192.0.2.66', () => {
      for (let entry = 0; entry < count; entry++) countStored();
    });
  countMore(AT_ONCE - 51);
  await assert.rejects(launch('192.0.2.66'), { code: 'CAS_BUSY' });
  assert.equal(await size(), recorded);
  await launch('192.0.2.1');
  at += 1000;
  countMore(A_SECOND - 1);
  await launch('192.0.2.66');
  await assert.rejects(launch('192.0.2.66'), { code: 'CAS_BUSY' });
});
