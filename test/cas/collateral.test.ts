import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { keyServicePaths } from '../../src/attestation/amd/key-service.ts';
import { parseSnpReport } from '../../src/attestation/amd/report.ts';
import { verifySnpReport } from '../../src/attestation/amd/verify.ts';
import { type Collateral, fileOf, parseCollateral } from '../../src/attestation/collateral.ts';
import { documentsOf } from '../../src/attestation/documents.ts';
import { type CollateralNeed, needOf } from '../../src/attestation/hardware.ts';
import { verifyIntelQuote } from '../../src/attestation/intel/verify.ts';
import { parseCertificate } from '../../src/attestation/x509/certificate.ts';
import {
  type CollateralKeeper,
  type KeeperOptions,
  openCollateral,
} from '../../src/cas/collateral/collateral.ts';
import { AMD, addressOf, INTEL } from '../../src/cas/collateral/source.ts';
import { keyring, makeMasterKeys } from '../../src/cas/keyring.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { openStore } from '../../src/cas/store/sql.ts';
import { openSqlite } from '../../src/cas/store/sqlite.ts';
import type { Store } from '../../src/cas/store/store.ts';
import * as amd from '../attestation/amd/synthetic.ts';
import * as intel from '../attestation/intel/synthetic.ts';
import { type CollateralServer, type Served, serveCollateral } from '../support/collateral-server.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { certificate, der, pem, revocationList } from '../support/pki.ts';
import { recorded, skip } from '../support/quotes.ts';
import { until } from '../support/until.ts';

/** Collateral that a CAS fetches, keeps and fetches anew, from a local server. */

const DAY = 86_400_000;
const processors = intel.maker();
const key = intel.pck(processors);
const chain = [processors.platformCa, processors.root];
const quote = intel.quote({ tee: 'tdx', body: intel.domainReport(), pck: key, chain });
const as = { roots: processors.roots, at: intel.at };
const need = needOf({ type: 'tdx', nonce: '', quote: quote.toString('base64') }, as) as CollateralNeed;
const milan = amd.maker('Milan');
const chipKey = amd.vcek(milan);
const report = amd.report('Milan', chipKey.key);
const amdNeed = needOf(
  { type: 'sev-snp', nonce: '', certificates: '', report: report.toString('base64') },
  as,
);
const roots = new Set([...processors.roots, ...milan.roots]);

const TCB = '/tdx/certification/v4/tcb?fmspc=00906ed50000';
const IDENTITY = '/tdx/certification/v4/qe/identity';
const PCK_LIST = '/sgx/certification/v4/pckcrl?ca=platform&encoding=der';
const ROOT_LIST = '/sgx/certification/v4/rootcacrl';
const INTEL_PATHS = [TCB, IDENTITY, PCK_LIST, ROOT_LIST];

const month = { thisUpdate: intel.at - 10 * DAY, nextUpdate: intel.at + 20 * DAY };
const signers = processors.tcbSigning.pem + processors.root.pem;

/** What a caching service of Intel's gives. */
function intelFiles(tcb = intel.tcbInfo('TDX', [{}])): [string, Served][] {
  const document = (name: 'tcbInfo' | 'enclaveIdentity', content: object) =>
    intel.signedDocument(name, content, processors.tcbSigning);
  return [
    [TCB, { body: document('tcbInfo', tcb), chain: ['TCB-Info-Issuer-Chain', signers] }],
    [
      IDENTITY,
      {
        body: document('enclaveIdentity', intel.identity('TDX', [{ isvsvn: 8 }])),
        chain: ['SGX-Enclave-Identity-Issuer-Chain', signers],
      },
    ],
    [
      PCK_LIST,
      {
        body: revocationList({ issuer: processors.platformCa, ...month }),
        chain: ['SGX-PCK-CRL-Issuer-Chain', processors.platformCa.pem + processors.root.pem],
      },
    ],
    // A caching service gives this one in hexadecimal.
    [ROOT_LIST, { body: Buffer.from(revocationList({ issuer: processors.root, ...month }).toString('hex')) }],
  ];
}

