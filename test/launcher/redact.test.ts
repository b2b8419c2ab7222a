import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createRedactor } from '../../src/launcher/redact.ts';
import { missing } from '../support/stack.ts';

const MARK = '[redacted]';

/** Cuts output where told, in turn, and puts together what comes out. */
function redact(secrets: (string | Buffer)[], output: Buffer | string, sizes: number[] = []): Buffer {
  const redactor = createRedactor(secrets.map((secret) => Buffer.from(secret)));
  const bytes = Buffer.from(output);
  const given: Buffer[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length] ?? bytes.length;
    given.push(redactor.push(bytes.subarray(at, at + size)));
    at += size;
  }
  return Buffer.concat([...given, redactor.end()]);
}

describe('what comes between a program and its reader', () => {
  it('replaces each secret', () => {
    assert.equal(
      redact(['hunter2', 'swordfish'], 'a hunter2, b swordfish.').toString(),
      `a ${MARK}, b ${MARK}.`,
    );
  });

  it('replaces overlapping, neighbouring and nested secrets whole', () => {
    const secrets = ['abcdef', 'defghi', 'cdef', 'abcdefghijklmnop'];
    assert.equal(redact(secrets, '<abcdefghi>').toString(), `<${MARK}>`);
    assert.equal(redact(secrets, '<abcdefabcdef>').toString(), `<${MARK}>`);
    assert.equal(redact(secrets, '<xcdefg>').toString(), `<x${MARK}g>`);
    assert.equal(redact(secrets, '<abcdefghijklmnop>').toString(), `<${MARK}>`);
    assert.equal(redact(['aaaa'], 'aaaaaa aaa').toString(), `${MARK} aaa`);
  });

  it('leaves secrets of less than four bytes', () => {
    assert.equal(redact(['abc', ''], 'abc').toString(), 'abc');
    assert.equal(redact(['abc', 'abcd'], 'abc abcd').toString(), `abc ${MARK}`);
  });

  it('passes on at once what cannot be the beginning of a secret', () => {
    const redactor = createRedactor([Buffer.from('hunter2')]);
    const push = (text: string) => redactor.push(Buffer.from(text)).toString();
    for (const text of ['login', ': ', '> ', '100', 'line\n', '{"a":1}', '73 ', 'b', ' \n'])
      assert.equal(push(text), text);
    assert.equal(push('say h'), 'say ');
    assert.equal(push('unt'), '');
    assert.equal(push('ing '), 'hunting ');
    assert.equal(push('hunter'), '');
    assert.equal(push('2'), MARK);
    assert.equal(push('68 75'), '');
    assert.equal(push(' 6f '), '68 75 6f ');
    // aHVudGVyMg== in base64
    assert.equal(push('aHVu'), '');
    assert.equal(push('dHVy'), 'aHVudHVy');
    assert.equal(push('aHVudGVyM'), '');
    assert.equal(push('g'), MARK);
    assert.equal(push('=='), '');
    assert.equal(push('= %6'), '= ');
    assert.equal(push('9 '), '%69 ');
    assert.equal(push('\\u006'), '');
    assert.equal(push('9 '), '\\u0069 ');
    assert.equal(push('hun'), '');
    assert.equal(redactor.end().toString(), 'hun');
  });

  it('does not hold back more than a bounded part of what encoded text may go on after', () => {
    const redactor = createRedactor([Buffer.from('hunter2'.repeat(8))]);
    redactor.push(Buffer.from('68756e746572'.repeat(3)));
    let given = 0;
    for (let line = 0; line < 100; line++) given += redactor.push(Buffer.from('\n')).length;
    assert.ok(given >= 100);
  });

  it('takes as one what belongs together only', () => {
    for (const apart of ['x\\ud83d\\u0061bcd', 'x%zabcd', 'x\\xzabcd', '78z61626364', '786 162636 4'])
      assert.equal(redact(['xabcd'], apart).toString(), apart);
    const secret = Buffer.from('correct horse battery');
    const [line, rest] = [secret.toString('hex').slice(0, 24), secret.toString('hex').slice(24)];
    assert.equal(redact([secret], `${line}\n${' '.repeat(63)}${rest}`).toString(), MARK);
    for (const apart of [`${line}\n${' '.repeat(64)}${rest}`, `${line.slice(2)}\n${rest}`])
      assert.equal(redact([secret.subarray(1)], apart).toString(), apart);
  });

  it('finds the lines of a secret, but not those that hold none', () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const body = pem.trim().split('\n').slice(1, -1);
    for (const output of [
      pem.replace(/^/gm, '  > '),
      pem.split('\n').reverse().join('\n'),
      pem.replaceAll('\n', ' '),
      Buffer.from(body[3] ?? '').toString('base64'),
    ]) {
      const given = redact([pem], output, [7]).toString();
      for (const line of body.filter(({ length }) => length >= 16)) {
        assert.ok(!given.includes(line));
        assert.ok(!given.includes(Buffer.from(line).toString('base64')));
      }
      assert.ok(given.includes(MARK));
    }
    assert.equal(redact([pem], '-----BEGIN PRIVATE KEY-----\n').toString(), '-----BEGIN PRIVATE KEY-----\n');
    assert.equal(
      redact(['{\n  "a": "0123456789abcdef"\n}'], '{ } "a": "0123456789abcdef"').toString(),
      `{ } ${MARK}`,
    );
  });

  it('finds a secret without the line break at its end, and with those of a terminal', () => {
    assert.equal(redact(['hunter2\n'], 'hunter2!').toString(), `${MARK}!`);
    assert.equal(redact(['one\ntwo\n'], 'one\r\ntwo\r\n!').toString(), `${MARK}!`);
  });

  it('holds many long secrets', () => {
    const secrets = Array.from({ length: 200 }, () => randomBytes(2048));
    const output = secrets.flatMap((secret) => [secret, ',', secret.toString('base64'), ',']);
    const given = redact(secrets, Buffer.concat(output.map((part) => Buffer.from(part))), [65536]);
    assert.equal(given.toString(), `${MARK},`.repeat(400));
  });
});

