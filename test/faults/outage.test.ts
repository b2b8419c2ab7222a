import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Secret, TOTP } from 'otpauth';
import pg from 'pg';
import type { Identity } from '../../src/protocol/certificate.ts';
import {
  launch,
  makeIdentity,
  makeLas,
  read,
  sessionWithCodes,
  type TestLas,
  upload,
} from '../support/client.ts';
import { clockOf, missingFaketime } from '../support/faketime.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missingPostgres, type Postgres, startPostgres } from '../support/postgres.ts';
import { executables, type RunningCas, run, startCas } from '../support/stack.ts';
import { until } from '../support/until.ts';

/** What a CAS rests on fails while it is used, and comes back. */

const { scone } = executables();
/** What those are told who come meanwhile. */
const OUT = /^(STORE_UNAVAILABLE|CAS_UNREACHABLE|CAS_BUSY)$/;

let folder: string;
let las: TestLas;
let alice: Identity;
let cas: RunningCas;
beforeEach(async () => {
  folder = temporaryFolder();
  las = makeLas();
  alice = await makeIdentity('alice');
});
const start = async (
  store: string,
  env: NodeJS.ProcessEnv = {},
  ports?: { api: string; enclave: string },
) => {
  cas = await startCas(
    scone,
    join(folder, 'cas'),
    ['--store', store, '--workers', '2', '--trusted-platform', las.platform, '--log-level', 'error'],
    { PATH: process.env.PATH ?? '', HOME: folder, ...env },
    ports,
  );
};

interface Attempt {
  session: string;
  service: string;
  oneTimePassword: string;
  attempt: string;
}

/** Somebody who uploads sessions and launches their services, and knows what was confirmed. */
function makeClient() {
  const confirmed = new Map<string, string>();
  const spent: Attempt[] = [];
  const inFlight: Attempt[] = [];
  const told = new Set<string>();
  const again = () => randomBytes(32).toString('base64');
  const prefix = randomBytes(4).toString('hex');
  let names = 0;
  return {
    confirmed,
    told,
    /** @param now of the code, in milliseconds */
    async once(now = Date.now()): Promise<boolean> {
      const secret = new Secret({ size: 20 });
      const session = `s${prefix}-${++names}`;
      const text = sessionWithCodes(session, secret.base32);
      const oneTimePassword = new TOTP({ secret }).generate({ timestamp: now });
      const attempt = { session, service: 's', oneTimePassword, attempt: again() };
      try {
        await upload(cas, alice, text);
        confirmed.set(session, text);
        inFlight.push(attempt);
        await launch(cas, { ...attempt, las });
        spent.push(attempt);
        inFlight.pop();
        return true;
      } catch (error) {
        const { code = '' } = error as { code?: string };
        assert.match(code, OUT, String(error));
        told.add(code);
        return false;
      }
    },
    /** Everything that was confirmed is there, and every code is good once. */
    async check() {
      for (const [session, text] of confirmed) assert.equal(await read(cas, alice, session), text);
      for (const attempt of inFlight.splice(0)) {
        await launch(cas, { ...attempt, las });
        spent.push(attempt);
      }
      for (const attempt of spent)
        await assert.rejects(launch(cas, { ...attempt, las, attempt: again() }), { code: 'OTP_USED' });
      assert.ok(confirmed.size > 0);
    },
  };
}

/** Tries until it is well again. */
async function untilWell(client: ReturnType<typeof makeClient>): Promise<void> {
  await until(() => client.once(), 'a launch succeeds');
}