const paths = keyServicePaths(parseSnpReport(report).fields);
const amdFiles: [string, Served][] = [
  [paths?.certificate ?? '', { body: chipKey.der }],
  ['/vcek/v1/Milan/cert_chain', { body: Buffer.from(milan.ask.pem + milan.ark.pem) }],
  ['/vcek/v1/Milan/crl', { body: revocationList({ issuer: milan.ark, ...month }) }],
];

let server: CollateralServer;
let directory: string;
let database: Database;
let store: Store;
const { authenticate } = keyring(makeMasterKeys());
let now: number;
let logged: string[];
const open: CollateralKeeper[] = [];
async function keeper(options: Partial<KeeperOptions> = {}): Promise<CollateralKeeper> {
  const note = (fields: object, message: string) => void logged.push(`${message} ${JSON.stringify(fields)}`);
  const opened = await openCollateral({
    store,
    sources: server.sources,
    roots,
    clock: () => now,
    log: { info: note, warn: note, error: note },
    ...options,
  });
  open.push(opened);
  return opened;
}

beforeEach(async () => {
  directory = temporaryFolder();
  database = openSqlite(join(directory, 'cas.db'));
  store = openStore(database, authenticate);
  server = await serveCollateral([...intelFiles(), ...amdFiles]);
  now = intel.at;
  logged = [];
});
afterEach(async () => {
  for (const each of open.splice(0)) each.close();
  await server.close();
  await database.close();
});

const verify = (bag: Collateral) => verifyIntelQuote(quote, bag, now, processors.roots).status;
const missing = (work: Promise<unknown>, what: RegExp) =>
  assert.rejects(work, (error: Error & { code?: string }) => {
    assert.equal(error.code, 'COLLATERAL_MISSING', String(error));
    assert.match(error.message, what);
    return true;
  });

test('what many launches need at once is fetched once, and never again while it is good', async () => {
  const kept = await keeper();
  const bags = await Promise.all(Array.from({ length: 50 }, () => kept.forQuote(need)));
  assert.deepEqual(server.asked.toSorted(), INTEL_PATHS.toSorted());
  for (const bag of bags) assert.equal(verify(bag), 'UpToDate');
  assert.equal(await kept.forQuote(need), await kept.forQuote(need), 'the same, parsed once');
  assert.equal(server.asked.length, 4);
});

test('AMD gives chain, list and the certificate of the chip', async () => {
  const kept = await keeper();
  assert.ok(amdNeed.kind === 'amd');
  const bag = await kept.forQuote(amdNeed);
  const verdict = verifySnpReport(report, bag, now, milan.roots);
  assert.equal(verdict.isRevocationChecked, true);
  assert.deepEqual(server.asked.toSorted(), amdFiles.map(([path]) => path).toSorted());
  await kept.forQuote(amdNeed);
  assert.equal(server.asked.length, 3);
});

test('nobody is asked for the certificate of a chip that comes with the Evidence', async () => {
  const entry = Buffer.alloc(24);
  entry.writeUInt32LE(48, 16);
  entry.writeUInt32LE(chipKey.der.length, 20);
  const certificates = Buffer.concat([entry, Buffer.alloc(24), chipKey.der]).toString('base64');
  const evidence = { type: 'sev-snp', nonce: '', certificates, report: report.toString('base64') } as const;
  const kept = await keeper();
  await kept.forQuote(needOf(evidence, as) as CollateralNeed);
  assert.deepEqual(server.asked.toSorted(), ['/vcek/v1/Milan/cert_chain', '/vcek/v1/Milan/crl']);
  const late = { ...as, at: parseCertificate(chipKey.der).notAfter + 1 };
  await kept.forQuote(needOf(evidence, late) as CollateralNeed);
  assert.ok(server.asked.includes(paths?.certificate ?? ''), 'unless it has run out');
});

