import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { type ConnectionOptions, connect, createServer, type TlsOptions } from 'node:tls';
import { promisify } from 'node:util';
import fc from 'fast-check';
import {
  generatePrivateKey,
  type KeyType,
  keyTypes,
  parsePrivateKey,
  publicKeyOf,
  toPem,
} from '../../src/secrets/private-key.ts';
import {
  certificatePublicKey,
  certificateValidity,
  NO_EXPIRY,
  parseCertificates,
  renewalTime,
} from '../../src/secrets/x509.ts';
import { type CertificateRequest, IssuerUnusable, issueCertificate } from '../../src/secrets/x509-issuer.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missing, startServer } from '../support/stack.ts';

const skip = missing('openssl');
const folder = temporaryFolder();

const DAY = 86_400_000;
const now = Math.floor(Date.now() / 1000) * 1000;
const keys = Object.fromEntries(
  await Promise.all(keyTypes.map(async (type) => [type, await generatePrivateKey(type)])),
) as Record<KeyType, Buffer>;

/** A certificate, its key, and the certificates above it. */
interface Issued {
  certificate: Buffer;
  privateKey: Buffer;
  chain: Buffer[];
}

/** Issues a certificate for a key of a type; what is not said is that of a leaf without names. */
async function issue(
  type: KeyType,
  options: Partial<CertificateRequest> = {},
  issuer?: Issued,
): Promise<Issued> {
  const privateKey = options.privateKey ?? keys[type];
  const certificate = await issueCertificate({
    ca: false,
    commonName: 'leaf',
    dns: [],
    ip: [],
    publicKey: publicKeyOf(privateKey),
    ...(issuer ? { issuer } : { privateKey }),
    notBefore: new Date(now - DAY),
    notAfter: new Date(now + 90 * DAY),
    ...options,
  });
  return { certificate, privateKey, chain: issuer ? [issuer.certificate, ...issuer.chain] : [] };
}

const root = (type: KeyType) => issue(type, { ca: true, commonName: `root ${type}`, notAfter: NO_EXPIRY });
const pem = (...certificates: Buffer[]) => certificates.map((der) => toPem('CERTIFICATE', der)).join('');

function file(name: string, content: string | Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

const openssl = (args: string[], input: string | Buffer = '') =>
  execFileSync('openssl', args, { input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] });
const textOf = (certificate: Buffer) =>
  openssl(['x509', '-inform', 'DER', '-noout', '-text', '-nameopt', 'oneline'], certificate);

/** What `openssl verify` says; the last of the chain is trusted. */
function verify({ certificate, chain }: Issued, ...args: string[]): string {
  const trusted = file('trusted.pem', pem(chain.at(-1) ?? certificate));
  const between = file('between.pem', pem(...chain));
  const leaf = file('leaf.pem', pem(certificate));
  const all = ['-x509_strict', '-CAfile', trusted, '-untrusted', between, ...args, leaf];
  const { stdout, stderr } = spawnSync('openssl', ['verify', ...all], { encoding: 'utf8' });
  return stdout + stderr;
}

for (const [index, type] of keyTypes.entries()) {
  const next = (steps: number) => keyTypes[(index + steps) % keyTypes.length] as KeyType;
  test(`openssl verifies leaf <- intermediate <- root of ${next(2)}, ${next(1)}, ${type}`, {
    skip,
  }, async () => {
    const top = await root(type);
    const between = await issue(next(1), { ca: true, commonName: 'between' }, top);
    const names = { dns: ['a.example', '*.b.example'], ip: ['192.0.2.7', '2001:db8::7'] };
    const server = await issue(next(2), { ...names, endpoint: 'server' }, between);

    for (const args of [
      ['-purpose', 'sslserver'],
      ['-verify_hostname', 'a.example'],
      ['-verify_hostname', 'www.b.example'],
      ['-verify_ip', '192.0.2.7'],
      ['-verify_ip', '2001:db8:0:0::7'],
    ])
      assert.match(verify(server, ...args), /: OK/, args.join(' '));
    assert.match(verify(server, '-purpose', 'sslclient'), /unsuitable certificate purpose/);
    assert.match(verify(server, '-verify_hostname', 'leaf'), /hostname mismatch/);
    assert.match(verify(server, '-verify_ip', '192.0.2.8'), /IP address mismatch/);

    const client = await issue(next(2), { endpoint: 'client' }, between);
    assert.match(verify(client, '-purpose', 'sslclient'), /: OK/);
    assert.match(verify(client, '-purpose', 'sslserver'), /unsuitable certificate purpose/);

    const both = await issue(next(2), {}, between);
    for (const purpose of ['sslserver', 'sslclient']) assert.match(verify(both, '-purpose', purpose), /: OK/);

    const stranger = { ...both, chain: [between.certificate, (await root(next(2))).certificate] };
    assert.match(verify(stranger), /unable to get (local )?issuer certificate/);
  });
}

