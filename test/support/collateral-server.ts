import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Sources } from '../../src/cas/collateral/source.ts';

/** What is given for a path: a body, and the certificates that come with it in a header. */
export interface Served {
  body: Buffer;
  /** Header's name, and a chain as PEM. */
  chain?: [name: string, pem: string];
}

export type Behaviour = (request: IncomingMessage, response: ServerResponse) => void;

/** Services of makers of hardware: Intel's PCS or a PCCS in version 4, and AMD's KDS, in one. */
export interface CollateralServer {
  sources: Sources;
  /** Paths that were asked for. */
  asked: string[];
  /** By path with its query; changed by tests. */
  files: Map<string, Served>;
  /** Paths whose answers come after all others. */
  late: Set<string>;
  /** In place of all that, where it is set. */
  behave: Behaviour | undefined;
  close(): Promise<void>;
}

export async function serveCollateral(files: Iterable<[string, Served]>): Promise<CollateralServer> {
  const http = createServer((request, response) => {
    server.asked.push(request.url ?? '');
    if (server.behave) return server.behave(request, response);
    const found = server.files.get(request.url ?? '');
    if (!found) return response.writeHead(404).end();
    const headers = found.chain ? { [found.chain[0]]: encodeURIComponent(found.chain[1]) } : {};
    const answer = () => response.writeHead(200, headers).end(found.body);
    if (server.late.has(request.url ?? '')) setTimeout(answer, 50);
    else answer();
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const base = new URL(`http://127.0.0.1:${(http.address() as AddressInfo).port}/`);
  const server: CollateralServer = {
    sources: { pccs: base, kds: base },
    asked: [],
    files: new Map(files),
    late: new Set(),
    behave: undefined,
    async close() {
      http.closeAllConnections();
      http.close();
      await once(http, 'close');
    },
  };
  return server;
}