test("a provider's key comes by a file where Evidence does not bring it", async () => {
  const provided = amd.vlek(milan);
  const bytes = amd.report('Milan', provided.key, { flags: amd.VLEK_FLAG });
  const evidence = {
    type: 'sev-snp',
    nonce: '',
    certificates: '',
    report: bytes.toString('base64'),
  } as const;
  const wanted = needOf(evidence, as) as CollateralNeed;
  const kept = await keeper({ sources: undefined });
  const list = revocationList({ issuer: milan.ark, ...month });
  await kept.add([
    { name: 'chain', bytes: Buffer.from(milan.asvk.pem + milan.ark.pem) },
    { name: 'vlek-list', bytes: list },
  ]);
  const verdict = async () => verifySnpReport(bytes, await kept.forQuote(wanted), now, milan.roots);
  await assert.rejects(verdict(), { code: 'COLLATERAL_MISSING' });
  await kept.add([{ name: 'key', bytes: provided.der }]);
  assert.equal((await verdict()).isRevocationChecked, true);
});

test("no file passes off one of the lists of AMD's roots as the other", async () => {
  const list = (day: number, revoked: number[]) =>
    revocationList({ issuer: milan.ark, thisUpdate: now - day * DAY, nextUpdate: now + DAY, revoked });
  const chain = { name: 'chain', bytes: Buffer.from(milan.ask.pem + milan.ark.pem) };
  const fetching = await keeper();
  const [, , refused] = await fetching.add([chain, { name: 'vcek', bytes: list(2, []) }]);
  assert.deepEqual([refused?.key, refused?.outcome], ['crl/ARK-Milan/vcek', 'refused']);

  const kept = await keeper({ sources: undefined });
  const outcome = async (bytes: Buffer) => (await kept.add([{ name: 'vcek', bytes }]))[0]?.outcome;
  assert.equal(await outcome(list(3, [amd.askSerial])), 'kept');
  assert.equal(await outcome(list(2, [])), 'refused', 'it was revoked before');
  assert.equal(await outcome(list(1, [amd.askSerial, 7])), 'kept');
});

test('documents may come in any order', async () => {
  const kept = await keeper();
  assert.ok(amdNeed.kind === 'amd');
  // Those that bring the certificates of issuers.
  server.late = new Set([TCB, PCK_LIST, IDENTITY, '/vcek/v1/Milan/cert_chain']);
  assert.equal(verify(await kept.forQuote(need)), 'UpToDate');
  assert.ok(verifySnpReport(report, await kept.forQuote(amdNeed), now, milan.roots).isRevocationChecked);
});

test('what is kept outlives the process, and needs no network then', async () => {
  await (await keeper()).forQuote(need);
  const again = await keeper({ sources: undefined });
  assert.equal(verify(await again.forQuote(need)), 'UpToDate');
  assert.equal(server.asked.length, 4);
});

test('what was kept and has run out, or is spoiled, is fetched at the start and keeps nobody from starting', async () => {
  await (await keeper()).forQuote(need);
  const spoiled = { issued: 1, until: now * 2, kept: now, content: Buffer.from('30820001ff', 'hex') };
  await store.keepCollateral({ key: 'crl/spoiled', ...spoiled });
  now += 25 * DAY;
  const later = { thisUpdate: now - DAY, nextUpdate: now + DAY };
  server.files.set(ROOT_LIST, { body: revocationList({ issuer: processors.root, ...later }) });
  logged = [];
  const kept = await keeper();
  assert.match(logged.join('\n'), /cannot be read .*crl\/spoiled/);
  await until(
    () => logged.some((line) => /^collateral fetched .*crl\/Intel SGX Root CA/.test(line)),
    'the list is fetched',
  );
  assert.equal(kept.list().find(({ key }) => key === 'crl/Intel SGX Root CA')?.until, later.nextUpdate);
});

