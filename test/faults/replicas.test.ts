import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Secret } from 'otpauth';
import type { Identity } from '../../src/protocol/certificate.ts';
import {
  codeFrom,
  launch,
  makeIdentity,
  makeLas,
  read,
  sessionWithCodes,
  upload,
} from '../support/client.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missingPostgres, type Postgres, startPostgres } from '../support/postgres.ts';
import { executables, type RunningCas, startCas } from '../support/stack.ts';
import { until } from '../support/until.ts';

const { scone } = executables();
const ROUNDS = 4;
const CLIENTS = 4;

describe('three replicas on one PostgreSQL', { skip: missingPostgres }, () => {
  let folder: string;
  let postgres: Postgres;
  let store: string;
  let alice: Identity;
  const las = makeLas();
  const replicas: RunningCas[] = [];
  const start = (ports?: { api: string; enclave: string }) => {
    const options = ['--workers', '2', '--trusted-platform', las.platform, '--log-level', 'error'];
    // Each on a host of its own, with the key that they share.
    return startCas(
      scone,
      mkdtempSync(join(folder, 'cas-')),
      ['--store', store, '--key-file', join(folder, 'key', 'master.key'), ...options],
      { PATH: process.env.PATH ?? '', HOME: folder },
      ports,
    );
  };
  before(async () => {
    folder = temporaryFolder();
    postgres = await startPostgres([]);
    store = await postgres.database();
    alice = await makeIdentity('alice');
    const first = await startCas(scone, join(folder, 'key'), ['--store', store, '--workers', '1'], {
      PATH: process.env.PATH ?? '',
      HOME: folder,
    });
    await first.server.stop();
    for (let replica = 0; replica < 3; replica++) replicas.push(await start());
  });

  test('are one CAS: what one takes all have, at once', async () => {
    const [one, ...others] = replicas;
    assert.ok(one);
    for (const other of others) assert.equal(other.key, one.key);
    const text = 'name: everywhere\nversion: "0.3"\n';
    await upload(one, alice, text);
    for (const other of others) assert.equal(await read(other, alice, 'everywhere'), text);
    const tries = await Promise.allSettled(
      replicas.flatMap((each) => [1, 2].map(() => upload(each, alice, 'name: once\nversion: "0.3"\n'))),
    );
    assert.equal(tries.filter(({ status }) => status === 'fulfilled').length, 1);
  });

  test('a code is good once, however many replicas it is shown to at the same time', async () => {
    const secret = new Secret({ size: 20 });
    await upload(replicas[0] as RunningCas, alice, sessionWithCodes('race', secret.base32));
    const oneTimePassword = codeFrom(secret);
    const tries = await Promise.allSettled(
      replicas.flatMap((each) =>
        [1, 2].map(() =>
          launch(each, { session: 'race', service: 's', oneTimePassword, attempt: newAttempt(), las }),
        ),
      ),
    );
    assert.equal(tries.filter(({ status }) => status === 'fulfilled').length, 1);
    for (const each of tries) if (each.status === 'rejected') assert.equal(each.reason.code, 'OTP_USED');
  });

  test('a launch that has its answer comes again to none of them, and one that does not say so no oftener than to one', async () => {
    const [one, ...others] = replicas;
    assert.ok(one);
    for (const [session, confirms] of [
      ['answered', true],
      ['silent', false],
    ] as const) {
      const secret = new Secret({ size: 20 });
      await upload(one, alice, sessionWithCodes(session, secret.base32));
      const attempt = {
        session,
        service: 's',
        oneTimePassword: codeFrom(secret),
        attempt: newAttempt(),
        las,
      };
      await launch(one, { ...attempt, confirms });
      const outcomes: string[] = [];
      for (const each of [...others, ...others])
        outcomes.push(
          await launch(each, { ...attempt, confirms }).then(
            () => 'granted',
            ({ code }) => code,
          ),
        );
      const last = confirms ? 'OTP_USED' : 'granted';
      assert.deepEqual(outcomes, [last, last, last, 'OTP_USED']);
    }
  });

  test('any of them may be killed: a launch that was in flight succeeds at another, and nobody else with its code', async (t) => {
    let cut = 0;
    let names = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const at = round % replicas.length;
      const victim = replicas[at] as RunningCas;
      const survivor = replicas[(at + 1) % replicas.length] as RunningCas;
      const first = names;
      const clients = Promise.all(
        Array.from({ length: CLIENTS }, async () => {
          for (;;) {
            const secret = new Secret({ size: 20 });
            const session = `s${++names}`;
            const attempt = { session, service: 's', attempt: newAttempt(), las };
            try {
              await upload(victim, alice, sessionWithCodes(session, secret.base32));
            } catch (error) {
              assert.equal((error as { code?: string }).code, 'CAS_UNREACHABLE');
              return;
            }
            const mine = { ...attempt, oneTimePassword: codeFrom(secret) };
            await launch(victim, mine).catch(async (error: unknown) => {
              assert.equal((error as { code?: string }).code, 'CAS_UNREACHABLE');
              cut++;
              await launch(survivor, mine);
            });
            await assert.rejects(launch(survivor, { ...mine, attempt: newAttempt() }), { code: 'OTP_USED' });
          }
        }),
      );
      await until(() => names > first + 2 * CLIENTS, 'some launches of each client');
      await sleep(Math.random() * 300);
      victim.server.process.kill('SIGKILL');
      await clients;
      replicas[at] = await start();
    }
    t.diagnostic(`${names} launches, ${cut} cut off`);
  });
});

const newAttempt = () => randomBytes(32).toString('base64');
