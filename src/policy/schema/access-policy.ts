import * as v from 'valibot';
import { principalKey, principalProblem, roles } from '../principals.ts';
import { choice, list, object, oneOrMany, record, text, textOr } from '../shapes.ts';
import { signerDigest } from '../signed-session.ts';
import { described, invalidText, referenceOr } from './values.ts';

/** `access_policy`: who may do what. */

/** Who may do something: one principal. */
export type Principal = string | { signer: string } | { [governance: string]: Principal[] };

const principalText = v.pipe(invalidText(principalProblem), v.examples([...roles]));
export const signerKey = invalidText((value) => {
  const key = signerDigest(value);
  return typeof key === 'string' ? key : undefined;
});
const signer = object({
  signer: described(referenceOr(signerKey), 'Public key (PEM) of whoever signs the session'),
});

const GOVERNANCE = /^require-(all|at-least-([1-9][0-9]{0,3}))$/;

/** How many of its principals an entry `require-…` asks for. */
export function quorumOf(key: string, among: number): number | undefined {
  const match = GOVERNANCE.exec(key);
  if (!match) return undefined;
  return match[2] === undefined ? among : Number(match[2]);
}

const isGovernance = (input: unknown) =>
  typeof input === 'object' && input !== null && Object.keys(input).some((key) => key.startsWith('require-'));

/** ANY and NONE are never one of several. */
export const standsAlone = (principal: Principal) => principal === 'ANY' || principal === 'NONE';

/** The same for the same key, however it is written: nobody counts twice. */
function keyOf(principal: Principal): unknown {
  if (typeof principal === 'string') return principalKey(principal) ?? principal;
  if (!('signer' in principal)) return principal;
  const key = signerDigest(String(principal.signer));
  return `signer ${typeof key === 'string' ? principal.signer : key.toString('hex')}`;
}

const governed: v.GenericSchema<Principal> = v.lazy(() => principal);

const governance = v.pipe(
  record(
    v.pipe(text, v.regex(GOVERNANCE, 'expected require-all or require-at-least-N')),
    v.pipe(
      list(governed),
      v.minLength(1, 'expected at least one principal'),
      v.check((members) => !members.some(standsAlone), 'ANY and NONE stand alone'),
      v.check((members) => new Set(members.map(keyOf)).size === members.length, 'somebody is there twice'),
    ),
  ),
  v.entries(1, 'expected one of require-all or require-at-least-N'),
  v.check(
    (entry) =>
      Object.entries(entry).every(([key, members]) => (quorumOf(key, members.length) ?? 0) <= members.length),
    'more are required than are listed',
  ),
);

/** One principal, or a rule that asks for several. */
export const principal = textOr(
  principalText,
  choice(isGovernance, governance, signer),
) as v.GenericSchema<Principal>;

const principals = <Item extends v.GenericSchema<Principal>>(item: Item, explanation: string) =>
  described(
    referenceOr(
      v.pipe(
        oneOrMany(item as v.GenericSchema<Principal>),
        v.check((entries) => entries.length <= 1 || !entries.some(standsAlone), 'ANY and NONE stand alone'),
      ),
    ),
    explanation,
  );

const plain = principalText as v.GenericSchema<Principal>;

export const accessPolicy = object({
  read: v.optional(principals(plain, 'Who may read the session; default: its creator'), 'CREATOR'),
  update: v.optional(principals(governed, 'Who may replace the session; default: its creator'), 'CREATOR'),
  create_sessions: v.optional(
    principals(governed, 'Who may create sessions below this one; default: as update'),
  ),
  list_sessions: v.optional(principals(plain, 'Who may list the sessions below this one; default: as read')),
});
