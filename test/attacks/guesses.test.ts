import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSession } from '../../src/policy/session.ts';
import { oneTimePassword, parseSharedSecret } from '../../src/secrets/one-time-password.ts';
import { bareCas } from '../support/cas.ts';

test('a service access token of a few characters, which is soon guessed, is warned of before it is used', () => {
  const warnings = (token: string) =>
    parseSession(
      `{name: s, version: "0.3", security: {service_access_token: ${token}}, secrets: [{name: t, kind: ascii}]}`,
    ).warnings.map(({ message }) => message);
  assert.match(warnings('a').join(), /less than 16 characters/);
  assert.deepEqual(warnings('0123456789abcdef'), []);
  assert.deepEqual(warnings('"$$SCONE::t$$"'), []);
});

test('guesses at one shared secret count together, whichever service is asked', async () => {
  const bare = bareCas();
  const secret = 'JJBFGV2ZGNCFARKIKBFTGUCYKBNFKVQK';
  const services = Array.from({ length: 8 }, (_, index) => `{name: s${index}}`).join(', ');
  await bare.upload(`name: guessed
version: "0.3.10"
security: {attestation: {mode: none, one_time_password_shared_secret: ${secret}}}
services: [${services}]
`);
  const shared = parseSharedSecret(secret);
  assert.ok(typeof shared !== 'string');
  const right = oneTimePassword(shared, bare.now);
  const wrong = right === '000000' ? '000001' : '000000';
  for (let guess = 0; guess < 5; guess++)
    await assert.rejects(bare.launch('guessed', `s${guess}`, { oneTimePassword: wrong }), {
      code: 'OTP_INVALID',
    });
  await assert.rejects(bare.launch('guessed', 's6', { oneTimePassword: right }), { code: 'OTP_THROTTLED' });
  await bare.launch('guessed', 's6', { oneTimePassword: right, source: 'elsewhere' });
});