/** Programs that write what they read in an encoding: all of it, or each line by itself. */
const encoders: [name: string, command: string[], reads: 'all' | 'lines'][] = [
  ['openssl, base64', ['openssl', 'base64'], 'all'],
  ['openssl, base64 in one line', ['openssl', 'base64', '-A'], 'all'],
  ['coreutils, base64 in lines of 76', ['base64'], 'all'],
  ['coreutils, base64url', ['basenc', '--base64url', '-w0'], 'all'],
  ['coreutils, hexadecimal', ['basenc', '--base16'], 'all'],
  ['od', ['od', '-An', '-v', '-tx1'], 'all'],
  ['xxd', ['xxd', '-p'], 'all'],
  ['xxd, upper case', ['xxd', '-p', '-u'], 'all'],
  ['jq, JSON', ['jq', '-R', '.'], 'lines'],
  ['jq, JSON in ASCII', ['jq', '-Ra', '.'], 'lines'],
  ['jq, base64', ['jq', '-Rr', '@base64'], 'lines'],
  ['jq, URI', ['jq', '-Rr', '@uri'], 'lines'],
  ['jq, words for a shell', ['jq', '-Rr', '@sh'], 'lines'],
  ['Python, URI', python('urllib.parse.quote(text)'), 'lines'],
  ['Python, form', python('urllib.parse.quote_plus(text)'), 'lines'],
  ['Python, JSON', python('json.dumps(text)'), 'lines'],
  ['Python, representation', python('repr(text)'), 'lines'],
  ['Python, representation of bytes', python('repr(text.encode())'), 'lines'],
  ['Python, word for a shell', python('shlex.quote(text)'), 'lines'],
  ['Python, hexadecimal', python('text.encode().hex(" ")'), 'lines'],
  ['Node, URI', node('encodeURIComponent(text)'), 'lines'],
  ['Node, form', node('String(new URLSearchParams({ text }))'), 'lines'],
  ['Node, JSON', node('JSON.stringify(text)'), 'lines'],
  ['Node, as objects are shown', node('[[text]]'), 'all'],
  ['bash, printf %q', ['bash', '-c', 'printf %q "$(cat)"'], 'all'],
  ['bash, @Q', ['bash', '-c', 'text=$(cat); echo "${text@Q}"'], 'all'],
  ['bash, set -x', ['bash', '-c', 'text=$(cat); set -x; : "$text"'], 'all'],
  ['sh, set -x', ['sh', '-c', 'text=$(cat); set -x; : "$text"'], 'all'],
  ['sed, l', ['sed', '-n', 'l 0'], 'lines'],
];

function python(expression: string): string[] {
  const each = `for text in sys.stdin.read().split("\\n"): print(${expression})`;
  return ['python3', '-X', 'utf8', '-c', `import sys, json, shlex, urllib.parse\n${each}`];
}

function node(expression: string): string[] {
  const each = `for (const text of fs.readFileSync(0, 'utf8').split('\\n')) console.log(${expression})`;
  return [process.execPath, '-e', each];
}

