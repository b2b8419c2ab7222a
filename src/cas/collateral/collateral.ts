import { amdRoots } from '../../attestation/amd/certificate.ts';
import {
  type Collateral,
  type CollateralFile,
  mergeCollateral,
  parseCollateral,
} from '../../attestation/collateral.ts';
import { type Document, documentsOf, evaluationOf } from '../../attestation/documents.ts';
import type { CollateralNeed } from '../../attestation/hardware.ts';
import { intelRoots } from '../../attestation/intel/verify.ts';
import { formatTime } from '../../attestation/x509/chain.ts';
import { causes, failure, reason } from '../../errors.ts';
import type { Log } from '../cas.ts';
import { MOST_CHIPS, type Store } from '../store/store.ts';
import { inThread } from '../threads.ts';
import { fetchFiles } from './fetch.ts';
import { addressOf, type Sources } from './source.ts';

/**
 * What makers of hardware publish, in memory and in the store. A document comes by a fetch or from a file, and is kept only
 * if its maker has signed it, it is in date, and there is none that is newer.
 */
export interface CollateralKeeper {
  /**
   * What is needed to check a quote. Fetches what is missing or has run out, and waits for nothing else.
   * @throws Failure COLLATERAL_MISSING
   */
  forQuote(need: CollateralNeed): Promise<Collateral>;
  list(): KeptDocument[];
  /**
   * Keeps what counts of some files, and says of each document what became of it.
   * @throws Failure COLLATERAL_INVALID of a file that cannot be read
   */
  add(files: readonly CollateralFile[]): Promise<AddedDocument[]>;
  /** Fetches anew what runs out before long. */
  refresh(): Promise<void>;
  /** Reads what other processes of this CAS have kept. */
  reload(): Promise<void>;
  close(): void;
}

export interface AddedDocument {
  key: string;
  until: number;
  /** `older`: one that is newer was there. */
  outcome: 'kept' | 'older' | 'refused';
  /** Why it was refused. */
  detail?: string;
}

export interface KeptDocument extends Pick<Document, 'key' | 'from' | 'until'> {
  /** When it came here, in milliseconds since 1970. */
  kept: number;
}

export interface KeeperOptions {
  store: Store;
  /** Absent: nothing is fetched. */
  sources?: Sources | undefined;
  /** Roots to trust instead of the makers' own. */
  roots?: ReadonlySet<string> | undefined;
  clock: () => number;
  log: Log;
}

/** How long the reason why something could not be fetched is good. */
const FAILED_FOR = 10_000;
const LOOK_EVERY = 3_600_000;
/** At a time, so that nobody has others asked without end by it. */
const MOST_FETCHES = 16;
const MOST_FAILED = 1024;
const RELOAD_AFTER = 1_000;
/** What has less left than this part of its life, and than this time, is fetched anew. */
const PART_LEFT = 1 / 3;
const MOST_AHEAD = 10 * 24 * LOOK_EVERY;