test('what runs out before long is fetched anew, ahead of that', async () => {
  const kept = await keeper();
  await kept.forQuote(need);
  await kept.refresh();
  assert.equal(server.asked.length, 4, 'it has long to go');
  now += 12 * DAY;
  const later = { issueDate: '2026-01-12T00:00:00Z', nextUpdate: '2026-02-11T00:00:00Z' };
  server.files = new Map(intelFiles(intel.tcbInfo('TDX', [{ status: 'OutOfDate' }], later)));
  await kept.refresh();
  assert.deepEqual(server.asked.slice(4).toSorted(), INTEL_PATHS.toSorted());
  assert.equal(verify(await kept.forQuote(need)), 'OutOfDate');
  const tcb = kept.list().find((each) => each.key.startsWith('intel/tcb-info'));
  assert.deepEqual([tcb?.from, tcb?.kept], [Date.parse(later.issueDate), now]);
});

test('a service that gives the same again, or an earlier evaluation, is told of', async () => {
  const kept = await keeper();
  await kept.forQuote(need);
  now += 15 * DAY;
  const later = { issueDate: '2026-01-12T00:00:00Z', nextUpdate: '2026-02-11T00:00:00Z' };
  const earlier = { ...later, tcbEvaluationDataNumber: 16 };
  server.files = new Map(intelFiles(intel.tcbInfo('TDX', [{ status: 'OutOfDate' }], earlier)));
  await kept.refresh();
  assert.match(logged.join('\n'), /runs out, and no newer one came .*intel\/identity.*the same came again/);
  assert.match(logged.join('\n'), /runs out, and no newer one came .*intel\/tcb-info.*an older one came/);
  assert.equal(verify(await kept.forQuote(need)), 'UpToDate');
  // What has run out is of no use, and what comes now is in date.
  now = Date.parse('2026-01-22T00:00:00Z');
  const month = { thisUpdate: now - DAY, nextUpdate: now + DAY };
  const dates = { issueDate: '2026-01-21T00:00:00Z', nextUpdate: '2026-02-20T00:00:00Z' };
  server.files = new Map(intelFiles(intel.tcbInfo('TDX', [{ status: 'OutOfDate' }], earlier)));
  const identity = intel.identity('TDX', [{ isvsvn: 8 }], dates);
  const files: [string, Buffer][] = [
    [IDENTITY, intel.signedDocument('enclaveIdentity', identity, processors.tcbSigning)],
    [PCK_LIST, revocationList({ issuer: processors.platformCa, ...month })],
    [ROOT_LIST, revocationList({ issuer: processors.root, ...month })],
  ];
  for (const [path, body] of files) server.files.set(path, { body });
  assert.equal(verify(await kept.forQuote(need)), 'OutOfDate');
});

test('a CAS that stops waits for no service', async () => {
  const kept = await keeper();
  await kept.forQuote(need);
  now += 15 * DAY;
  server.asked = [];
  logged = [];
  const asked = new Promise<void>((resolve) => {
    server.behave = () => resolve();
  });
  const refreshed = kept.refresh();
  await asked;
  kept.close();
  await refreshed;
  assert.equal(server.asked.length, 1, 'and asks no other');
  assert.deepEqual(logged, []);
});

test('where nothing newer comes the old goes on, and its end is told', async () => {
  const kept = await keeper();
  await kept.forQuote(need);
  now += 15 * DAY;
  server.behave = (_, response) => void response.writeHead(503).end();
  await kept.refresh();
  assert.match(logged.join('\n'), /runs out, and no newer one came .*2026-01-21T00:00:00Z.*status 503/);
  assert.equal(verify(await kept.forQuote(need)), 'UpToDate');
  now += 6 * DAY;
  await missing(kept.forQuote(need), /intel|crl/);
});

test('an older document never takes the place of a newer one', async () => {
  const kept = await keeper();
  const newer = { issueDate: '2025-12-30T00:00:00Z' };
  const files = (tcb: object) => [
    { name: 'tcb', bytes: intel.signedDocument('tcbInfo', tcb, processors.tcbSigning) },
  ];
  await kept.forQuote(need);
  const [replaced] = await kept.add(files(intel.tcbInfo('TDX', [{ status: 'OutOfDate' }], newer)));
  assert.equal(replaced?.outcome, 'kept');
  const [older] = await kept.add(files(intel.tcbInfo('TDX', [{}])));
  assert.equal(older?.outcome, 'older');
  assert.equal(verify(await kept.forQuote(need)), 'OutOfDate');
  assert.equal(verify(await (await keeper({ sources: undefined })).forQuote(need)), 'OutOfDate');
});

