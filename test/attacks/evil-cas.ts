import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { selfSignedCertificate } from '../../src/protocol/certificate.ts';
import { start } from '../launcher/support.ts';
import { executables, type Result } from '../support/stack.ts';

export interface EvilCas {
  /** Runs `scone`, which asks this CAS; through a shell where a line for one is given. */
  scone(...args: string[]): Promise<Result>;
  sh(line: string): Promise<Result>;
  stop(): void;
}

/** A CAS that answers whatever the test wants it to. */
export async function evilCas(
  home: string,
  answer: (url: URL, response: ServerResponse) => object | undefined,
): Promise<EvilCas> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const cert = await selfSignedCertificate({
    ...{ key: privateKey as KeyObject, commonName: 'cas', names: ['localhost'] },
    ...{ notBefore: new Date(Date.now() - 3600_000), notAfter: new Date(Date.now() + 86_400_000) },
  });
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const server = createServer({ key, cert }, (request, response) => {
    const body = answer(new URL(request.url ?? '/', 'https://cas'), response);
    if (body) response.end(JSON.stringify(body));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const env = { PATH: process.env.PATH, HOME: home, TERM: 'xterm', SCONE: executables().scone };
  const there = [
    ...['--cas', `127.0.0.1:${port}`, '--retries', '0'],
    '--only_for_testing-disable-attestation-verification',
  ];
  const of = async (command: string, args: string[], more: object = {}) => {
    const running = start(command, args, { env: { ...env, ...more }, stdio: ['ignore', 'pipe', 'pipe'] });
    return running.finished;
  };
  return {
    scone: (...args) => of(executables().scone, [...args, ...there]),
    sh: (line) => of('/bin/sh', ['-c', line], { THERE: there.join(' ') }),
    stop: () => void server.close(),
  };
}
