import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import type { AuditLog } from '../../src/cas/audit-log.ts';
import type { Cas } from '../../src/cas/cas.ts';
import { followNews } from '../../src/cas/news.ts';
import { provision, provisioningToken, updateOwnerConfiguration } from '../../src/cas/owner/owner.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { openStore } from '../../src/cas/store/sql.ts';
import { uploadSession } from '../../src/cas/upload.ts';
import { createOpenedVersions } from '../../src/cas/versions.ts';
import { formatKeyHash } from '../../src/policy/key-hash.ts';
import { Secret } from '../../src/secrets/secret.ts';
import { type BareCas, bareCas, keyOf, testLas } from '../support/cas.ts';
import { onEachEngine } from '../support/engines.ts';
import { until } from '../support/until.ts';

const OWNER = keyOf('owner');
const trusting = (...platforms: string[]) => ({ owners: [], trusted_platforms: platforms });

onEachEngine('what was confirmed is in force', (engine) => {
  const opened: Database[] = [];
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close();
  });

  /** A CAS with an owner, and another process of it. */
  async function owned(...platforms: string[]): Promise<{ bare: BareCas; sibling: Cas }> {
    const address = await engine.address();
    opened.push(await openDatabase(address), await openDatabase(address));
    const [first, second] = opened as [Database, Database];
    const bare = bareCas([], first);
    const token = (await provisioningToken(bare.cas)) ?? '';
    await provision(bare.cas, { token, configuration: trusting(...platforms) }, OWNER, '192.0.2.1');
    const { keyring } = bare.cas;
    const store = openStore(second, keyring.authenticate);
    return { bare, sibling: { ...bare.cas, store, opened: createOpenedVersions() } };
  }

  for (const where of ['the process that has stored it', 'another process'] as const)
    test(`platforms that an owner trusts, at ${where}`, async () => {
      const [las, other] = [testLas(), testLas()];
      const { bare, sibling } = await owned(las.platform);
      const writing = bare.cas;
      await bare.upload(
        `name: s\nversion: "0.3.12"\nsecurity: {attestation: {tolerate: [debug-mode]}}\nservices: [{name: a, mrenclaves: [${'ab'.repeat(32)}]}]\n`,
      );
      if (where === 'another process') bare.cas = sibling;
      const launch = (its: typeof las) => bare.launch('s', 'a', { las: its });
      await launch(las);
      await assert.rejects(launch(other), { code: 'PLATFORM_UNTRUSTED' });
      assert.deepEqual(await updateOwnerConfiguration(writing, OWNER, trusting(other.platform), 1), {
        version: 2,
      });
      await assert.rejects(launch(las), { code: 'PLATFORM_UNTRUSTED' });
      await launch(other);
    });

  test('a version that was uploaded while a launch waited for another CAS', async () => {
    const { bare, sibling } = await owned();
    const gate = Promise.withResolvers<void>();
    let asked = 0;
    bare.cas.otherCases = {
      import: async () => {
        asked++;
        await gate.promise;
        return { kind: 'ascii', secret: new Secret(Buffer.from('value')) };
      },
    };
    const text = (security: string) => `name: s
version: "0.3.12"
${security}services: [{name: a, command: "envcas $$SCONE::far$$"}]
secrets: [{name: far, kind: ascii, import: {session: x, secret: y, cas_url: cas.example, cas_key: ${formatKeyHash(Buffer.alloc(32, 5))}}}]
`;
    const open = 'security: {attestation: {mode: none}}\n';
    const hash = await bare.upload(text(open));
    const launching = bare.launch('s', 'a');
    await until(() => asked > 0, 'the other CAS is asked');
    const stricter = `predecessor: ${hash}\nsecurity: {attestation: {mode: none, one_time_password_shared_secret: JJBFGV2ZGNCFARKIKBFTGUCYKBNFKVQK}}\n`;
    await uploadSession(sibling, text(stricter), keyOf('alice'));
    gate.resolve();
    await assert.rejects(launching, { code: 'OTP_MISSING' });
  });
});

test('what follows from news is done again until it succeeds', async () => {
  const { cas } = bareCas();
  const told: string[] = [];
  cas.log = { ...cas.log, warn: (_fields, message) => void told.push(message) };
  let tries = 0;
  let isHeard = false;
  const entries = [{ operation: 'owner_configuration_updated', sequence: 1 }] as never[];
  const audit: Pick<AuditLog, 'news'> = {
    async news(react) {
      await react({ entries: isHeard ? [] : entries, replaced: false });
      isHeard = true;
    },
  };
  const news = followNews(cas, audit, {
    newKeys: () => assert.fail(),
    sealed: () => assert.fail(),
    async newConfiguration() {
      if (++tries < 3) throw new Error('the database is away');
    },
  });
  try {
    await until(() => isHeard, 'it has succeeded');
    await setTimeout(1500);
    assert.equal(told.length, 2);
    assert.equal(tries, 3);
  } finally {
    news.stop();
  }
});
