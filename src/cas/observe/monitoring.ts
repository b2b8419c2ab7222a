import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { failure, reason } from '../../errors.ts';
import { type Address, formatAddress } from '../../policy/address.ts';
import type { Log } from '../cas.ts';
import { sourceOf } from '../limits/source.ts';
import { aggregate, contentType, metrics, type Readings, readings, remains } from './metrics.ts';
import type { NotReady } from './readiness.ts';

/** What a process of a CAS is asked by whoever watches it. */
export type Question = 'alive' | 'readiness' | 'readings';
export interface Answers {
  alive: true;
  readiness: NotReady[];
  readings: Readings;
}

/** A CAS to be watched: the answers of its processes, by process; without those that gave none in time. */
export interface Watched {
  ask<Asked extends Question>(question: Asked): Promise<Map<number, Answers[Asked]>>;
}

/** What is watched at present: a CAS, or why there is none. */
export type Present = Watched | 'SEALED' | 'SHUTTING_DOWN' | 'NOT_RUNNING';

export interface Monitoring {
  port: number;
  show(present: Present): void;
  close(): Promise<void>;
}

const CONNECTIONS = 32;
const CONNECTIONS_OF_SOURCE = 12;
/**
 * An answer is given again for as many times as long as it took, some milliseconds at most: who asks all the time has others wait
 * little.
 */
const AGAIN = 4;
const AGAIN_AT_MOST = 200;
/** Milliseconds for a request, and for whoever reads an answer. */
const REQUEST = 5_000;
const READ = 10_000;
const LARGEST_HEAD = 8 * 1024;

const WHY = {
  SEALED: 'the CAS waits to be unsealed',
  SHUTTING_DOWN: 'the CAS is ending',
  NOT_RUNNING: 'no process of the CAS answers',
};

/**
 * Metrics and health over plain HTTP, for those who watch a CAS and ask nothing else of it: on a port of its own, so that it
 * answers when the others are full, and can be kept from everybody else.
 * @throws Failure ADDRESS_IN_USE
 */
export async function serveMonitoring({ host, port }: Address, log: Log): Promise<Monitoring> {
  let present: Present = 'NOT_RUNNING';
  const latest = new Map<number, Readings>();
  let past: Readings = [];

  const ask = async <Asked extends Question>(question: Asked) =>
    typeof present === 'string' ? new Map<number, Answers[Asked]>() : present.ask(question);

  const text = async (): Promise<string> => {
    metrics.sealed.set(present === 'SEALED' ? 1 : 0);
    const answers = await ask('readings');
    const ended = [...latest.keys()].filter((process) => !answers.has(process));
    if (ended.length > 0) past = await remains([past, ...ended.map((process) => latest.get(process) ?? [])]);
    for (const process of ended) latest.delete(process);
    for (const [process, its] of answers) latest.set(process, its);
    // Where there is nobody else, this process speaks for the CAS.
    return aggregate([...(answers.size > 0 ? answers.values() : [await readings()]), past]);
  };
  const notReady = async (): Promise<NotReady[]> => {
    if (typeof present === 'string') return [{ reason: present, detail: WHY[present] }];
    const answers = [...(await ask('readiness')).values()];
    if (answers.length === 0) return [{ reason: 'NOT_RUNNING', detail: WHY.NOT_RUNNING }];
    // One that is ready is enough: the others do not take connections while they are busy.
    return answers.some((reasons) => reasons.length === 0) ? [] : (answers[0] ?? []);
  };
  const gather = sharedFor(AGAIN, text);
  const look = sharedFor(AGAIN, notReady);
  const calls: Record<string, (response: ServerResponse) => Promise<void>> = {
    '/metrics': async (response) => {
      response.setHeader('content-type', contentType);
      response.end(await gather());
    },
    // Not whether it is of use: a CAS that lacks its store is not helped by a restart.
    '/healthz': async (response) => {
      const isAlive = typeof present === 'string' || (await ask('alive')).size > 0;
      sendJson(response, isAlive ? 200 : 503, { alive: isAlive });
    },
    '/readyz': async (response) => {
      const reasons = await look();
      sendJson(response, reasons.length === 0 ? 200 : 503, { ready: reasons.length === 0, reasons });
    },
  };

  const answering = new Set<Socket>();
  const server = createServer(
    {
      headersTimeout: REQUEST,
      requestTimeout: REQUEST,
      keepAliveTimeout: REQUEST,
      maxHeaderSize: LARGEST_HEAD,
    },
    (request, response) => {
      answering.add(request.socket);
      response.once('close', () => answering.delete(request.socket));
      const { method, url = '' } = request;
      const [path = ''] = url.split('?');
      const call = Object.hasOwn(calls, path) ? calls[path] : undefined;
      if (!call) return sendJson(response, 404, { error: 'there are /metrics, /healthz and /readyz' });
      if (method !== 'GET') return sendJson(response.setHeader('allow', 'GET'), 405, { error: 'only GET' });
      call(response).catch((error: unknown) => {
        log.error({ path, error: reason(error) }, 'monitoring failed');
        sendJson(response, 500, { error: 'the log says more' });
      });
    },
  );
  // Whoever says nothing makes room for who comes.
  const open = new Map<Socket, string>();
  const of = (source: string) => [...open.values()].filter((each) => each === source).length;
  server.on('connection', (socket) => {
    const source = sourceOf(socket);
    open.set(socket, source);
    socket.once('close', () => open.delete(socket));
    const isOfMany = of(source) > CONNECTIONS_OF_SOURCE;
    if (!isOfMany && open.size <= CONNECTIONS) return;
    const idle = [...open.keys()].filter((each) => !answering.has(each));
    const victim = isOfMany
      ? idle.find((each) => open.get(each) === source)
      : idle.toSorted((a, b) => of(open.get(b) ?? '') - of(open.get(a) ?? ''))[0];
    (victim ?? socket).destroy();
  });
  server.setTimeout(READ);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(failure('ADDRESS_IN_USE', { address: formatAddress({ host, port }), detail: reason(error) })),
    );
    server.listen(port, host, resolve);
  });
  const { address, port: its } = server.address() as AddressInfo;
  if (!/^(127\.|::1$|::ffff:127\.)/.test(address))
    log.warn(
      { address },
      'whoever reaches the address for metrics can read them: it has no TLS and asks for nothing',
    );
  return {
    port: its,
    show(next) {
      present = next;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/**
 * Does something once for all who ask for it meanwhile.
 * @param times as long as it took, for which it is not done again
 */
function sharedFor<Result>(times: number, work: () => Promise<Result>): () => Promise<Result> {
  let result: Promise<Result> | undefined;
  let until = 0;
  return () => {
    if (result && performance.now() < until) return result;
    const start = performance.now();
    until = Number.POSITIVE_INFINITY;
    result = work().finally(() => {
      const end = performance.now();
      until = end + Math.min(AGAIN_AT_MOST, times * (end - start));
    });
    return result;
  };
}

function sendJson(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent) return void response.destroy();
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' });
  response.end(`${JSON.stringify(body)}\n`);
}
