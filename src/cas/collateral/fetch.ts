import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import type { CollateralFile } from '../../attestation/collateral.ts';
import type { Sources } from './source.ts';

const ANSWER = 5_000;
const LARGEST = 1024 * 1024;

/**
 * Fetches a document, and the certificates that come with it in a header.
 * @param name that the files are given
 * @throws Error with the reason
 */
export async function fetchFiles(
  address: URL,
  name: string,
  { pccs, pccsCa }: Sources,
  signal: AbortSignal,
): Promise<CollateralFile[]> {
  const ca = address.origin === pccs.origin ? pccsCa : undefined;
  const { body, headers } = await get(address, ca, AbortSignal.any([signal, AbortSignal.timeout(ANSWER)]));
  const chains = Object.entries(headers)
    .filter(([name, value]) => name.endsWith('-issuer-chain') && typeof value === 'string')
    .map(([, value]) => Buffer.from(decodeURIComponent(String(value))));
  return [body, ...chains].map((bytes) => ({ name, bytes }));
}

function get(
  address: URL,
  ca: string | undefined,
  signal: AbortSignal,
): Promise<{ body: Buffer; headers: NodeJS.Dict<string | string[]> }> {
  const request = address.protocol === 'https:' ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    const outgoing = request(address, {
      ...(ca !== undefined && { ca }),
      signal,
    });
    const fail = (error: Error) => reject(signal.aborted ? new Error('no answer in time') : error);
    outgoing.on('error', fail);
    outgoing.on('response', (response) => {
      const refuse = (detail: string) => outgoing.destroy(new Error(detail));
      // A redirection is an answer too that nobody expects.
      if (response.statusCode !== 200) return void refuse(`status ${response.statusCode}`);
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > LARGEST) refuse(`the answer has more than ${LARGEST} bytes`);
        else chunks.push(chunk);
      });
      response.on('error', fail);
      response.on('end', () => resolve({ body: Buffer.concat(chunks), headers: response.headers }));
    });
    outgoing.end();
  });
}