test('extensions are those of RFC 5280', { skip }, async () => {
  const top = await root('P-384');
  const expected: [Issued, (string | RegExp)[]][] = [
    [
      top,
      [
        'X509v3 Basic Constraints: critical\n                CA:TRUE\n',
        'X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n',
        'X509v3 Subject Key Identifier',
        'Subject: CN = root P-384\n',
        'Not After : Dec 31 23:59:59 9999 GMT',
        'ecdsa-with-SHA384',
      ],
    ],
    [
      await issue('P-256', { dns: ['a.example'], ip: ['192.0.2.7'], endpoint: 'server' }, top),
      [
        'X509v3 Basic Constraints: critical\n                CA:FALSE\n',
        'X509v3 Key Usage: critical\n                Digital Signature\n',
        'X509v3 Extended Key Usage: \n                TLS Web Server Authentication\n',
        'X509v3 Subject Alternative Name: \n                DNS:a.example, IP Address:192.0.2.7\n',
        'Issuer: CN = root P-384\n',
        'ecdsa-with-SHA384',
      ],
    ],
    [
      await issue('RSA-2048', { endpoint: 'client' }, top),
      [
        'X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n',
        'X509v3 Extended Key Usage: \n                TLS Web Client Authentication\n',
        /^(?!.*Alternative Name)/s,
      ],
    ],
    [
      await issue('Ed25519', { commonName: '', dns: ['a.example'] }),
      [
        'X509v3 Subject Alternative Name: critical\n                DNS:a.example\n',
        'Subject: \n',
        'Signature Algorithm: ED25519',
        /^(?!.*Extended Key Usage)(?!.*Authority Key)/s,
      ],
    ],
    [await issue('P-256'), ['ecdsa-with-SHA256']],
    [await issue('RSA-3072'), ['sha256WithRSAEncryption']],
  ];
  for (const [{ certificate }, patterns] of expected) {
    const text = textOf(certificate);
    for (const pattern of patterns)
      assert.ok(
        typeof pattern === 'string' ? text.includes(pattern) : pattern.test(text),
        `${pattern} in ${text}`,
      );
  }
});

test('serial numbers are positive, of 17 bytes, and never the same', { skip }, async () => {
  const all = new Set<string>();
  for (let count = 0; count < 20; count++) {
    const { certificate } = await issue('Ed25519');
    const serial = openssl(['x509', '-inform', 'DER', '-noout', '-serial'], certificate).trim();
    assert.match(serial, /^serial=01[0-9A-F]{32}$/);
    all.add(serial);
  }
  assert.equal(all.size, 20);
});

const outerElement = /^ *(\d+):d=2 +hl=(\d+) l= *(\d+)/;
/** Encodings of issuer and subject, as openssl finds them: fourth and sixth part of the signed part. */
function encodedNames(certificate: Buffer): { issuer: string; subject: string } {
  const parts = openssl(['asn1parse', '-inform', 'DER'], certificate)
    .split('\n')
    .flatMap((line) => {
      const [, offset, header, length] = outerElement.exec(line)?.map(Number) ?? [];
      if (offset === undefined || header === undefined || length === undefined) return [];
      return [certificate.toString('hex', offset, offset + header + length)];
    });
  return { issuer: parts[3] ?? '', subject: parts[5] ?? '' };
}

