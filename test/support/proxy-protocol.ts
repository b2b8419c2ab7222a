import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { readBalancers } from '../../src/cas/limits/proxy-protocol.ts';
import { temporaryFolder } from './leave-nothing.ts';
import { executables, type RunningCas, startCas } from './stack.ts';

/** A CAS behind a balancer that names its clients by the PROXY protocol, and what the two say. */

export const BALANCER = '127.0.0.5';
export const CLIENT = '198.51.100.9';
export const balancers = readBalancers([BALANCER]);
export const SIGNATURE = '0d0a0d0a000d0a515549540a';

export function startBalancedCas(): Promise<RunningCas> {
  const folder = temporaryFolder();
  return startCas(
    executables().scone,
    join(folder, 'cas'),
    ['--proxy-protocol-from', BALANCER, '--workers', '2', '--log-level', 'info'],
    { PATH: process.env.PATH ?? '', HOME: folder },
  );
}

/** Header for TCP over IPv4 from an address. */
export const header = (client: string, rest = '') =>
  Buffer.concat([
    Buffer.from(`${SIGNATURE}2111`, 'hex'),
    Buffer.of(0, 12 + rest.length / 2),
    Buffer.from(client.split('.').map(Number)),
    Buffer.from('7f00000104d20050', 'hex'),
    Buffer.from(rest, 'hex'),
  ]);

/** A connection from elsewhere, to a server of this host that believes {@link BALANCER}. */
export function connectFrom(client: string, port: number | string): Socket {
  const socket = connect({ host: '127.0.0.1', port: Number(port), localAddress: BALANCER });
  socket.on('error', () => {}).write(header(client));
  return socket;
}

export async function open(port: string, localAddress: string): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: Number(port), localAddress });
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

/** Status that the CAS answers with over a connection. */
export async function ask(socket: Socket): Promise<string> {
  const tls = connectTls({ socket, rejectUnauthorized: false });
  tls.write('GET /v1/version HTTP/1.1\r\nhost: cas\r\nconnection: close\r\n\r\n');
  let text = '';
  tls.on('data', (chunk) => {
    text += chunk;
  });
  await once(tls, 'close');
  return text.slice(0, 12);
}

export const isClosed = (socket: Socket) => once(socket.resume(), 'close');
