import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRecent } from '../../src/cas/recent.ts';

test('what was made is given again for the very same bytes, and for no others', () => {
  const recent = createRecent<string>(1600);
  const [one, two] = [Buffer.from('one'), Buffer.from('two')];
  assert.equal(recent.find('a', one), undefined);
  recent.keep('a', one, 'made');
  assert.equal(recent.find('a', Buffer.from('one')), 'made');
  assert.equal(recent.find('b', one), undefined);
  assert.equal(recent.find('a', two), undefined);
  recent.keep('a', two, 'of two');
  assert.equal(recent.find('a', one), undefined);
  assert.equal(recent.find('a', two), 'of two');
});

test('what was not used for longest is forgotten, and what is large is not kept', () => {
  const recent = createRecent<number>(1600);
  const keep = (key: string, size = 100) => recent.keep(key, Buffer.alloc(size), size);
  const find = (key: string, size = 100) => recent.find(key, Buffer.alloc(size));
  for (let index = 0; index < 16; index++) keep(`${index}`);
  assert.equal(find('0'), 100);
  keep('16');
  assert.equal(find('0'), 100);
  assert.equal(find('1'), undefined);
  keep('large', 801);
  assert.equal(find('large', 801), undefined);
  assert.equal(find('0'), 100);
  keep('half', 800);
  assert.equal(find('half', 800), 800);
  assert.equal(find('2'), undefined);
  assert.equal(find('16'), 100);
});
