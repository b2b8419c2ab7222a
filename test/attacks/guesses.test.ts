import assert from 'node:assert/strict';
import { test } from 'node:test';
import { base32 } from '@scure/base';
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

test('and so is one that a variable stands for, where the same text says what that is', () => {
  const warnings = (security: string, secrets: string) =>
    parseSession(`{name: s, version: "0.3", security: ${security}, secrets: [${secrets}]}`).warnings.map(
      ({ message }) => message,
    );
  const own = '{service_access_token: "a$$SCONE::t$$"}';
  const fragment = (token: string) => `{name: f, kind: config-fragment, value: ${token}}`;
  const weak = /(it|service_access_token) has less than 16 characters/;
  for (const [security, secrets] of [
    [own, '{name: t, kind: ascii, value: hello}'],
    [own, '{name: t, kind: ascii, size: 4}'],
    ['{service_access_token: "$$SCONE::t:hex$$"}', '{name: t, kind: binary, size: 7}'],
    ['{service_access_token: $$SCONE::f$$}', fragment('short')],
    ['$$SCONE::f$$', fragment('{service_access_token: short}')],
    ['$$SCONE::f$$', `${fragment(own)}, {name: t, kind: ascii, value: b}`],
  ] as const)
    assert.match(warnings(security, secrets).join(), weak, `${security} ${secrets}`);
  for (const [security, secrets] of [
    [own, '{name: t, kind: ascii, value: 0123456789abcde}'],
    [own, '{name: t, import: {session: other, secret: t}}'],
    ['{service_access_token: $$SCONE::f$$}', fragment('0123456789abcdef')],
    ['{service_access_token: $$SCONE::f$$}', fragment('$$SCONE::f$$')],
    ['$$SCONE::f$$', fragment('{attestation: {}}')],
  ] as const)
    assert.deepEqual(warnings(security, secrets), [], `${security} ${secrets}`);
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

test('guesses of one source at whatever there is fill no table, and are no longer told right or wrong', async () => {
  const bare = bareCas();
  const count = 1010;
  const secrets = Array.from({ length: count }, (_, at) => Buffer.from(`secret number ${at}`.padEnd(20)));
  const session = (at: number) => `many${at}`;
  const text = (at: number) => {
    const secret = base32.encode(secrets[at] ?? Buffer.alloc(20)).replaceAll('=', '');
    return `name: ${session(at)}
version: "0.3.10"
security: {attestation: {mode: none, one_time_password_shared_secret: ${secret}}}
services: [{name: s}]
`;
  };
  const codes = new Map<string, number>();
  for (let at = 0; at < count; at++) {
    await bare.upload(text(at));
    const code = await bare.launch(session(at), 's', { oneTimePassword: '000000' }).then(
      () => 'launched',
      ({ code }) => String(code),
    );
    codes.set(code, (codes.get(code) ?? 0) + 1);
  }
  assert.ok((codes.get('OTP_INVALID') ?? 0) >= 990 && (codes.get('OTP_THROTTLED') ?? 0) > 0, `${[...codes]}`);
  const shared = parseSharedSecret(base32.encode(secrets[count - 1] ?? Buffer.alloc(20)).replaceAll('=', ''));
  assert.ok(typeof shared !== 'string');
  const right = oneTimePassword(shared, bare.now);
  await assert.rejects(bare.launch(session(count - 1), 's', { oneTimePassword: right }), {
    code: 'OTP_THROTTLED',
  });
});