test('a service that is away, slow, large, odd or elsewhere is told of in the log, and in general terms to launchers', async () => {
  const elsewhere = await serveCollateral(intelFiles());
  try {
    const behaviours: [RegExp, CollateralServer['behave']][] = [
      [/status 500/, (_, response) => void response.writeHead(500).end()],
      [
        /status 302/,
        (_, response) => void response.writeHead(302, { location: `${elsewhere.sources.pccs}` }).end(),
      ],
      [/more than 1048576 bytes/, (_, response) => void response.end(Buffer.alloc(2 << 20))],
      [/gave something else/, (_, response) => void response.end('{"nothing": 1}')],
      [/unexpected|cannot be read|no JSON/, (_, response) => void response.end('{"tcbInfo": {}}')],
      [/gave something else|cannot be read/, (_, response) => void response.end(processors.root.der)],
      [/connection closed/, (request) => void request.socket.destroy()],
      [/no answer in time/, () => {}],
    ];
    for (const [reason, behave] of behaviours) {
      const kept = await keeper();
      logged = [];
      server.behave = behave;
      await missing(kept.forQuote(need), /^the Evidence cannot be checked without (intel|crl)/);
      assert.match(logged.join('\n'), reason);
      assert.equal(kept.list().filter(({ key }) => key.startsWith('intel/')).length, 0);
    }
    assert.deepEqual(elsewhere.asked, [], 'nobody is sent elsewhere');
  } finally {
    await elsewhere.close();
  }
});

test('what has failed is not tried again at once', async () => {
  const kept = await keeper();
  server.behave = (_, response) => void response.writeHead(500).end();
  await missing(kept.forQuote(need), /./);
  const { length } = server.asked;
  await missing(kept.forQuote(need), /./);
  assert.equal(server.asked.length, length);
  server.behave = undefined;
  // Nor for long where the clock was set back.
  for (const later of [11_000, -DAY]) {
    const again = await keeper({ store: openStore(openSqlite(':memory:'), authenticate) });
    server.behave = (_, response) => void response.writeHead(500).end();
    await missing(again.forQuote(need), /./);
    server.behave = undefined;
    now += later;
    assert.equal(verify(await again.forQuote(need)), 'UpToDate');
  }
});

test('a caching service is checked by the certificates that are given for it', async () => {
  const authority = certificate({ commonName: 'caching services', ca: true });
  // subjectAltName (RFC 5280): an iPAddress.
  const address = der(0x30, der(0x87, Buffer.of(127, 0, 0, 1)));
  const own = certificate({
    commonName: 'pccs',
    issuer: authority,
    extensions: [{ id: '2.5.29.17', content: address }],
  });
  const files = new Map(intelFiles());
  const https = createServer(
    { cert: own.pem, key: own.key.export({ type: 'pkcs8', format: 'pem' }) },
    (request, response) => {
      const { body, chain } = files.get(request.url ?? '') ?? {};
      response.writeHead(200, chain && { [chain[0]]: encodeURIComponent(chain[1]) }).end(body);
    },
  );
  https.listen(0, '127.0.0.1');
  await once(https, 'listening');
  try {
    const pccs = new URL(`https://127.0.0.1:${(https.address() as AddressInfo).port}/`);
    const sources = { ...server.sources, pccs };
    await missing((await keeper({ sources })).forQuote(need), /./);
    assert.match(logged.join('\n'), /collateral is missing .*certificate/);
    const kept = await keeper({ sources: { ...sources, pccsCa: authority.pem } });
    assert.equal(verify(await kept.forQuote(need)), 'UpToDate');
  } finally {
    https.closeAllConnections();
    https.close();
  }
});