describe('what other programs make of a text with a secret', () => {
  // The same kinds of characters in the same places, so that what is around a secret is written in the same way.
  const kinds: [name: string, before: string, one: string, other: string][] = [
    ['letters', 'a', 'correcthorsebattery', 'Tr0ub4dorAndThreeXY'],
    ['special characters', 'ab', 'p"a\\ss/w+o&r d%$x', 'q"b\\tt/x+p&s e%$y'],
    ['a quote', '', "it's secret", "oh'n o8w5xt"],
    [
      'more than ASCII',
      '{"long": "enough for a line of base64", "key": "',
      'pässwörd\u{1f600}x',
      'qätzwövt\u{1f601}y',
    ],
    ['a tab', '', 'first\tsecond', 'fjrsu\txecone'],
  ];
  for (const [name, [program = '', ...args], reads] of encoders)
    it(name, { skip: missing(program) }, () => {
      const encode = (input: string) => {
        const { status, stdout, stderr } = spawnSync(program, args, { input });
        assert.equal(status, 0, stderr.toString());
        return Buffer.concat([stdout, stderr]).toString('latin1');
      };
      const texts = kinds.flatMap(([, before, ...secrets]) =>
        secrets.map((secret) => `${before}${secret}" and so on`),
      );
      const outputs = reads === 'all' ? texts.map(encode) : encode(texts.join('\n')).split('\n');
      for (const [index, [kind, , ...secrets]] of kinds.entries()) {
        const [one, other] = secrets.map((secret, which) =>
          redact([secret], Buffer.from(outputs[index * 2 + which] ?? '', 'latin1'), [5]).toString('latin1'),
        );
        assert.ok(one?.includes(MARK), `${kind}: ${outputs[index * 2]}`);
        assert.equal(one, other, kind);
      }
    });
});

describe('against the whole output at once', () => {
  // Few different bytes, so that secrets overlap and begin where others end; those of é and of escapes among them.
  const byte = fc.constantFrom(...Buffer.from('aab4%\\nuéA\u{1f600}-'));
  const secret = fc.array(byte, { minLength: 3, maxLength: 40 }).map((bytes) => Buffer.from(bytes));
  const encode: ((bytes: Buffer) => string)[] = [
    (bytes) => bytes.toString('latin1'),
    (bytes) => bytes.toString('hex'),
    (bytes) => bytes.toString('hex').toUpperCase(),
    (bytes) => bytes.toString('hex').replace(/..(?=.)/g, '$& '),
    (bytes) => bytes.toString('hex').replace(/.{24,30}/g, '$&\n  '),
    (bytes) => bytes.toString('base64'),
    (bytes) => bytes.toString('base64url'),
    (bytes) => bytes.toString('base64').replace(/.{24}/g, '$&\r\n'),
    (bytes) => bytes.toString('hex').replace(/../g, '%$&'),
    (bytes) => bytes.toString('latin1').replace(/[^a4]/g, (c) => `%${c.charCodeAt(0).toString(16)}`),
    (bytes) => Buffer.from(JSON.stringify(bytes.toString())).toString('latin1'),
    (bytes) => bytes.toString().replace(/[^a4]/g, (c) => escapeUnits(c)),
    (bytes) =>
      bytes
        .toString('latin1')
        .replace(/[^a4nux]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`),
    (bytes) =>
      bytes
        .toString('latin1')
        .replace(/[^a4n]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`),
  ];
  const filler = fc
    .array(fc.constantFrom(...'aab4%\\nux{=:  \n\r6197'), { maxLength: 8 })
    .map((all) => all.join(''));

  it('gives the same, however the output comes', () => {
    fc.assert(
      fc.property(
        fc.array(secret, { minLength: 1, maxLength: 4 }),
        fc.array(fc.tuple(filler, fc.nat(), fc.nat(), fc.nat(8), fc.nat(8)), { maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 5 }),
        (secrets, pieces, sizes) => {
          const output = pieces.map(([text, which, how, before, after]) => {
            // Often something stands around the secret, or a part of it is missing.
            const chosen = Buffer.from(secrets[which % secrets.length] ?? '');
            const around = Buffer.concat([
              chosen.subarray(0, before % 3),
              chosen.subarray(after === 1 ? 1 : 0),
              chosen.subarray(0, after % 3),
            ]);
            return text + (encode[how % encode.length]?.(around) ?? '');
          });
          const bytes = Buffer.from(output.join(''), 'latin1');
          assert.equal(redact(secrets, bytes, sizes).toString('latin1'), naive(secrets, bytes));
        },
      ),
      { numRuns: 500 },
    );
  });
});

