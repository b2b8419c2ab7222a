import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCertificate } from '../../../src/attestation/x509/certificate.ts';
import { type ChainOptions, verifyChain } from '../../../src/attestation/x509/chain.ts';
import { parseRevocationList } from '../../../src/attestation/x509/revocation.ts';
import { certificate, type Issuer, type Minted, newKey, revocationList } from '../../support/pki.ts';

/** Chains as nobody should issue them, and what is revoked in one list and not in another. */

const at = Date.parse('2026-01-01T00:00:00Z');
const DAY = 24 * 3600 * 1000;
const issuing = { ca: true, usages: [5, 6] } as const;
const root = certificate({ commonName: 'Root', ...issuing });
const roots = new Set([parseCertificate(root.der).fingerprint]);

function chain(leaf: Minted, others: readonly Minted[], options: Partial<ChainOptions> = {}) {
  return verifyChain(parseCertificate(leaf.der), 'a certificate', {
    certificates: others.map((each) => parseCertificate(each.der)),
    revocationLists: [],
    roots,
    at,
    revocation: 'where given',
    ...options,
  });
}

const names = ({ certificates }: ReturnType<typeof chain>) =>
  certificates.map(({ commonName }) => commonName);

/** A chain of as many issuers below the root, and a leaf. */
function below(count: number): [leaf: Minted, issuers: Minted[]] {
  const issuers = [root];
  for (let index = 1; index <= count; index++)
    issuers.unshift(certificate({ commonName: `Issuer ${index}`, issuer: issuers[0] ?? root, ...issuing }));
  return [certificate({ commonName: 'Leaf', issuer: issuers[0] ?? root }), issuers];
}

test('a chain leads to the root in whatever order its certificates come', () => {
  const [leaf, issuers] = below(2);
  for (const others of [issuers, issuers.toReversed(), [...issuers, leaf, ...issuers]])
    assert.deepEqual(names(chain(leaf, others)), ['Leaf', 'Issuer 2', 'Issuer 1', 'Root']);
  assert.throws(() => chain(leaf, issuers, { roots: new Set() }), { code: 'EVIDENCE_INVALID' });
  assert.deepEqual(names(chain(root, [])), ['Root']);
});

test('a chain ends somewhere', () => {
  const [leaf, issuers] = below(6);
  assert.equal(chain(leaf, issuers).certificates.length, 8);
  const [deep, many] = below(7);
  assert.throws(() => chain(deep, many), { code: 'EVIDENCE_INVALID', message: /too long/ });
  // Two that have issued each other.
  const [one, other]: [Issuer, Issuer] = [
    { commonName: 'One', key: newKey('P-256') },
    { commonName: 'Other', key: newKey('P-256') },
  ];
  const pair = [
    certificate({ ...one, issuer: other, ...issuing }),
    certificate({ ...other, issuer: one, ...issuing }),
  ];
  const lost = certificate({ commonName: 'Leaf', issuer: one });
  assert.throws(() => chain(lost, [...pair, root]), { code: 'EVIDENCE_INVALID', message: /too long/ });
  const itself = certificate({ commonName: 'Itself', ...issuing });
  assert.throws(() => chain(itself, [itself, root]), { code: 'EVIDENCE_INVALID', message: /trusted root/ });
});

test('a name is not enough, and neither is a key', () => {
  const impostor = certificate({ commonName: 'Root', ...issuing });
  const leaf = certificate({ commonName: 'Leaf', issuer: impostor });
  assert.throws(() => chain(leaf, [impostor, root]), { code: 'EVIDENCE_INVALID' });
  const renamed = certificate({ commonName: 'Leaf', issuer: { commonName: 'Another', key: root.key } });
  assert.throws(() => chain(renamed, [root]), { code: 'EVIDENCE_INVALID' });
});

test('of an issuer that was certified anew, the certificate that is in date counts', () => {
  const key = newKey('P-256');
  const issuer = { commonName: 'Issuer', issuer: root, key, serial: 5, ...issuing };
  const old = certificate({ ...issuer, notAfter: at - DAY });
  const renewed = certificate({ ...issuer, notBefore: at - 2 * DAY });
  const leaf = certificate({ commonName: 'Leaf', issuer: renewed });
  for (const others of [
    [old, renewed, root],
    [root, renewed, old],
  ])
    assert.equal(chain(leaf, others).certificates[1]?.fingerprint, parseCertificate(renewed.der).fingerprint);
  assert.throws(() => chain(leaf, [old, root]), { code: 'EVIDENCE_INVALID', message: /Issuer: it was good/ });
});

test('critical extensions are refused unless somebody understands them', () => {
  const leaf = certificate({
    commonName: 'Leaf',
    issuer: root,
    extensions: [{ id: '1.2.3', content: Buffer.of(5, 0), isCritical: true }],
  });
  assert.throws(() => chain(leaf, [root]), { code: 'EVIDENCE_INVALID', message: /1\.2\.3/ });
  assert.deepEqual(names(chain(leaf, [root], { understood: ['1.2.3'] })), ['Leaf', 'Root']);
});

const list = (revoked: number[], days: readonly [from: number, until: number], issuer: Issuer = root) =>
  parseRevocationList(
    revocationList({ issuer, revoked, thisUpdate: at + days[0] * DAY, nextUpdate: at + days[1] * DAY }),
  );

test('what was revoked once stays revoked, by whichever list of its issuer', () => {
  const leaf = certificate({ commonName: 'Leaf', issuer: root, serial: 0x80ff });
  const check = (...revocationLists: ReturnType<typeof list>[]) =>
    chain(leaf, [root], { revocationLists, revocation: 'required' });
  const [current, old, future] = [[-1, 9] as const, [-30, -20] as const, [1, 9] as const];
  assert.equal(check(list([1], current)).validUntil, at + 9 * DAY);
  assert.equal(check(list([1], current)).isRevocationChecked, true);
  for (const revoked of [
    [list([0x80ff], current)],
    [list([1, 0x80ff], old), list([1], current)],
    [list([1], current), list([0x80ff], [-2, 9])],
    [list([1], current), list([0x80ff], future)],
  ])
    assert.throws(() => check(...revoked), { code: 'CERTIFICATE_REVOKED' });
  // What others say does not count, and none of these is one to go by.
  const impostor = { commonName: root.commonName, key: newKey('P-256') };
  assert.equal(check(list([0x80ff], current, impostor), list([1], current)).isRevocationChecked, true);
  for (const useless of [[list([1], old)], [list([1], future)], [list([1], current, impostor)]])
    assert.throws(() => check(...useless), { code: 'COLLATERAL_INVALID' });
  assert.throws(() => check(), { code: 'COLLATERAL_MISSING' });
  // Where lists need not be given, those that are have to be good all the same.
  assert.equal(chain(leaf, [root]).isRevocationChecked, false);
  assert.throws(() => chain(leaf, [root], { revocationLists: [list([1], old)] }), {
    code: 'COLLATERAL_INVALID',
  });
});
