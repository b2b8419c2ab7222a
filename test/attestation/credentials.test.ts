import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { type Credentials, runAs, runAsRefusal, unitOf } from '../../src/attestation/credentials.ts';

const ids = (real: number, effective = real, saved = effective) => ({ real, effective, saved });
const shop: Credentials = { uid: ids(1000), gid: ids(1000), user: 'shop', unit: 'shop.service' };
const refusal = (expected: string[], credentials: Credentials | undefined) =>
  runAsRefusal(expected, credentials)?.message;

test('a process runs as its user by number or name, and as the service that it belongs to', () => {
  for (const expected of ['uid:1000', 'user:shop', 'unit:shop.service']) {
    assert.equal(refusal([expected], shop), undefined);
    assert.equal(refusal(['uid:0', expected], shop), undefined);
  }
  const actual = 'it runs as uid:1000, user:shop, unit:shop.service';
  for (const expected of ['uid:100', 'uid:10000', 'user:sho', 'unit:other.service', 'user:uid:1000'])
    assert.equal(refusal([expected], shop), `${actual}, where ${expected} is expected`);
  assert.equal(refusal(['uid:0', 'user:root'], shop), `${actual}, where uid:0 or user:root is expected`);
  assert.equal(refusal([], shop), `${actual}, where nobody is expected`);
});

test('a process with several users runs as none of them', () => {
  for (const uid of [ids(0, 1000), ids(1000, 0), ids(1000, 1000, 0)])
    assert.match(
      refusal(['uid:0', 'uid:1000', 'user:shop', 'unit:shop.service'], { ...shop, uid }) ?? '',
      /the users/,
    );
});

test('a process of which nobody says as whom it runs does so as nobody', () => {
  assert.match(refusal(['uid:0'], undefined) ?? '', /its LAS, of an older version, does not say/);
});

test('a service is known by its own control group alone', () => {
  assert.equal(unitOf('/system.slice/shop.service'), 'shop.service');
  assert.equal(unitOf('/system.slice/shop-2_a.b@c.service'), 'shop-2_a.b@c.service');
  for (const path of [
    '/',
    '/shop.service',
    '/system.slice',
    '/system.slice/.service',
    '/system.slice/shop.scope',
    '/system.slice/shop.service/',
    '/system.slice/shop.service/inner',
    '/system.slice/a/shop.service',
    '/system.slice/shop.service\n',
    '/../system.slice/shop.service',
    '/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service',
    '/user.slice/system.slice/shop.service',
    `/system.slice/${'a'.repeat(250)}.service`,
  ])
    assert.equal(unitOf(path), undefined, path);
});

test('whom to run as is written in one of three ways', () => {
  for (const text of [
    'uid:0',
    'uid:4294967294',
    'user:www-data',
    'user:müller',
    'user:DOM\\\\shop',
    'unit:a@b.service',
  ])
    assert.ok(v.is(runAs, text), text);
  for (const text of [
    ...['', 'root', 'uid:', 'uid:01', 'uid:-1', 'uid:1000 ', 'uid:99999999999', 'gid:0', 'UID:0'],
    ...['user:', 'user:a b', 'user:a\n', 'user:a\u200bb', 'user:a\u202eb', 'user:a:b', 'user:$$SCONE::a$$'],
    ...['unit:', 'unit:shop', 'unit:.service', 'unit:a/b.service', 'unit:shop.service\n', 'unit:shop.scope'],
  ])
    assert.ok(!v.is(runAs, text), JSON.stringify(text));
});