function escapeUnits(text: string): string {
  return text.replace(/[\s\S]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** The same by regular expressions over the whole, one for each secret and encoding, one character a byte. */
function naive(secrets: Buffer[], output: Buffer): string {
  const text = output.toString('latin1');
  const patterns = secrets.filter(({ length }) => length >= 4);
  const covered = new Uint8Array(text.length + 1);
  for (const pattern of patterns) {
    for (const expression of [plain(pattern), hex(pattern), ...base64(pattern)])
      for (let at = 0; at < text.length; at++) {
        expression.lastIndex = at;
        const match = expression.exec(text);
        if (match) covered.fill(1, at, at + match[0].length);
      }
    for (const tokens of [percent(text), backslash(text)])
      for (let at = 0; at < tokens.length; at++)
        if (pattern.every((byte, index) => tokens[at + index]?.byte === byte))
          covered.fill(1, tokens[at]?.start, tokens[at + pattern.length - 1]?.end);
  }
  return text.replace(/[\s\S]/g, (character, at: number) => {
    if (!covered[at]) return character;
    return at > 0 && covered[at - 1] ? '' : MARK;
  });
}

const hexadecimal = (byte: number) => byte.toString(16).padStart(2, '0');
const plain = (pattern: Buffer) =>
  new RegExp([...pattern].map((byte) => `\\x${hexadecimal(byte)}`).join(''), 'y');

const wrapped = (line: string) => `(?:(?<=${line})[\\r\\n][\\r\\n \\t]{0,63})?`;
const hex = (pattern: Buffer) =>
  new RegExp([...pattern].map(hexadecimal).join(`[ :]?${wrapped('(?:[0-9a-fA-F][ :]?){24}')}`), 'yi');

function base64(pattern: Buffer): RegExp[] {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
  return [0, 1, 2].map((before) => {
    const bits =
      '?'.repeat((before * 8) % 6) + [...pattern].map((byte) => byte.toString(2).padStart(8, '0')).join('');
    const classes = (bits.match(/.{1,6}/g) ?? []).map((six) => {
      const fits = new RegExp(`^${six.padEnd(6, '?').replaceAll('?', '.')}$`);
      const characters = [...alphabet].filter((_, value) => fits.test(value.toString(2).padStart(6, '0')));
      return `[${characters.join('').replace('+', '+\\-').replace('/', '/_')}]`;
    });
    const padding = 2 - ((before + pattern.length - 1) % 3);
    return new RegExp(`${classes.join(wrapped('[\\w+/-]{24}'))}={0,${padding}}`, 'y');
  });
}

type Token = { byte: number | undefined; start: number; end: number };

function percent(text: string): Token[] {
  return [...text.matchAll(/%([0-9a-f]{2})|%[0-9a-f]?|([\s\S])/gi)]
    .map(([all, digits, literal]) => ({
      byte: digits ? Number.parseInt(digits, 16) : literal?.charCodeAt(0),
      start: 0,
      end: all.length,
    }))
    .reduce(place, []);
}

function backslash(text: string): Token[] {
  const unit = '\\\\u([0-9a-fA-F]{4})';
  const low = '\\\\u([dD][c-fC-F][0-9a-fA-F]{2})';
  const tokens = new RegExp(
    `\\\\u([dD][89abAB][0-9a-fA-F]{2})${low}|${unit}|\\\\x([0-9a-fA-F]{2})|\\\\([0-7]{3})|\\\\(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?|[0-7]{1,2})|\\\\([\\s\\S])|([^\\\\])|\\\\`,
    'g',
  );
  const simple: Record<string, string> = {
    a: '\x07',
    b: '\b',
    t: '\t',
    n: '\n',
    v: '\v',
    f: '\f',
    r: '\r',
    e: '\x1b',
    E: '\x1b',
  };
  return [...text.matchAll(tokens)]
    .flatMap(([all, high, second, single, byte, octal, escaped, literal]): Token[] => {
      let bytes: (number | undefined)[] = [undefined];
      if (high && second) bytes = [...Buffer.from(JSON.parse(`"\\u${high}\\u${second}"`))];
      else if (single && !/^d[89a-f]/i.test(single)) bytes = [...Buffer.from(JSON.parse(`"\\u${single}"`))];
      else if (byte) bytes = [Number.parseInt(byte, 16)];
      else if (octal) bytes = [Number.parseInt(octal, 8) & 255];
      else if (escaped) bytes = [(simple[escaped] ?? escaped).charCodeAt(0)];
      else if (literal) bytes = [literal.charCodeAt(0)];
      return bytes.map((value, index) => ({ byte: value, start: index, end: index === 0 ? all.length : 0 }));
    })
    .reduce(place, []);
}

/** Places tokens one after the other; one that starts above 0 is a further byte of the one before. */
function place(placed: Token[], { byte, start, end }: Token): Token[] {
  const last = placed.at(-1);
  const from = last?.end ?? 0;
  if (start > 0 && last) placed.push({ byte, start: last.start, end: last.end });
  else placed.push({ byte, start: from, end: from + end });
  return placed;
}
