import type { TLSSocket } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import { type Asker, correlated, newCorrelationId } from './correlation.ts';
import { metrics } from './metrics.ts';

/**
 * Counts requests by the call they are for, and gives each an id: its log lines have it, and a header of the answer.
 * @param askerOf names who is at the other end
 */
export function observeRequests(app: FastifyInstance, askerOf: (socket: TLSSocket) => Asker): void {
  app.addHook('onRequest', async (request, reply) => {
    metrics.inFlight.add({ port: 'api' }, 1);
    reply.raw.once('close', () => metrics.inFlight.add({ port: 'api' }, -1));
    reply.header('x-request-id', request.id);
  });
  app.addHook('onResponse', async (request, reply) => {
    const isKnown = !request.is404;
    const call = {
      method: isKnown ? request.method : 'other',
      route: (isKnown && request.routeOptions.url) || 'unknown',
    };
    metrics.requested({ ...call, status: String(reply.statusCode) });
    metrics.requestSeconds(call, reply.elapsedTime / 1000);
  });
  app.addHook('onRoute', (route) => {
    const { handler } = route;
    route.handler = function (request, reply) {
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort());
      const asker = { ...askerOf(request.raw.socket as TLSSocket), gone: gone.signal };
      return correlated(request.id, asker, () => handler.call(this, request, reply));
    };
  });
}

/** For `genReqId`: nobody but the CAS chooses what stands in its log. */
export const requestId = (): string => newCorrelationId();
