import assert from 'node:assert/strict';
import { isIPv6 } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { Failure } from '../../src/errors.ts';
import {
  connectOptions,
  defaultLasSocket,
  formatAddress,
  lasSocket,
  parseAddress,
  portSetting,
} from '../../src/policy/address.ts';
import { anyCharacter } from '../support/any-character.ts';

const accepted: [text: string, host: string, port: number, formatted?: string][] = [
  ['cas', 'cas', 9, 'cas:9'],
  ['cas:1', 'cas', 1],
  ['cas.example-1.org:65535', 'cas.example-1.org', 65535],
  ['my_cas', 'my_cas', 9, 'my_cas:9'],
  ['127.0.0.1:18765', '127.0.0.1', 18765],
  ['::1', '::1', 9, '[::1]:9'],
  ['[::1]', '::1', 9, '[::1]:9'],
  ['[2001:DB8::1]:443', '2001:DB8::1', 443],
  ['::ffff:10.0.0.1', '::ffff:10.0.0.1', 9, '[::ffff:10.0.0.1]:9'],
  ['2001:db8:0:0:0:0:0:1', '2001:db8:0:0:0:0:0:1', 9, '[2001:db8:0:0:0:0:0:1]:9'],
];
for (const [text, host, port, formatted = text] of accepted)
  test(`${text} is port ${port} of ${host}`, () => {
    const address = parseAddress(text, 9, 'X');
    assert.deepEqual(address, { host, port });
    assert.equal(formatAddress(address), formatted);
    assert.deepEqual(parseAddress(formatted, 1, 'X'), address);
  });

const refused = [
  ...[
    '',
    ' ',
    ':',
    'h:',
    'h:0',
    'h:65536',
    'h:123456',
    'h:-1',
    'h:1x',
    'h: 1',
    'h:1:2',
    'h:1\n',
    '-h',
    '.h',
    'é',
  ],
  ...[
    '[::1',
    '::1]',
    '[]',
    '[h]:1',
    '[::1]:0',
    '[::1]x',
    '[::1]:',
    'http://h',
    'h/x',
    'u@h',
    'h\0',
    `${'h'.repeat(300)}`,
  ],
];
for (const text of refused)
  test(`${JSON.stringify(text.slice(0, 20))} is refused, naming where it comes from`, () => {
    assert.throws(() => parseAddress(text, 9, 'SCONE_CAS_ADDR'), {
      code: 'ADDRESS_MALFORMED',
      message: /^SCONE_CAS_ADDR is malformed: "/,
    });
  });

for (const text of ['a:b', ':18765', 'cafe:123456', '[:::::]', ':::', '1::2::3'])
  test(`${text}, which is no IPv6 address, is refused`, () => {
    assert.throws(() => parseAddress(text, 9, 'X'), { code: 'ADDRESS_MALFORMED' });
  });

test('any text is an address or malformed, and every IPv6 address is one', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string({ unit: anyCharacter }), fc.string({ unit: fc.constantFrom(...'a1:.[]%-') })),
      (text) => {
        try {
          const { host, port } = parseAddress(text, 9, 'X');
          assert.ok(host.length > 0 && Number.isInteger(port) && port >= 1 && port <= 65535);
        } catch (error) {
          assert.ok(error instanceof Failure);
        }
      },
    ),
    { numRuns: 300 },
  );
  fc.assert(
    fc.property(fc.ipV6().filter(isIPv6), fc.integer({ min: 1, max: 65535 }), (host, port) => {
      assert.deepEqual(parseAddress(host, port, 'X'), { host, port });
      assert.deepEqual(parseAddress(formatAddress({ host, port }), 9, 'X'), { host, port });
    }),
    { numRuns: 200 },
  );
});

test('a port comes from its variable, or is the default where that is empty', () => {
  assert.equal(portSetting({}, 'P', 9), 9);
  assert.equal(portSetting({ P: '' }, 'P', 9), 9);
  assert.equal(portSetting({ P: '65535' }, 'P', 9), 65535);
  for (const P of ['0', '65536', 'x', '1.0', '1e3', ' 1', '-1', '0x10'])
    assert.throws(
      () => portSetting({ P }, 'P', 9),
      { code: 'ADDRESS_MALFORMED', message: /^P is malformed/ },
      P,
    );
});

test('a path is the socket of the LAS; a host, or nothing, is the one of this host', () => {
  assert.equal(lasSocket('/tmp/las.sock'), '/tmp/las.sock');
  assert.equal(lasSocket('./las.sock'), './las.sock');
  for (const setting of [undefined, '', 'las', 'localhost:18766'])
    assert.equal(lasSocket(setting), defaultLasSocket);
});

test('only a host name that needs resolving is sent as server name', () => {
  assert.deepEqual(connectOptions({ host: 'cas', port: 1 }), { host: 'cas', port: 1, servername: 'cas' });
  assert.deepEqual(connectOptions({ host: '::1', port: 1 }), { host: '::1', port: 1 });
  assert.deepEqual(connectOptions({ host: '10.0.0.1', port: 1 }), { host: '10.0.0.1', port: 1 });
  assert.deepEqual(connectOptions({ host: 'localhost', port: 1 }), { host: '127.0.0.1', port: 1 });
});
