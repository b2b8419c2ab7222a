import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { request } from 'node:https';
import { after, test } from 'node:test';
import { connect } from 'node:tls';
import { base58 } from '@scure/base';
import { split } from 'shamir-secret-sharing';
import type { Wanted } from '../../src/cas/seal/methods.ts';
import { readShare } from '../../src/cas/seal/methods.ts';
import type { SealedCas } from '../../src/cas/sealed.ts';
import { connectFrom } from '../support/proxy-protocol.ts';
import { sealedCas } from './sealed-cas.ts';

/** Whoever reaches a sealed CAS would keep it sealed. */
const running: SealedCas[] = [];
after(async () => {
  for (const cas of running) await cas.close();
});

async function sealed(...wanted: Wanted[]) {
  const { cas, shares, rootKey, seal } = await sealedCas(...wanted);
  running.push(cas);
  const give = (content: object, from: string) =>
    new Promise<{ status: number; body: { code?: string; sealed?: boolean } }>((resolve, reject) => {
      const options = {
        createConnection: () =>
          connect({ socket: connectFrom(from, cas.apiPort), rejectUnauthorized: false }),
        path: '/v1/unseal',
        method: 'POST',
      };
      request(options, (answer) => {
        let text = '';
        answer.on('data', (chunk) => {
          text += chunk;
        });
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: JSON.parse(text) }));
      })
        .on('error', reject)
        .end(JSON.stringify(content));
    });
  return { cas, give, shares, rootKey, seal };
}
const ATTACKER = '198.51.100.66';
const HONEST = '198.51.100.1';
const passphrase = 'a long passphrase';

test('by wrong passphrases, which count against nobody else', async () => {
  const { cas, give, rootKey } = await sealed({ method: 'passphrase', passphrase: Buffer.from(passphrase) });
  const wrong = () => give({ passphrase: 'another passphrase' }, ATTACKER);
  assert.equal((await wrong()).body.code, 'UNSEAL_REFUSED');
  const answers = await Promise.all([wrong(), wrong(), wrong()]);
  for (const { body } of answers) assert.equal(body.code, 'UNSEAL_THROTTLED');
  assert.deepEqual((await give({ passphrase }, HONEST)).body, { sealed: false, methods: [] });
  assert.deepEqual(await cas.rootKey, rootKey);
});

test('by passphrases where the store opens by shares alone', async () => {
  const { cas, give, shares, rootKey } = await sealed({ method: 'shares', threshold: 2, total: 3 });
  for (let count = 0; count < 20; count++)
    assert.equal((await give({ passphrase }, HONEST)).body.code, 'UNSEAL_REFUSED');
  assert.equal((await give({ share: shares[0] }, HONEST)).body.sealed, true);
  assert.equal((await give({ share: shares[2] }, HONEST)).body.sealed, false);
  assert.deepEqual(await cas.rootKey, rootKey);
});

test('by wrong shares, which throw away no right one', async () => {
  const { cas, give, shares, rootKey, seal } = await sealed({ method: 'shares', threshold: 3, total: 5 });
  const [slot] = seal.slots;
  assert.ok(slot);
  /** Shares of another secret that look as if they belonged here: their numbers come again and again. */
  const forged = async () => {
    const parts = await split(new Uint8Array(randomBytes(32)), 5, 3);
    return parts.map((part) => forge(slot.id, part));
  };
  const isRefused = ({ body }: { body: { code?: string; sealed?: boolean } }) =>
    assert.ok(body.code === 'UNSEAL_REFUSED' || body.sealed === true, JSON.stringify(body));
  const disturb = async () => {
    for (const share of await forged()) isRefused(await give({ share }, ATTACKER));
  };
  await disturb();
  isRefused(await give({ share: shares[0] }, HONEST));
  for (let round = 0; round < 8; round++) await disturb();
  isRefused(await give({ share: shares[3] }, '198.51.100.2'));
  for (let round = 0; round < 8; round++) await disturb();
  assert.equal((await give({ share: shares[4] }, '198.51.100.3')).body.sealed, false);
  assert.deepEqual(await cas.rootKey, rootKey);
});

test('by many wrong shares at once, which wait for their turn', async () => {
  const { cas, give, shares, rootKey, seal } = await sealed({ method: 'shares', threshold: 3, total: 16 });
  const [slot] = seal.slots;
  assert.ok(slot);
  const wrong: string[] = [];
  for (let time = 0; time < 4; time++)
    for (const part of await split(new Uint8Array(randomBytes(32)), 16, 3)) wrong.push(forge(slot.id, part));
  for (const share of wrong.slice(0, 32)) await give({ share }, ATTACKER);
  await give({ share: shares[0] }, HONEST);
  await give({ share: shares[1] }, HONEST);
  let refused = 0;
  const codes: (string | undefined)[] = [];
  const attack = wrong.slice(32).map(async (share) => {
    const { body } = await give({ share }, ATTACKER);
    codes.push(body.code);
    if (body.code === 'UNSEAL_REFUSED') refused++;
  });
  const opening = give({ share: shares[2] }, HONEST);
  assert.equal((await opening).body.sealed, false);
  assert.ok(refused <= 8, `${refused}`);
  assert.deepEqual(await cas.rootKey, rootKey);
  await Promise.allSettled(attack);
  assert.ok(codes.includes('CAS_BUSY'));
});

/** As shares are written: the id of the slot, the part, and the beginning of their SHA-256. */
function forge(id: string, part: Uint8Array): string {
  const content = Buffer.concat([Buffer.from(id, 'hex'), part]);
  const sum = createHash('sha256').update(content).digest().subarray(0, 4);
  const share = `envcas-share-${base58.encode(Buffer.concat([content, sum]))}`;
  assert.ok(readShare({ id }, share));
  return share;
}
