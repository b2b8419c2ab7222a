import { createPrivateKey, createPublicKey, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import * as v from 'valibot';
import { platformOf } from '../src/attestation/software.ts';
import { callApi, connectApi } from '../src/protocol/api-client.ts';
import { connectLas } from '../src/protocol/las.ts';
import { Refused } from '../src/protocol/refusal.ts';
import { makeIdentity, upload } from '../test/support/client.ts';
import { askFor } from './launcher.ts';

/** Does what honest people do with a server, one after the other for some time, and prints how long each took, and how many were refused. */
const [target = '', key = '', milliseconds = '', where = '', enclavePort = ''] = process.argv.slice(2);
const privateKey = createPrivateKey(readFileSync(key));
const las = { private: privateKey, platform: platformOf(createPublicKey(privateKey)) };
const who = await makeIdentity('honest');
let count = 0;

/** What they do, each of which tells how long it took or is timed as a whole. */
const deeds: Record<string, Record<string, () => Promise<unknown>>> = {
  cas: {
    launch: async () => (await askFor('bench', Number(enclavePort), las)).took,
    async upload() {
      const text = `name: honest-${process.pid}-${count}\nversion: "0.3.12"\nservices: []\nsecrets: [{name: s, kind: private-key}]\n`;
      await upload({ apiPort: where, enclavePort }, who, text);
    },
  },
  'sealed CAS': {
    async status() {
      const connection = await connectApi({ host: '127.0.0.1', port: Number(where) });
      await callApi(connection, { method: 'GET', path: '/v1/seal' }, v.object({ sealed: v.boolean() }));
      connection.socket.destroy();
    },
  },
  LAS: {
    async evidence() {
      const connection = await connectLas(where, undefined, Date.now() + 30_000);
      await connection.evidence(randomBytes(64));
      connection.close();
    },
  },
};

const its = deeds[target] ?? {};
const took = Object.fromEntries(Object.keys(its).map((name) => [name, [] as number[]]));
let refused = 0;
const end = performance.now() + Number(milliseconds);
for (; performance.now() < end; count++) {
  for (const [name, work] of Object.entries(its)) {
    const start = performance.now();
    const own = await work().catch((error: unknown) => {
      if (error instanceof Refused) refused++;
      else throw error;
    });
    took[name]?.push(typeof own === 'number' ? own : performance.now() - start);
  }
  await sleep(5);
}
console.log(JSON.stringify({ took, refused }));
