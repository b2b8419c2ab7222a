import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRecent } from '../../src/cas/recent.ts';

test('what was made is given again for the very same bytes, and for no others', () => {
  const recent = createRecent<string>(1600);
  let made = 0;
  const get = (key: string, content: string) =>
    recent.get(key, Buffer.from(content), () => `${content} ${++made}`);
  assert.equal(get('a', 'one'), 'one 1');
  assert.equal(get('a', 'one'), 'one 1');
  assert.equal(get('a', 'two'), 'two 2');
  assert.equal(get('a', 'one'), 'one 3');
  assert.equal(get('b', 'one'), 'one 4');
  assert.equal(get('a', 'one'), 'one 3');
});

test('what fails is tried again', () => {
  const recent = createRecent<string>(1600);
  const bytes = Buffer.from('bytes');
  assert.throws(() =>
    recent.get('a', bytes, () => {
      throw new Error('no');
    }),
  );
  assert.equal(
    recent.get('a', bytes, () => 'yes'),
    'yes',
  );
});

test('what was not used for longest is forgotten, and what is large is not kept', () => {
  const recent = createRecent<number>(1600);
  let made = 0;
  const get = (key: string, size = 100) => recent.get(key, Buffer.alloc(size), () => ++made);
  for (let index = 0; index < 16; index++) get(`${index}`);
  assert.equal(get('0'), 1);
  get('16');
  assert.equal(get('0'), 1);
  assert.equal(get('1'), 18);
  get('large', 101);
  assert.equal(get('large', 101), 20);
});
