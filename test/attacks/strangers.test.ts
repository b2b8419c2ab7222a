import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatKeyHash } from '../../src/policy/key-hash.ts';
import { bareCas, testLas } from '../support/cas.ts';

/** What a launcher has the CAS do before it has shown anything: sign, ask other CASes, look at secrets. */
test('whoever shows no Evidence has nothing of a policy filled in, and whoever is not admitted no second factor', async () => {
  const bare = bareCas();
  const asked: string[] = [];
  bare.cas.otherCases = {
    ...bare.cas.otherCases,
    import: async (_version, { secret }, _hops, unavailable) => {
      asked.push(secret);
      throw unavailable('there is no other CAS');
    },
  };
  const from = (secret: string) =>
    `{name: ${secret}, kind: ascii, import: {session: x, secret: ${secret}, cas_key: ${formatKeyHash(Buffer.alloc(32, 5))}, cas_url: cas.example.org}}`;
  const session = (name: string, platforms: string) => `name: ${name}
version: "0.3.12"
security:
  attestation: {tolerate: [debug-mode], one_time_password_shared_secret: $$SCONE::otp$$}
  service_access_token: $$SCONE::token$$
services: [{name: s, attestation: {mrenclave: ${'ab'.repeat(32)}}, platforms: ${platforms}}]
secrets: [${['token', 'otp', 'platform'].map(from).join(', ')}]
`;
  await bare.upload(session('anywhere', '[]'));
  await bare.upload(session('somewhere', '[$$SCONE::platform$$]'));
  for (const name of ['anywhere', 'somewhere'])
    await assert.rejects(bare.launch(name, 's'), { code: 'EVIDENCE_MISSING' });
  assert.deepEqual(asked, []);
  // Anybody makes Evidence that verifies, by a LAS of his own.
  await assert.rejects(bare.launch('anywhere', 's', { las: testLas() }), { code: 'PLATFORM_UNTRUSTED' });
  assert.deepEqual(asked, []);
  await assert.rejects(bare.launch('somewhere', 's', { las: testLas() }), { code: 'ADMISSION_UNKNOWN' });
  assert.deepEqual(asked, ['platform']);
});
