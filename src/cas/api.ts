import { createPublicKey } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import { fileList } from '../attestation/collateral.ts';
import type { Identity } from '../protocol/certificate.ts';
import { version } from '../version.ts';
import { addAttestRoute } from './attest-route.ts';
import type { Cas } from './cas.ts';
import { endorse } from './evidence.ts';
import { certificateOf, createHttps } from './http.ts';
import { addOwnerRoutes, type Control } from './owner/routes.ts';
import { addRoutes, type ClientOf } from './routes.ts';

export interface ApiOptions {
  /** Key and certificate, which are made anew now and then. */
  identity: () => Identity;
  /** The LAS that vouches for this CAS. */
  lasSocket: string;
  control: Control;
}

/**
 * The REST interface for people and their tools. Who asks is told by the TLS client certificate, of which
 * only the key counts.
 */
export function createApi(cas: Cas, { identity, lasSocket, control }: ApiOptions): FastifyInstance {
  const app = createHttps(identity(), cas.log);
  const clientOf: ClientOf = ({ raw }) => certificateOf(raw.socket as TLSSocket);
  addRoutes(app, cas, clientOf);
  addOwnerRoutes(app, cas, control, clientOf);

  addAttestRoute(app, {
    ...{ casKey: cas.key, lasSocket, log: cas.log, certificate: () => identity().certificate },
    collateralOf: async (hardware) => fileList((await endorse(cas, hardware)).collateral),
  });

  const publicKey = createPublicKey(cas.encryptionKey).export({ type: 'spki', format: 'pem' });
  app.get('/v1/session-encryption-key', async () => ({ publicKey }));
  app.get('/v1/version', async () => ({ version }));
  return app;
}
