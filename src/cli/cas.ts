import { readClientState } from '../protocol/client-state.ts';
import { formatKeyHash } from '../protocol/key-hash.ts';
import { knownCas } from './state.ts';

/** `scone cas list`: the attested CASes, the default one marked. */
export function listCas(): void {
  const { default_cas, cas_db } = readClientState(process.env);
  for (const [name, { url }] of Object.entries(cas_db))
    process.stdout.write(`${name === default_cas ? '*' : ' '} ${name}: ${url}\n`);
}

/** `scone cas show-identification [CAS]`: its key hash, or its certificate chain. */
export function showIdentification(name: string | undefined, options: { chain?: boolean }): void {
  const cas = knownCas(process.env, name);
  process.stdout.write(options.chain ? cas.chain : `${formatKeyHash(cas.key)}\n`);
}