/** A CA that openssl makes: its subject in strings of one type, extensions as told. */
function opensslCa(subject: string, strings = 'utf8only', extensions = ''): Issued {
  const configuration = file(
    'ca.cnf',
    `[req]\ndistinguished_name=dn\nstring_mask=${strings}\nx509_extensions=v3\n[dn]\n[v3]\n` +
      `basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n${extensions}\n`,
  );
  const key = file('ca.key', toPem('PRIVATE KEY', keys['P-256']));
  const args = [
    '-new',
    '-x509',
    '-config',
    configuration,
    '-key',
    key,
    '-utf8',
    '-subj',
    subject,
    '-outform',
    'DER',
  ];
  const certificate = execFileSync('openssl', ['req', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  return { certificate, privateKey: keys['P-256'], chain: [] };
}

const subject =
  '/C=DE/O=Müller & Söhne/OU=*/CN=zz+OU=aa+O=Ü/DC=example/emailAddress=a@b.example/x500UniqueIdentifier=x';
for (const strings of ['utf8only', 'default', 'MASK:0x4', 'MASK:0x0802', 'MASK:0x100'])
  test(`the issuer is named byte for byte as it names itself (${strings})`, { skip }, async () => {
    const ca = opensslCa(subject, strings);
    const leaf = await issue('P-384', {}, ca);
    const itself = encodedNames(ca.certificate);
    assert.match(itself.subject, /^30.{100}/);
    assert.equal(encodedNames(leaf.certificate).issuer, itself.subject);
    assert.match(verify(leaf), /: OK/);
  });

test('the identifier of the issuer’s key is what the issuer says, or made where it says none', {
  skip,
}, async () => {
  const ca = opensslCa('/CN=ca', 'utf8only', 'subjectKeyIdentifier=0102030405');
  assert.match(
    textOf((await issue('P-384', {}, ca)).certificate),
    /Authority Key Identifier: *\n *01:02:03:04:05\n/,
  );

  const silent = opensslCa('/CN=ca', 'utf8only', 'subjectKeyIdentifier=none');
  assert.doesNotMatch(textOf(silent.certificate), /Subject Key Identifier/);
  const leaf = await issue('P-384', {}, silent);
  const usual = /Subject Key Identifier: *\n *(\S+)/.exec(textOf((await issue('P-256')).certificate))?.[1];
  assert.equal(/Authority Key Identifier: *\n *(\S+)/.exec(textOf(leaf.certificate))?.[1], usual);
  assert.match(usual ?? '', /^([0-9A-F]{2}:){19}/);
});

test('names are taken literally', { skip }, async () => {
  for (const commonName of ['#0401', '"quoted"', 'a, O=b + CN=c', '\\0a\\x', 'Überall ✓', ' x ']) {
    const { certificate } = await issue('Ed25519', { commonName });
    assert.equal(new X509Certificate(certificate).toLegacyObject().subject.CN, commonName);
  }
  const ip = ['::1', '::', '::ffff:192.0.2.1', '64:ff9b::192.0.2.33', '2001:DB8:0:0:1::1', '255.255.255.255'];
  const certificate = new X509Certificate((await issue('Ed25519', { ip, dns: ['_a_.example'] })).certificate);
  for (const address of ip) assert.ok(certificate.checkIP(address), address);
  assert.equal(certificate.subjectAltName?.split(', ').length, 1 + ip.length);
  assert.equal(certificate.checkIP('::2'), undefined);
});

for (const [what, names] of [
  ['a host name beyond ASCII', { dns: ['bücher.example'] }],
  ['a host name with a space', { dns: ['a example'] }],
  ['an empty host name', { dns: [''] }],
  ['an address with a zone', { ip: ['fe80::1%eth0'] }],
  ['a network', { ip: ['192.0.2.0/24'] }],
  ['what is no address', { ip: ['localhost'] }],
  ['three parts of an address', { ip: ['192.0.2'] }],
] as const)
  test(`${what} is not made into another`, async () => {
    await assert.rejects(issue('Ed25519', names), TypeError);
  });

test('a certificate ends when it shall, and no later than its issuer', { skip }, async () => {
  const top = await issue('P-256', { ca: true, notAfter: new Date(now + 50 * DAY) });
  const ends = async (notAfter: Date, issuer?: Issued) =>
    certificateValidity((await issue('Ed25519', { notAfter }, issuer)).certificate).notAfter;
  assert.equal(await ends(new Date(now + 49 * DAY), top), now + 49 * DAY);
  assert.equal(await ends(new Date(now + 51 * DAY), top), now + 50 * DAY);
  assert.equal(await ends(NO_EXPIRY, top), now + 50 * DAY);
  assert.equal(await ends(NO_EXPIRY), NO_EXPIRY.getTime());
  assert.equal(await ends(new Date(now + 10_000 * 366 * DAY)), NO_EXPIRY.getTime());
});

test('dates are of the form that RFC 5280 has for their year, in whole seconds', { skip }, async () => {
  const { certificate } = await issue('Ed25519', {
    notBefore: new Date('2049-12-31T23:59:59.999Z'),
    notAfter: new Date('2050-01-01T00:00:00.999Z'),
  });
  const times = openssl(['asn1parse', '-inform', 'DER'], certificate).match(/(UTC|GENERALIZED)TIME.*/g);
  assert.deepEqual(times, ['UTCTIME           :491231235959Z', 'GENERALIZEDTIME   :20500101000000Z']);
  assert.deepEqual(certificateValidity(certificate), {
    notBefore: Date.parse('2049-12-31T23:59:59Z'),
    notAfter: Date.parse('2050-01-01T00:00:00Z'),
  });
});

test('a certificate is to be made anew when a third of its life is left', () => {
  assert.equal(renewalTime(1000, 4000), 3000);
  assert.equal(renewalTime(now, now + 90 * DAY), now + 60 * DAY);
});

test('an issuer that may not issue is refused', { skip }, async () => {
  const top = await root('P-256');
  const refused: [what: string, issuer: Issued, options: Partial<CertificateRequest>, message: RegExp][] = [
    ['a leaf', await issue('P-384', {}, top), {}, /not one that may issue/],
    ['the key of another', { ...top, privateKey: keys['P-384'] }, {}, /not that of the issuer/],
    ['expired', top, { notBefore: new Date('9999-12-31T23:59:59Z') }, /expired/],
    [
      'no further CA',
      opensslCa('/CN=ca', 'utf8only', 'basicConstraints=critical,CA:true,pathlen:0'),
      { ca: true },
      /that issue others/,
    ],
    [
      'no signing',
      opensslCa('/CN=ca', 'utf8only', 'keyUsage=critical,cRLSign'),
      {},
      /not one that may issue/,
    ],
  ];
  for (const [what, issuer, options, message] of refused)
    await assert.rejects(issue('Ed25519', options, issuer), (error) => {
      assert.ok(error instanceof IssuerUnusable, what);
      assert.match(error.message, message, what);
      return true;
    });
  await issue('Ed25519', {}, opensslCa('/CN=ca', 'utf8only', 'basicConstraints=critical,CA:true,pathlen:0'));
  await assert.rejects(
    issueCertificate({
      ca: true,
      commonName: 'x',
      dns: [],
      ip: [],
      publicKey: publicKeyOf(keys.Ed25519),
      notBefore: new Date(now),
      notAfter: NO_EXPIRY,
    }),
    TypeError,
  );
});

test('certificates are read with their issuers', { skip }, async () => {
  const top = await root('RSA-3072');
  const between = await issue('Ed25519', { ca: true, commonName: 'between' }, top);
  const leaf = await issue('P-384', {}, between);
  const all = [leaf.certificate, between.certificate, top.certificate];
  assert.deepEqual(parseCertificates(pem(...all)), all);
  assert.deepEqual(parseCertificates(pem(leaf.certificate)), [leaf.certificate]);
  const annotated = all.map((der) => textOf(der) + pem(der)).join('\n');
  assert.deepEqual(parseCertificates(annotated), all);
  assert.deepEqual(certificatePublicKey(leaf.certificate), publicKeyOf(keys['P-384']));
});

test('what are no certificates with their issuers is refused with a message', { skip }, async (t) => {
  const top = await root('P-256');
  const leaf = await issue('P-384', {}, top);
  const stranger = await issue('Ed25519', { ca: true, commonName: 'root P-256' });
  const altered = Buffer.from(leaf.certificate);
  altered.writeUInt8(altered.readUInt8(30) ^ 1, 30);
  const values: [what: string, value: string, message: RegExp][] = [
    ['nothing', '', /expected X.509/],
    ['no PEM', 'hunter2', /expected X.509/],
    ['a private key', toPem('PRIVATE KEY', keys['P-256']), /expected X.509/],
    ['a private key after it', pem(leaf.certificate) + toPem('PRIVATE KEY', keys['P-384']), /nothing else/],
    ['no end', pem(leaf.certificate).slice(0, -10), /expected X.509/],
    ['half of one', pem(leaf.certificate.subarray(0, 200)), /certificate 1 is damaged/],
    [
      'something after it',
      pem(Buffer.concat([leaf.certificate, Buffer.alloc(3)])),
      /certificate 1 is damaged/,
    ],
    ['zeros', pem(leaf.certificate, Buffer.alloc(300)), /certificate 2 is damaged/],
    ['the root first', pem(top.certificate, leaf.certificate), /certificate 2 is not the issuer/],
    [
      'the issuer of another, of the same name',
      pem(leaf.certificate, stranger.certificate),
      /certificate 2 is not/,
    ],
    ['a signature of something else', pem(altered, top.certificate), /certificate 2 is not|damaged/],
    ['seventeen', pem(...Array.from({ length: 17 }, () => top.certificate)), /at most 16/],
    ['a megabyte', pem(leaf.certificate) + ' '.repeat(1_000_000), /expected X.509/],
  ];
  for (const [what, value, message] of values)
    await t.test(what, () => assert.match(String(parseCertificates(value)), message));
  assert.equal(parseCertificates(pem(...Array.from({ length: 16 }, () => top.certificate))).length, 16);
});

test('any damage to the certificate of an issuer is told, or does no harm', async () => {
  const ca = await root('P-256');
  const at = fc.nat(ca.certificate.length - 1);
  await fc.assert(
    fc.asyncProperty(at, fc.integer({ min: 1, max: 255 }), async (index, change) => {
      const certificate = Buffer.from(ca.certificate);
      certificate.writeUInt8(certificate.readUInt8(index) ^ change, index);
      if (typeof parseCertificates(pem(certificate)) === 'string') return;
      try {
        const leaf = await issue('Ed25519', {}, { ...ca, certificate });
        assert.ok(new X509Certificate(leaf.certificate).verify(new X509Certificate(certificate).publicKey));
      } catch (error) {
        assert.ok(error instanceof IssuerUnusable, String(error));
      }
    }),
    { numRuns: 300 },
  );
});

/** Options of one end of a connection whose peer must show a certificate of a root. */
const end = (own: Issued, trusted: Issued) => ({
  key: toPem('PRIVATE KEY', own.privateKey),
  cert: pem(own.certificate, ...own.chain.slice(0, -1)),
  ca: pem(trusted.certificate),
});

/** A server that says whose certificate it was shown, or what is wrong with that. */
async function listen(options: TlsOptions): Promise<{ port: number; close(): void }> {
  const server = createServer({ ...options, requestCert: true, rejectUnauthorized: false }, (socket) => {
    socket.on('error', () => {});
    const name = socket.getPeerCertificate().subject.CN;
    socket.end(socket.authorized ? `hello ${name}` : `${name}: ${socket.authorizationError}`);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, close: () => server.close() };
}

/** What a server says. */
async function ask(port: number, options: ConnectionOptions): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', servername: 'a.example', ...options });
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  await once(socket, 'end');
  socket.destroy();
  return text;
}

/** A root with a key of its own, one below it, and both ends of a connection that this one has issued. */
async function ends(rootType: KeyType, type: KeyType) {
  const [rootKey, key] = await Promise.all([generatePrivateKey(rootType), generatePrivateKey('P-384')]);
  const top = await issue(rootType, { ca: true, commonName: 'root', privateKey: rootKey });
  const between = await issue('P-384', { ca: true, commonName: 'between', privateKey: key }, top);
  const server = await issue(type, { dns: ['a.example'], ip: ['127.0.0.1'], endpoint: 'server' }, between);
  const client = await issue(type, { commonName: 'the client', endpoint: 'client' }, between);
  return { top, server, client };
}

for (const [index, type] of keyTypes.entries())
  test(`two ends with ${type} keys talk TLS, and refuse those of another root`, async () => {
    const rootType = keyTypes[(index + 3) % keyTypes.length] as KeyType;
    const { top, server, client } = await ends(rootType, type);
    const other = await ends('Ed25519', type);
    const { port, close } = await listen(end(server, top));
    try {
      assert.equal(await ask(port, end(client, top)), 'hello the client');
      assert.match(await ask(port, end(other.client, top)), /^the client: (UNABLE_TO_|SELF_SIGNED)/);
      assert.equal(await ask(port, end(server, top)), 'leaf: INVALID_PURPOSE');
      await assert.rejects(ask(port, end(client, other.top)), { code: /^(UNABLE_TO_|SELF_SIGNED)/ });
      const elsewhere = { ...end(client, top), servername: 'b.example' };
      await assert.rejects(ask(port, elsewhere), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    } finally {
      close();
    }
  });

test('a certificate that signs itself is trusted by those who have it', async () => {
  const server = await issue('P-256', { dns: ['a.example'] });
  const client = await issue('Ed25519', { commonName: 'the client' });
  const { port, close } = await listen(end(server, client));
  try {
    assert.equal(await ask(port, end(client, server)), 'hello the client');
  } finally {
    close();
  }
});

test('curl and openssl talk TLS with these certificates, and refuse another root', {
  skip: missing('openssl', 'curl'),
}, async () => {
  const { top, server, client } = await ends('RSA-2048', 'P-256');
  const trusted = file('tls-root.pem', pem(top.certificate));
  const wrong = file('tls-wrong.pem', pem((await ends('P-256', 'P-256')).top.certificate));
  const path = (name: string, own: Issued) => ({
    certificate: file(`${name}.pem`, end(own, top).cert),
    key: file(`${name}.key`, end(own, top).key),
  });
  const [serverFiles, clientFiles] = [path('tls-server', server), path('tls-client', client)];
  const options = [
    '-cert',
    serverFiles.certificate,
    '-cert_chain',
    serverFiles.certificate,
    '-key',
    serverFiles.key,
  ];
  const running = await startServer(
    'openssl',
    [
      's_server',
      '-accept',
      '127.0.0.1:0',
      '-Verify',
      '3',
      '-verify_return_error',
      '-CAfile',
      trusted,
      '-www',
      ...options,
    ],
    /ACCEPT \S+:(\d+)/,
  );
  const port = running.match[1] ?? '';
  const execute = promisify(execFile);
  const curl = (...args: string[]) =>
    execute('curl', [
      '-sS',
      '--resolve',
      `a.example:${port}:127.0.0.1`,
      `https://a.example:${port}/`,
      ...args,
    ]);
  const identity = ['--cert', clientFiles.certificate, '--key', clientFiles.key];
  try {
    assert.match((await curl('--cacert', trusted, ...identity)).stdout, /CN ?= ?the client/);
    await assert.rejects(curl('--cacert', wrong, ...identity), { code: 60 });
    await assert.rejects(curl('--cacert', trusted));
    const page = await new Promise<string>((resolve, reject) => {
      const socket = connect({ ...end(client, top), port: Number(port), servername: 'a.example' });
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk;
      });
      socket.on('error', reject).on('close', () => resolve(text));
      socket.write('GET / HTTP/1.0\r\n\r\n');
    });
    assert.match(page, /CN ?= ?the client/);
  } finally {
    await running.stop();
  }
});

test('a key and a certificate of openssl can be an issuer', { skip }, async () => {
  const ca = opensslCa('/CN=their ca');
  const key = parsePrivateKey(readFileSync(join(folder, 'ca.key'), 'utf8'));
  const [certificate] = parseCertificates(pem(ca.certificate));
  assert.ok(typeof key === 'object' && Buffer.isBuffer(certificate));
  const leaf = await issue(
    'Ed25519',
    { dns: ['a.example'] },
    { certificate, privateKey: key.der, chain: [] },
  );
  assert.match(verify(leaf, '-verify_hostname', 'a.example'), /: OK/);
});
