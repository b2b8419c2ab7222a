import type * as v from 'valibot';
import { type Address, defaultPorts, formatAddress, parseAddress, portSetting } from '../policy/address.ts';
import { callApi, connectApi } from '../protocol/api-client.ts';
import type { Identity } from '../protocol/certificate.ts';
import { PINNED_BY_ATTEST, readClientState } from '../protocol/client-state.ts';
import { type CasConnection, checkKey } from '../protocol/connect.ts';
import { warn } from './report.ts';
import { withRetries } from './retry.ts';
import { checkLog } from './seen-log.ts';
import { knownCas, openIdentity } from './state.ts';

/** Which CAS a command goes to, and as whom. */
export interface NetworkOptions {
  cas?: string;
  /** File with the identity of the user, where it is not this user's own. */
  identity?: string;
  retries: number;
  only_for_testingDisableAttestationVerification?: boolean;
}

/** A CAS that is asked by a user. */
export interface CasClient {
  name: string;
  /**
   * Makes one request, once the CAS has shown that it has the key it was attested with.
   * @throws Failure CAS_*, or Refused with what the CAS said
   */
  call<Schema extends v.GenericSchema>(
    call: Parameters<typeof callApi>[1],
    answer: Schema,
  ): Promise<v.InferOutput<Schema>>;
}

/** A CAS to connect to; one that was attested has a key. */
interface Target {
  name: string;
  address: Address;
  key: Buffer | undefined;
}

/** @throws Failure CAS_UNKNOWN, or what is wrong with the identity */
export async function openCas(options: NetworkOptions): Promise<CasClient> {
  const target = options.only_for_testingDisableAttestationVerification
    ? unverified(options.cas)
    : knownCas(process.env, options.cas);
  const identity = await openIdentity(process.env, options.identity);
  const { key, ...rest } = target;
  if (key) await checkLog({ ...rest, key }, () => connectTo(target, options.retries));
  return {
    name: target.name,
    call: async (call, answer) => callApi(await connectTo(target, options.retries, identity), call, answer),
  };
}

/** Connects, and makes sure that a CAS which was attested has the key that it had then. */
export async function connectTo(
  { address, key }: Target,
  retries: number,
  identity?: Identity,
): Promise<CasConnection> {
  const connection = await withRetries(retries, () => connectApi(address, identity));
  if (key) checkKey(connection, key, PINNED_BY_ATTEST);
  return connection;
}

/** A CAS without its key: an attested one, or any other by its address. */
function unverified(name: string | undefined): Target {
  const isKnown = name === undefined || Object.hasOwn(readClientState(process.env).cas_db, name);
  const target = isKnown
    ? knownCas(process.env, name)
    : {
        name,
        address: parseAddress(
          name,
          portSetting(process.env, 'SCONE_CAS_API_PORT', defaultPorts.api),
          'the address',
        ),
      };
  warn(
    `the key of the CAS at ${formatAddress(target.address)} is not checked: whoever answers there is trusted`,
  );
  return { name: target.name, address: target.address, key: undefined };
}
