import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { before, test } from 'node:test';
import { Secret, TOTP } from 'otpauth';
import { launch, makeLas, read } from '../support/client.ts';
import { clockOf, missingFaketime } from '../support/faketime.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missingPostgres, type Postgres, startPostgres } from '../support/postgres.ts';
import { executables, type RunningCas, run, startCas } from '../support/stack.ts';

/** What the first version of this program has kept, and what is known of it: a session, and a code that was used. */
const first = resolve(import.meta.dirname, '../fixtures/cas/first');
const facts = JSON.parse(readFileSync(join(first, 'facts.json'), 'utf8'));
const identity = {
  key: facts.identity.slice(0, facts.identity.indexOf('-----BEGIN CERTIFICATE')),
  certificate: facts.identity.slice(facts.identity.indexOf('-----BEGIN CERTIFICATE')),
};
const { scone } = executables();
const las = makeLas();

let folder: string;
let postgres: Postgres | undefined;
let cas: RunningCas;
const directory = () => join(folder, 'cas');
const start = async (...options: string[]) => {
  // At the time of the code that was used, which would be refused as too old otherwise.
  const offset = facts.time - Math.floor(Date.now() / 1000);
  const clock = clockOf({ FAKETIME: `${offset}` });
  cas = await startCas(
    scone,
    directory(),
    ['--workers', '2', '--trusted-platform', las.platform, ...options],
    {
      ...{ PATH: process.env.PATH ?? '', HOME: folder },
      ...clock,
    },
  );
};
before(async () => {
  folder = temporaryFolder();
  mkdirSync(directory(), { mode: 0o700 });
  for (const name of ['cas.db', 'master.key']) copyFileSync(join(first, name), join(directory(), name));
  run('chmod', ['600', join(directory(), 'master.key')], { PATH: process.env.PATH });
  await start();
});

const launchOf = (service: string, oneTimePassword?: string) =>
  launch(cas, {
    ...{ session: 'since-the-first', service, las, measurement: facts.measurement },
    ...(oneTimePassword !== undefined && { oneTimePassword }),
  });
const check = async () => {
  assert.equal(cas.key, facts.casKeyHash);
  assert.equal(await read(cas, identity, 'since-the-first'), facts.text);
  assert.deepEqual(
    (await launchOf('plain')).command.slice(1).map((parts) => parts.join('')),
    [facts.token, 'first words'],
  );
};

test(
  'a store of the first version is gone on with: its key, its sessions, and the secrets that it made',
  check,
);

test('a code that was used then is still used, and another is not', { skip: missingFaketime }, async () => {
  await assert.rejects(launchOf('once', facts.spent), { code: 'OTP_USED' });
  const secret = Secret.fromBase32(facts.oneTimePasswordSecret);
  await launchOf('once', new TOTP({ secret }).generate({ timestamp: (facts.time + 30) * 1000 }));
});

test('nothing in it is other than it was written, and it can be moved on', async () => {
  await cas.server.stop();
  const env = { PATH: process.env.PATH ?? '', HOME: folder };
  const checked = run(scone, ['cas', 'check-store', '--dir', directory()], env);
  assert.match(checked.stdout, /^All \d+ rows of .+ are as they were written$/m, checked.stderr);
  if (missingPostgres) return start();
  postgres = await startPostgres();
  const to = await postgres.database();
  const moved = run(
    scone,
    ['cas', 'migrate', '--from', `sqlite:${join(directory(), 'cas.db')}`, '--to', to],
    env,
  );
  assert.equal(moved.status, 0, moved.stderr);
  await start('--store', to);
  await check();
});