describe('PostgreSQL', { skip: missingPostgres }, () => {
  let postgres: Postgres;
  beforeEach(async () => {
    postgres = await startPostgres([]);
    await start(await postgres.database());
  });
  afterEach(async () => {
    await cas.server.stop();
    await postgres.stop();
  });

  test('that is killed and started again loses nothing that was confirmed', async () => {
    const client = makeClient();
    for (const signal of ['SIGKILL', 'SIGINT'] as const) {
      let isOver = false;
      const busy = (async () => {
        while (!isOver) if (!(await client.once())) await sleep(20);
      })();
      const before = client.confirmed.size;
      await until(() => client.confirmed.size > before, 'something is confirmed');
      client.told.clear();
      await postgres.server.stop(signal);
      await until(() => client.told.size > 0, 'a client is told');
      isOver = true;
      await busy;
      await postgres.start();
      await untilWell(client);
    }
    await client.check();
  });

  test('whose connections are cut again and again is connected to again, and no code is good twice', async () => {
    const client = makeClient();
    let isOver = false;
    const busy = Promise.all(
      Array.from({ length: 3 }, async () => {
        while (!isOver) await client.once();
      }),
    );
    const superuser = new pg.Client({ host: postgres.folder, user: postgres.user, database: 'postgres' });
    await superuser.connect();
    for (let cut = 0; cut < 20; cut++) {
      await sleep(50);
      await superuser.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'envcas'",
      );
    }
    await superuser.end();
    isOver = true;
    await busy;
    await untilWell(client);
    await client.check();
  });

  test('that takes no writes any more, as one that was replaced, is named, and used again when it does', async () => {
    const client = makeClient();
    await client.once();
    const superuser = new pg.Client({ host: postgres.folder, user: postgres.user, database: 'postgres' });
    await superuser.connect();
    const readOnly = async (value: 'on' | 'off') => {
      await superuser.query(`ALTER DATABASE cas1 SET default_transaction_read_only = ${value}`);
      await superuser.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'envcas'",
      );
    };
    await readOnly('on');
    while (await client.once());
    for (let attempt = 0; attempt < 5; attempt++) assert.equal(await client.once(), false);
    assert.ok(client.told.has('STORE_UNAVAILABLE'));
    await readOnly('off');
    await superuser.end();
    await untilWell(client);
    await client.check();
  });
});

const canMount = () => {
  if (process.getuid?.() !== 0) return false;
  const probe = temporaryFolder();
  const { status } = spawnSync('mount', ['-t', 'tmpfs', 'tmpfs', probe], { stdio: 'ignore' });
  if (status === 0) execFileSync('umount', [probe]);
  return status === 0;
};

describe('a disk', { skip: !canMount() && 'this needs root, and leave to mount' }, () => {
  let disk: string;
  const mount = (...options: string[]) => execFileSync('mount', [...options, 'tmpfs', disk]);
  const client = () => makeClient();
  beforeEach(async () => {
    disk = join(folder, 'disk');
    mkdirSync(disk);
    mount('-t', 'tmpfs', '-o', 'size=4m');
    await start(`sqlite:${join(disk, 'cas.db')}`);
  });
  afterEach(async () => {
    await cas.server.stop();
    execFileSync('umount', ['-l', disk]);
  });

  test('that is full lets nothing be confirmed, and all is well when it has room', async () => {
    const its = client();
    await its.once();
    // All that is left of it.
    spawnSync('dd', ['if=/dev/zero', `of=${join(disk, 'filler')}`, 'bs=4k'], { stdio: 'ignore' });
    for (let attempt = 0; attempt < 400 && (await its.once()); attempt++);
    assert.equal(await its.once(), false);
    assert.ok(its.told.has('STORE_UNAVAILABLE'), [...its.told].join());
    rmSync(join(disk, 'filler'));
    await untilWell(its);
    await its.check();
  });

  test('that is read-only is named, and nothing is made of it', async () => {
    const its = client();
    await its.once();
    await cas.server.stop();
    mount('-o', 'remount,ro');
    const ports = { api: cas.apiPort, enclave: cas.enclavePort };
    const store = `sqlite:${join(disk, 'cas.db')}`;
    await assert.rejects(
      start(store, {}, ports),
      /cas\.db: (unable to open database file|attempt to write a readonly database)[\s\S]*Code: STATE_UNUSABLE, exit status 74/,
    );
    mount('-o', 'remount,rw');
    await start(store, {}, ports);
    await untilWell(its);
    await its.check();
  });
});

describe('a clock', { skip: missingFaketime }, () => {
  afterEach(async () => {
    await cas.server.stop();
  });

  test('that is set back and forth makes no code good twice, and stops nothing', async () => {
    const file = join(folder, 'clock');
    const set = async (seconds: number) => {
      writeFileSync(file, `${seconds < 0 ? '' : '+'}${seconds}`);
      return Date.now() + seconds * 1000;
    };
    await set(0);
    await start(`sqlite:${join(folder, 'cas.db')}`, clockOf({ FAKETIME_TIMESTAMP_FILE: file }));
    const times = [0, 3600, -3600, 86_400 * 400, -86_400 * 30];
    const clients = new Map(times.map((seconds) => [seconds, makeClient()]));
    for (const [seconds, client] of clients)
      assert.ok(await client.once(await set(seconds)), `${seconds} seconds off`);
    // Each code again, at its time.
    for (const [seconds, client] of clients) {
      await set(seconds);
      await client.check();
    }
    const log = run(
      scone,
      ['cas', 'check-store', '--dir', join(folder, 'cas'), '--store', `sqlite:${join(folder, 'cas.db')}`],
      {
        PATH: process.env.PATH ?? '',
        HOME: folder,
      },
    );
    assert.match(log.stdout, /are as they were written/);
  });
});
