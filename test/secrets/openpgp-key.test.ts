import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { formatOpenPgpKey, generateOpenPgpKey, type OpenPgpEncoding } from '../../src/secrets/openpgp-key.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missing } from '../support/stack.ts';
import { PATIENCE } from '../support/until.ts';

const skip = missing('gpg', 'gpgconf');
const created = 1_700_000_000;
const userId = 'Zoë Example <zoe@example.com>';
const key = await generateOpenPgpKey(userId, created * 1000 + 999);
const parts = ['privatekey', 'publickey'] as const;

/** GnuPG with nothing in it but what is imported. */
function freshGpg(...imported: Buffer[]) {
  const home = temporaryFolder();
  const env = { PATH: process.env.PATH, GNUPGHOME: home, LC_ALL: 'C.UTF-8' };
  const runGpg = (args: string[], input: Buffer | string = '') => {
    const options = { env, input, timeout: PATIENCE };
    const result = spawnSync('gpg', ['--batch', '--trust-model', 'always', ...args], options);
    if (result.status !== 0) throw new Error(`gpg ${args.join(' ')}: ${result.stderr}`);
    return result;
  };
  const gpg = (args: string[], input?: Buffer | string) => runGpg(args, input).stdout;
  for (const material of imported) gpg(['--import'], material);
  /** Fields of the lines with a certain record, of `--with-colons` (GnuPG's doc/DETAILS). */
  const records = (list: string, record: string) =>
    gpg([list, '--with-colons'])
      .toString()
      .split('\n')
      .map((line) => line.split(':'))
      .filter(([type]) => type === record);
  return { runGpg, gpg, records };
}

for (const part of parts)
  for (const encoding of ['asciiarmored', 'binary', 'base64'] as OpenPgpEncoding[])
    test(`gpg imports the ${part} as ${encoding}`, { skip }, async () => {
      const written = await formatOpenPgpKey(key, part, encoding);
      const { records } = freshGpg(encoding === 'base64' ? Buffer.from(`${written}`, 'base64') : written);
      const [primary, ...otherKeys] = records('--list-keys', 'pub');
      const [subkey, ...otherSubkeys] = records('--list-keys', 'sub');
      assert.ok(primary && subkey);
      assert.deepEqual([otherKeys, otherSubkeys], [[], []]);
      // Bits, algorithm (22 is EdDSA, 18 ECDH), time of creation, expiry, what it is good for, curve.
      const fields = (record: string[]) => [2, 3, 5, 6, 11, 16].map((field) => record[field]);
      assert.deepEqual(fields(primary), ['255', '22', `${created}`, '', 'scESC', 'ed25519']);
      assert.deepEqual(fields(subkey), ['255', '18', `${created}`, '', 'e', 'cv25519']);
      assert.deepEqual(
        records('--list-keys', 'uid').map((record) => record[9]?.replaceAll('\\x3a', ':')),
        [userId],
      );
      assert.equal(records('--list-secret-keys', 'sec').length, part === 'privatekey' ? 1 : 0);
    });

test('the public key encrypts and the private one decrypts, the private one signs and the public one verifies', {
  skip,
}, async () => {
  const holder = freshGpg(await formatOpenPgpKey(key, 'privatekey', 'asciiarmored'));
  const other = freshGpg(await formatOpenPgpKey(key, 'publickey', 'asciiarmored'));
  const message = Buffer.from([0, 255, ...Buffer.from('message\n'.repeat(100))]);
  const encrypted = other.gpg(['--encrypt', '--recipient', 'zoe@example.com'], message);
  assert.deepEqual(holder.gpg(['--decrypt'], encrypted), message);
  assert.throws(() => other.gpg(['--decrypt'], encrypted), /No secret key/);
  const signed = holder.gpg(['--sign'], message);
  assert.deepEqual(other.gpg(['--decrypt'], signed), message);
  const signature = holder.gpg(['--clear-sign'], 'text\n').toString();
  assert.match(signature, /^Hash: SHA256$/m);
  other.gpg(['--verify'], signature);
  assert.throws(() => other.gpg(['--verify'], signature.replace('text', 'test')), /BAD signature/);
});

test('the key prefers AES256, SHA256 and ZLIB, and has no passphrase', { skip }, async () => {
  const { gpg, runGpg } = freshGpg(key);
  const shown = runGpg(['--edit-key', 'zoe@example.com', 'showpref', 'quit']).stderr.toString();
  assert.match(shown, /^ +Cipher: AES256,/m);
  assert.match(shown, /^ +Digest: SHA256,/m);
  assert.match(shown, /^ +Compression: ZLIB,/m);
  // gpg asks for a passphrase in vain here, and needs it to give a key out.
  assert.ok(gpg(['--pinentry-mode', 'error', '--export-secret-keys']).length > 0);
});

for (const part of parts)
  test(`ASCII armor and base64 of the ${part} hold its binary form and nothing else`, async () => {
    const label = part === 'privatekey' ? 'PRIVATE' : 'PUBLIC';
    const binary = await formatOpenPgpKey(key, part, 'binary');
    assert.equal(binary.includes(Buffer.from(userId)), true);
    assert.equal(`${await formatOpenPgpKey(key, part, 'base64')}`, binary.toString('base64'));
    const armored = `${await formatOpenPgpKey(key, part, 'asciiarmored')}`;
    const found = new RegExp(
      `^-----BEGIN PGP ${label} KEY BLOCK-----\n\n((?:[A-Za-z0-9+/=]{1,76}\n)+)=[A-Za-z0-9+/]{4}\n-----END PGP ${label} KEY BLOCK-----\n$`,
    ).exec(armored);
    assert.equal(found?.[1]?.replaceAll('\n', ''), binary.toString('base64'));
  });

test('the binary private key is the key itself; every key is another one', async () => {
  assert.deepEqual(await formatOpenPgpKey(key, 'privatekey', 'binary'), key);
  assert.notDeepEqual(await generateOpenPgpKey(userId, created * 1000), key);
});
