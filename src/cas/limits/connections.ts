import type { Socket } from 'node:net';
import type { Server } from 'node:tls';
import { createCounts } from './counts.ts';
import { sourceOf } from './source.ts';

/**
 * Closes connections of a source that has many already, idle ones included, so that others find room.
 * @param most open at a time, of one source
 * @param refused is told of each
 */
export function limitConnections(server: Server, most: number, refused: () => void): void {
  const open = createCounts();
  server.prependListener('connection', (socket: Socket) => {
    const source = sourceOf(socket);
    if (open.of(source) >= most) {
      refused();
      socket.destroy();
      return;
    }
    open.add(source, 1);
    socket.once('close', () => open.add(source, -1));
  });
}