/** @throws Failure of the store */
export async function openCollateral(options: KeeperOptions): Promise<CollateralKeeper> {
  const { store, sources, clock, log } = options;
  const roots = options.roots ?? new Set([...intelRoots, ...amdRoots]);
  const documents = new Map<string, Document & { kept: number }>();
  const fetching = new Map<string, Promise<void>>();
  const failed = new Map<string, { at: number; error: unknown }>();
  const bags = new Map<string, Collateral>();
  const closing = new AbortController();

  let loaded = 0;
  const reload = async () => {
    loaded = performance.now();
    for (const { key, kept, content } of await store.collateral())
      try {
        if (documents.get(key)?.file.bytes.equals(content)) continue;
        for (const document of documentsOf(parseCollateral([{ name: key, bytes: content }]), key))
          documents.set(document.key, { ...document, kept });
        bags.clear();
      } catch (error) {
        // It can be had again, and is of use to nobody as it is.
        log.warn({ key, error: reason(error) }, 'collateral that was kept cannot be read');
      }
  };
  await reload();

  const isGood = (key: string) => {
    const document = documents.get(key);
    return document !== undefined && clock() <= document.until;
  };
  const bagOf = (isWanted: (key: string) => boolean): Collateral =>
    mergeCollateral(...[...documents.values()].filter(({ key }) => isWanted(key)).map(({ bag }) => bag));

  const keep = async (document: Document): Promise<'kept' | 'older'> => {
    const { key, from: issued, until, file } = document;
    const before = documents.get(key);
    // Whoever brings it again and again makes no work for the disk.
    if (before?.file.bytes.equals(file.bytes)) return 'kept';
    const kept = clock();
    if (before && kept <= before.until && evaluationOf(document) < evaluationOf(before)) return 'older';
    if (!(await store.keepCollateral({ key, issued, until, kept, content: file.bytes }))) return 'older';
    documents.delete(key);
    documents.set(key, { ...document, kept });
    const chips = [...documents.keys()].filter((each) => /^(\/vcek|vlek)\//.test(each));
    if (chips.length > MOST_CHIPS) documents.delete(chips[0] ?? '');
    bags.clear();
    return 'kept';
  };

  /**
   * Why a list of AMD's roots is not taken from a file. They have one for each kind of key, and nothing in it tells which,
   * but where it was fetched.
   */
  const doubtAbout = ({ key, bag }: Document): string | undefined => {
    if (!key.startsWith('crl/ARK-')) return undefined;
    if (sources)
      return 'AMD has two by this name, and a CAS that fetches takes them only from where they are told apart';
    const before = isGood(key) ? documents.get(key)?.bag.revocationLists?.[0] : undefined;
    const revoked = bag.revocationLists?.[0]?.revoked;
    return before && [...before.revoked].some((serial) => !revoked?.has(serial))
      ? 'it leaves out what the one that is there revokes'
      : undefined;
  };

  const add = async (files: readonly CollateralFile[], isFetched: boolean): Promise<AddedDocument[]> => {
    const others = [...documents.values()]
      .filter(({ key }) => /^(certificate|crl)\//.test(key) && isGood(key))
      .map(({ file }) => file);
    // Whatever anybody sends is read and verified where nobody waits for it.
    const judged = await inThread('short', 'judgeCollateral', { files, others, roots, at: clock() });
    const added: AddedDocument[] = [];
    for (const { key, until, position, objection, name, bytes } of judged) {
      const file = { name, bytes: Buffer.from(bytes) };
      const [document] = objection === undefined ? documentsOf(parseCollateral([file]), name) : [];
      const detail = objection ?? (document && !isFetched ? doubtAbout(document) : undefined);
      const outcome = document && detail === undefined ? await keep(document) : 'refused';
      added[position] = { key, until, outcome, ...(detail !== undefined && { detail }) };
    }
    return added;
  };

  const fetchOne = async (key: string) => {
    const address = sources && addressOf(key, sources);
    if (!sources || !address) throw new Error('there is nowhere to fetch it from');
    const added = await add(await fetchFiles(address, key, sources, closing.signal), true);
    const wanted = added.find((each) => each.key === key);
    if (!wanted) throw new Error(`${address.origin} gave something else`);
    if (wanted.outcome === 'refused') throw new Error(wanted.detail);
    if (wanted.outcome === 'older') throw new Error('an older one came');
    log.info({ key, until: documents.get(key)?.until, source: address.origin }, 'collateral fetched');
  };
  const fetchOnce = (key: string): Promise<void> => {
    const known = failed.get(key);
    // Either way, as clocks are set back, too.
    if (known && Math.abs(clock() - known.at) < FAILED_FOR) return Promise.reject(known.error);
    if (fetching.size >= MOST_FETCHES && !fetching.has(key))
      return Promise.reject(new Error(`${MOST_FETCHES} others are being fetched`));
    const running =
      fetching.get(key) ??
      fetchOne(key)
        .catch((error: unknown) => {
          if (failed.size >= MOST_FAILED) failed.clear();
          failed.set(key, { at: clock(), error });
          throw error;
        })
        .finally(() => fetching.delete(key));
    fetching.set(key, running);
    return running;
  };

  const refresh = async () => {
    for (const { key, from, until } of [...documents.values()]) {
      const left = until - clock();
      const ahead = Math.min((until - from) * PART_LEFT, MOST_AHEAD);
      if (left > ahead || (sources && !addressOf(key, sources))) continue;
      try {
        await fetchOnce(key);
        if (documents.get(key)?.until === until) throw new Error('the same came again');
      } catch (error) {
        if (closing.signal.aborted) return;
        log.warn(
          { key, until: formatTime(until), error: causes(error).join(': ') },
          'collateral runs out, and no newer one came',
        );
      }
    }
  };
  // What ran out while nobody was here is not for a launch to wait for.
  setImmediate(() => void refresh());
  const timer = setInterval(() => void refresh(), LOOK_EVERY * (0.9 + 0.2 * Math.random())).unref();

  const obtain = async (key: string) => {
    if (isGood(key)) return;
    // Another process of this CAS may have it.
    if (performance.now() - loaded > RELOAD_AFTER) await reload();
    if (isGood(key)) return;
    try {
      await fetchOnce(key);
    } catch (error) {
      log.warn({ key, error: causes(error).join(': ') }, 'collateral is missing');
      // A certificate may come with the Evidence itself.
      if (!key.startsWith('/')) throw failure('COLLATERAL_MISSING', { what: key });
    }
  };

  return {
    async forQuote(need) {
      const [first, ...rest] = keysOf(need);
      await obtain(first);
      await Promise.all(rest.map(obtain));
      const keys = [first, ...rest];
      const name = keys.join();
      const bag = bags.get(name) ?? bagOf((key) => OF_USE.test(key) || keys.includes(key));
      if (bags.size >= MOST_BAGS) bags.clear();
      bags.set(name, bag);
      return bag;
    },
    list: () => [...documents.values()].map(({ key, from, until, kept }) => ({ key, from, until, kept })),
    add: (files) => add(files, false),
    refresh,
    reload,
    close() {
      clearInterval(timer);
      closing.abort();
    },
  };
}

const MOST_BAGS = 256;
/** Few, and wanted without being asked for: issuers, keys of providers, and both of the lists of AMD's roots. */
const OF_USE = /^(certificate|vlek|crl\/ARK-\w+)\//;

/** Keys of what is needed (attestation/documents.ts). With the first come the certificates that the others are checked by. */
function keysOf(need: CollateralNeed): [string, ...string[]] {
  if (need.kind === 'intel') {
    const { tee, fmspc, pceId, ca } = need;
    return [
      `intel/tcb-info/${tee}/${fmspc}/${pceId}`,
      `intel/identity/${tee === 'tdx' ? 'TD_QE' : 'QE'}`,
      `crl/Intel SGX PCK ${ca === 'platform' ? 'Platform' : 'Processor'} CA`,
      'crl/Intel SGX Root CA',
    ];
  }
  const { product, certificate } = need.paths;
  const isChip = need.signingKey === 'VCEK';
  return [
    `certificate/SEV-${isChip ? '' : 'VLEK-'}${product}`,
    `crl/ARK-${product}/${isChip ? 'vcek' : 'vlek'}`,
    ...(certificate === undefined ? [] : [certificate]),
  ];
}
