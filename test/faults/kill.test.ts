import assert from 'node:assert/strict';
import { createPublicKey, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { Secret } from 'otpauth';
import { beginning, verifyEntry } from '../../src/audit/entry.ts';
import { headAnswer } from '../../src/audit/tree-head.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import type { Identity } from '../../src/protocol/certificate.ts';
import {
  ask,
  codeEnd,
  codeFrom,
  launch,
  makeIdentity,
  makeLas,
  read,
  sessionWithCodes,
  type TestLas,
  upload,
} from '../support/client.ts';
import { onEachEngine } from '../support/engines.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { randomFrom } from '../support/random.ts';
import { executables, type RunningCas, type Server, startCas } from '../support/stack.ts';

/** How often a CAS is killed on each store: a few times here, and a thousand times by `npm run endure`. */
const KILLS = Number(process.env.ENVCAS_KILLS ?? 25);
const CLIENTS = 6;
const SEED = Number(process.env.ENVCAS_SEED ?? Date.now() % 1_000_000);

const { scone } = executables();

onEachEngine('a CAS that is killed at any instant', (engine) => {
  let folder: string;
  let address: string;
  let las: TestLas;
  let alice: Identity;
  let cas: RunningCas;
  beforeEach(async () => {
    folder = temporaryFolder();
    address = await engine.address();
    las = makeLas();
    alice = await makeIdentity('alice');
    cas = await start();
  });
  afterEach(async () => {
    await cas.server.stop();
  });
  const start = (ports?: { api: string; enclave: string }) =>
    startCas(
      scone,
      join(folder, 'cas'),
      ['--store', address, '--workers', '2', '--trusted-platform', las.platform, '--log-level', 'error'],
      { PATH: process.env.PATH ?? '', HOME: folder },
      ports,
    );

  test('keeps every session it confirmed, and takes no code twice', { timeout: 3_600_000 }, async (t) => {
    t.diagnostic(`ENVCAS_SEED=${SEED}, ${KILLS} kills`);
    const random = randomFrom(SEED);
    const confirmed = new Map<string, { text: string; secret: string }>();
    const inFlight = new Map<string, { attempt: Attempt; end: number }>();
    const spent: Attempt[] = [];
    let isStopping = false;
    let names = 0;

    /** Uploads sessions and launches their services, each with a code, until somebody stops it. */
    const client = async () => {
      while (!isStopping) {
        const secret = new Secret({ size: 20 });
        const end = codeEnd();
        const name = `s${++names}`;
        const text = sessionWithCodes(name, secret.base32);
        const attempt: Attempt = {
          ...{ session: name, service: 's', oneTimePassword: codeFrom(secret) },
          attempt: randomBytes(32).toString('base64'),
        };
        try {
          await upload(cas, alice, text);
          confirmed.set(name, { text, secret: secret.base32 });
          inFlight.set(name, { attempt, end });
          const { command } = await launch(cas, { ...attempt, las });
          assert.equal(command.length, 2);
          spent.push(attempt);
          inFlight.delete(name);
        } catch (error) {
          // Cut off: by and by the CAS is there again.
          assert.equal((error as { code?: string }).code, 'CAS_UNREACHABLE', String(error));
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      }
    };

    const log = await openLog(cas, address);
    for (let kill = 0; kill < KILLS; kill++) {
      isStopping = false;
      const clients = Array.from({ length: CLIENTS }, client);
      await new Promise((resolve) => setTimeout(resolve, 20 + random() * 150));
      await killAll(cas.server);
      isStopping = true;
      await Promise.all(clients);
      cas = await start({ api: cas.apiPort, enclave: cas.enclavePort });

      // Nobody was told anything that the log does not have.
      const { created, released } = await log.read();
      for (const name of confirmed.keys()) assert.ok(created.has(name), `${name} was created`);
      for (const { session } of spent) assert.ok(released.has(session), `${session} was released`);

      // A launch that was cut off comes again with its code; nobody else does, and what is spent is spent.
      for (const [name, { attempt, end }] of inFlight) {
        await launch(cas, { ...attempt, las }).catch((error) => {
          // On a busy machine the code may be too old by now.
          if (error.code !== 'OTP_INVALID' || Date.now() < end) throw error;
        });
        inFlight.delete(name);
        spent.push(attempt);
      }
      for (const attempt of spent.splice(0)) {
        const stolen = { ...attempt, attempt: randomBytes(32).toString('base64') };
        await assert.rejects(launch(cas, { ...stolen, las }), { code: /^OTP_(USED|INVALID)$/ });
      }
      for (const [name, { text }] of confirmed) assert.equal(await read(cas, alice, name), text);
      confirmed.clear();
    }
    await log.read();
    await log.close();
    t.diagnostic(`${names} sessions, ${log.size()} entries of the audit log`);
  });
});

/** Kills a CAS with all of its processes. */
async function killAll(server: Server): Promise<void> {
  const { pid } = server.process;
  const workers = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
  const ended = server.stop('SIGKILL');
  for (const worker of workers) process.kill(Number(worker), 'SIGKILL');
  await ended;
}

/** Reads an audit log as an auditor does who has nothing but the database: each entry is the next one, and signed. */
async function openLog(cas: RunningCas, address: string) {
  const { key } = await ask(cas, undefined, { method: 'GET', path: '/v1/audit-log/head' }, headAnswer);
  const publicKey = createPublicKey(key);
  const database = await openDatabase(address);
  let position = beginning;
  return {
    size: () => position.sequence,
    close: () => database.close(),
    /** What was decided since this was called before. */
    async read() {
      const [created, released] = [new Set<unknown>(), new Set<unknown>()];
      const rows = await database.all(
        'SELECT line FROM audit_log WHERE sequence > $1 ORDER BY sequence',
        position.sequence,
      );
      for (const { line } of rows) {
        const entry = verifyEntry(line as Buffer, position, publicKey);
        position = { sequence: entry.sequence, signature: entry.signature };
        if (entry.operation === 'session_created') created.add(entry.session);
        if (entry.operation === 'service_released') released.add(entry.session);
      }
      return { created, released };
    },
  };
}

interface Attempt {
  session: string;
  service: string;
  oneTimePassword: string;
  attempt: string;
}