test('who posts forged certificates makes a CAS try each once', async (context) => {
  const kept = await keeper({ sources: undefined });
  await kept.add(documentsOf(intel.collateral({ by: processors, tee: 'TDX' })).map(({ file }) => file));
  const forged = Array.from({ length: 100 }, () =>
    certificate({
      commonName: 'Intel SGX Root CA',
      issuer: { commonName: 'Intel SGX Root CA', key: key.key },
      ca: true,
    }),
  );
  const check = context.mock.method(X509Certificate.prototype, 'verify');
  const added = await kept.add([{ name: 'x', bytes: Buffer.from(forged.map((each) => each.pem).join('')) }]);
  assert.deepEqual(new Set(added.map(({ outcome }) => outcome)), new Set(['refused']));
  assert.equal(added.length, 100);
  assert.ok(check.mock.callCount() <= 100, `${check.mock.callCount()} signatures`);
  const many = Buffer.concat(Array.from({ length: 257 }, () => Buffer.from(processors.root.pem)));
  await assert.rejects(kept.add([{ name: 'x', bytes: many }]), { code: 'COLLATERAL_INVALID' });
});

test('what a signer that was revoked has signed is not kept', async () => {
  const kept = await keeper({ sources: undefined });
  const { serial } = parseCertificate(processors.tcbSigning.der);
  const list = revocationList({ issuer: processors.root, ...month, revoked: [BigInt(`0x${serial}`)] });
  const files = documentsOf(intel.collateral({ by: processors, tee: 'TDX' })).map(({ file }) => file);
  await kept.add([{ name: 'chain', bytes: Buffer.from(signers) }]);
  await kept.add([{ name: 'list', bytes: list }]);
  const added = await kept.add(files);
  const outcome = (of: string) => added.find((each) => each.key.startsWith(of));
  assert.match(outcome('intel/tcb-info')?.detail ?? '', /revoked/);
  assert.match(outcome('certificate/Intel SGX TCB Signing')?.detail ?? '', /revoked/);
  assert.equal(outcome('certificate/Intel SGX PCK Platform CA')?.outcome, 'kept');
});

test('without a network files bring it, signed and in date, and nothing else does', async () => {
  const kept = await keeper({ sources: undefined });
  await missing(kept.forQuote(need), /intel|crl/);
  const bag = intel.collateral({ by: processors, tee: 'TDX' });
  const files = documentsOf(bag).map(({ file }) => file);
  const added = await kept.add(files);
  assert.deepEqual(added.map(({ key }) => key).toSorted(), [
    'certificate/Intel SGX PCK Platform CA',
    'certificate/Intel SGX Root CA',
    'certificate/Intel SGX TCB Signing',
    'crl/Intel SGX PCK Platform CA',
    'crl/Intel SGX Root CA',
    'intel/identity/TD_QE',
    'intel/tcb-info/tdx/00906ed50000/0000',
  ]);
  assert.equal(verify(await kept.forQuote(need)), 'UpToDate');

  const stranger = intel.maker();
  const forged = [
    fileOf({ tcbInfos: intel.collateral({ by: stranger, tee: 'SGX' }).tcbInfos }),
    stranger.root.der,
    stranger.platformCa.der,
    revocationList({ issuer: { commonName: 'Intel SGX Root CA', key: stranger.root.key } }),
    revocationList({ issuer: processors.root, thisUpdate: now - 60 * DAY, nextUpdate: now - DAY }),
  ];
  const before = kept.list().length;
  const good = documentsOf(bag)[0]?.file;
  assert.ok(good);
  for (const bytes of forged) {
    const [first, second] = await kept.add([{ name: 'x', bytes }, good]);
    assert.equal(first?.outcome, 'refused');
    assert.ok(first?.detail);
    assert.equal(second?.outcome, 'kept', 'what is good is kept all the same');
  }
  const broken = { name: 'x', bytes: Buffer.from('{"tcbInfo": 5, "signature": ""}') };
  await assert.rejects(kept.add([broken]), { code: 'COLLATERAL_INVALID' });
  assert.deepEqual(await kept.add([{ name: 'x', bytes: Buffer.from('anything') }]), []);
  assert.deepEqual(await kept.add([{ name: 'pck', bytes: key.der }]), [], 'a quote brings its own');
  assert.equal(kept.list().length, before);
});

