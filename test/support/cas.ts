import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { emptyCollateral } from '../../src/attestation/collateral.ts';
import { reportData } from '../../src/attestation/report-data.ts';
import { type MeasuredProcess, platformOf, signSoftwareEvidence } from '../../src/attestation/software.ts';
import { noTpms } from '../../src/attestation/tpm/credential.ts';
import { openAuditLog } from '../../src/cas/audit-log.ts';
import type { Cas } from '../../src/cas/cas.ts';
import { keyring, makeMasterKeys } from '../../src/cas/keyring.ts';
import { createMachineNonces } from '../../src/cas/machine-nonce.ts';
import { createOtherCases } from '../../src/cas/other-cas.ts';
import { release } from '../../src/cas/release.ts';
import type { Fact, Facts } from '../../src/cas/seal/facts.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { openState, openStore } from '../../src/cas/store/sql.ts';
import { openSqlite } from '../../src/cas/store/sqlite.ts';
import { uploadSession } from '../../src/cas/upload.ts';
import { createOpenedVersions } from '../../src/cas/versions.ts';
import { createWatches } from '../../src/cas/watch.ts';
import type { GrantedMessage } from '../../src/protocol/launch.ts';

/** A CAS without its ports, whose clock a test sets, with its store in memory. */
export interface BareCas {
  cas: Cas;
  /** Milliseconds since 1970. */
  now: number;
  /** Uploads a session as somebody, and gives its hash. */
  upload(text: string, who?: string): Promise<string>;
  /** Asks for a service's configuration, with Evidence from a LAS where one is given. */
  launch(session: string, service: string, options?: LaunchOptions): Promise<GrantedMessage>;
}

export interface LaunchOptions {
  las?: TestLas;
  measurement?: string;
  oneTimePassword?: string;
  source?: string;
  properties?: MeasuredProcess['properties'];
  cgroup?: string;
}

/** A LAS that says what a test wants. */
export type TestLas = ReturnType<typeof testLas>;
export function testLas() {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  return { private: privateKey, platform: platformOf(publicKey) };
}

/** Digest of somebody's key, as a client certificate would show it. */
export const keyOf = (who: string) => Buffer.from(who.padEnd(32)).toString('hex');

/** A CAS without any, that fetches none. */
export const noCollateral: Cas['collateral'] = {
  forQuote: async () => emptyCollateral,
  list: () => [],
  add: async () => [],
  refresh: async () => {},
  reload: async () => {},
  close: () => {},
};

/** Facts of a store without a seal, which they would stand in. */
export function factsInMemory(): Facts {
  const noted = new Set<Fact>();
  return {
    has: async (fact) => noted.has(fact),
    note: async (facts) => {
      for (const fact of facts) noted.add(fact);
    },
  };
}

/** @param database of another engine, or one that the test looks into */
export function bareCas(
  trustedPlatforms: readonly string[] = [],
  database: Database = openSqlite(':memory:'),
  masterKeys = makeMasterKeys(),
): BareCas {
  const quiet = () => {};
  const keys = keyring(masterKeys);
  const key = randomBytes(32);
  const audit = openAuditLog({
    ...{ database, store: openState(database), keyring: keys, cas: key },
    clock: () => bare.now,
  });
  const bare: BareCas = {
    now: Date.UTC(2026, 0, 1),
    cas: {
      store: openStore(database, keys.authenticate),
      audit: {
        record: async (entry) => (await audit).record(entry),
        recordRefusal: async (entry) => (await audit).recordRefusal(entry),
        recordWith: async (work) => (await audit).recordWith(work),
        head: async (first) => (await audit).head(first),
        lines: async (first, limit) => (await audit).lines(first, limit),
      },
      keyring: keys,
      facts: factsInMemory(),
      key,
      encryptionKey: generateKeyPairSync('x25519').privateKey,
      otherCases: createOtherCases({ key: '', certificate: '' }),
      watches: createWatches(() => bare.now),
      collateral: noCollateral,
      opened: createOpenedVersions(),
      machineNonces: createMachineNonces(randomBytes(32)),
      trustedTpms: noTpms,
      sessionsPerClient: 10_000,
      mebibytesPerClient: 1024,
      operator: { names: [], trustedPlatforms },
      clock: () => bare.now,
      log: { info: quiet, warn: quiet, error: quiet },
    },
    upload: async (text, who = 'alice') => (await uploadSession(bare.cas, text, keyOf(who))).hash,
    async launch(
      session,
      service,
      { las, measurement = 'ab'.repeat(32), oneTimePassword, source = 'here', properties = [], cgroup } = {},
    ) {
      const channel = randomBytes(32);
      const binding = {
        role: 'launcher',
        channel,
        casKey: bare.cas.key,
        configId: `${session}/${service}`,
      } as const;
      const process = {
        ...{ measurement, pid: 1, uid: 1, gid: 1, id: randomBytes(32).toString('hex'), properties },
        ...(cgroup !== undefined && { cgroup }),
      };
      const evidence = las && (await signSoftwareEvidence(process, reportData(binding), las, bare.now));
      return release(bare.cas, {
        request: {
          session,
          service,
          ...(evidence !== undefined && { evidence }),
          ...(oneTimePassword !== undefined && { oneTimePassword }),
        },
        connection: { channel, source, shown: new Set(), confirms: true, spent: [] },
      });
    },
  };
  return bare;
}
