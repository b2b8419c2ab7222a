import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createWatches } from '../../src/cas/watch.ts';

test('whoever has the CAS wait for all that he can name keeps nobody else from being told', () => {
  const watches = createWatches(Date.now);
  const his = Array.from({ length: 50 }, (_, at) => watches.open(`his-${at}`, '192.0.2.66'));
  for (const [at, watch] of his.entries())
    for (let name = 0; name < 2000; name++) watch?.session(`made-up-${at}-${name}`);
  assert.equal(his.at(-1)?.isComplete(), false);
  const honest = watches.open('a', '192.0.2.1');
  honest?.session('a');
  assert.equal(honest?.isComplete(), true);
  // What ends makes room for him, too.
  for (const watch of his) watch?.end();
  const again = watches.open('his', '192.0.2.66');
  again?.session('his');
  assert.equal(again?.isComplete(), true);
});