test('of certificates of chips only so many are kept', async () => {
  for (let index = 0; index < 4100; index++)
    await store.keepCollateral({
      key: `/vcek/v1/Milan/${index}`,
      issued: 1,
      until: 2,
      kept: index,
      content: Buffer.alloc(0),
    });
  await store.keepCollateral({
    key: 'intel/identity/QE',
    issued: 1,
    until: 2,
    kept: 0,
    content: Buffer.alloc(0),
  });
  const rows = await store.collateral();
  assert.equal(rows.length, 4097);
  assert.equal(
    rows.some((row) => row.key === '/vcek/v1/Milan/0'),
    false,
  );
  assert.equal(
    rows.some((row) => row.key === '/vcek/v1/Milan/4099'),
    true,
  );
});

test('the makers themselves are asked at the addresses that they publish', () => {
  const sources = { pccs: new URL(INTEL), kds: new URL(AMD) };
  const address = (of: string) => addressOf(of, sources)?.href;
  assert.equal(
    address('intel/tcb-info/sgx/00606a000000/0000'),
    'https://api.trustedservices.intel.com/sgx/certification/v4/tcb?fmspc=00606a000000',
  );
  assert.equal(
    address('crl/Intel SGX Root CA'),
    'https://certificates.trustedservices.intel.com/IntelSGXRootCA.der',
  );
  assert.equal(
    address('crl/Intel SGX PCK Processor CA'),
    'https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca=processor&encoding=der',
  );
  assert.equal(address('crl/ARK-Turin/vlek'), 'https://kdsintf.amd.com/vlek/v1/Turin/crl');
  assert.equal(address('certificate/SEV-VLEK-Genoa'), 'https://kdsintf.amd.com/vlek/v1/Genoa/cert_chain');
  assert.equal(address('certificate/SEV-Milan'), 'https://kdsintf.amd.com/vcek/v1/Milan/cert_chain');
  assert.equal(address('certificate/Intel SGX TCB Signing'), undefined);
  const behind = { ...sources, pccs: new URL('https://pccs.example.org/intel/') };
  assert.equal(
    addressOf('intel/identity/TD_QE', behind)?.href,
    'https://pccs.example.org/intel/tdx/certification/v4/qe/identity',
  );
});

test('recorded: a quote is verified by what a server with the recorded files gives', { skip }, async () => {
  now = Date.parse('2026-04-01T00:00:00Z');
  const bytes = recorded('tdx/d-uptodate-v5.quote');
  const wanted = needOf({ type: 'tdx', nonce: '', quote: bytes.toString('base64') }, { at: now });
  assert.ok(wanted.kind === 'intel');
  const signing = recorded('intel-2026-03/tcb_signing_chain.pem').toString();
  const file = (name: string) => recorded(`intel-2026-03/${name}`);
  server.files = new Map<string, Served>([
    [
      `/tdx/certification/v4/tcb?fmspc=${wanted.fmspc}`,
      { body: file(`tcb_info_${wanted.fmspc}.json`), chain: ['TCB-Info-Issuer-Chain', signing] },
    ],
    [IDENTITY, { body: file('td_qe_identity.json'), chain: ['SGX-Enclave-Identity-Issuer-Chain', signing] }],
    [
      PCK_LIST,
      {
        body: file('pck_crl_platform.der'),
        chain: ['SGX-PCK-CRL-Issuer-Chain', issuersIn(bytes)],
      },
    ],
    [ROOT_LIST, { body: Buffer.from(file('root_ca_crl.der').toString('hex')) }],
  ]);
  const kept = await keeper({ roots: undefined });
  const bag = await kept.forQuote(wanted);
  assert.equal(verifyIntelQuote(bytes, bag, now).status, 'UpToDate');
});

/** The certificates in a quote, but for the first. */
function issuersIn(bytes: Buffer): string {
  const { certificates } = parseCollateral([{ name: 'quote', bytes }]);
  return certificates
    .slice(1)
    .map(({ x509 }) => pem(x509.raw, 'CERTIFICATE'))
    .join('');
}
