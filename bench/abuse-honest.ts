import { createPrivateKey, createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { platformOf } from '../src/attestation/software.ts';
import { makeIdentity, upload } from '../test/support/client.ts';
import { askFor } from './launcher.ts';

/** Launches, and uploads sessions, one after the other for some time, and prints how long each took. */
const [apiPort = '', enclavePort = '', key = '', milliseconds = ''] = process.argv.slice(2);
const privateKey = createPrivateKey(readFileSync(key));
const las = { private: privateKey, platform: platformOf(createPublicKey(privateKey)) };
const who = await makeIdentity('honest');
const launches: number[] = [];
const uploads: number[] = [];
const end = performance.now() + Number(milliseconds);
for (let count = 0; performance.now() < end; count++) {
  launches.push((await askFor('bench', Number(enclavePort), las)).took);
  const text = `name: honest-${process.pid}-${count}\nversion: "0.3.12"\nservices: []\nsecrets: [{name: s, kind: private-key}]\n`;
  const start = performance.now();
  await upload({ apiPort, enclavePort }, who, text);
  uploads.push(performance.now() - start);
  await sleep(5);
}
console.log(JSON.stringify({ launches, uploads }));
