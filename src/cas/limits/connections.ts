import type { Socket } from 'node:net';
import type { Server } from 'node:tls';
import { sourceOf } from './source.ts';

/**
 * Closes connections of a source that has many already, idle ones included, so that others find room.
 * @param most open at a time, of one source
 * @param refused is told of each
 */
export function limitConnections(server: Server, most: number, refused: () => void): void {
  const open = new Map<string, number>();
  server.prependListener('connection', (socket: Socket) => {
    const source = sourceOf(socket);
    const count = (open.get(source) ?? 0) + 1;
    if (count > most) {
      refused();
      socket.destroy();
      return;
    }
    open.set(source, count);
    socket.once('close', () => {
      const left = (open.get(source) ?? 0) - 1;
      if (left > 0) open.set(source, left);
      else open.delete(source);
    });
  });
}
