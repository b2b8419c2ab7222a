import type { Socket } from 'node:net';
import type { Server } from 'node:tls';
import { createCounts } from './counts.ts';
import { placeOf, sourceOf } from './source.ts';

/** Handshakes that one source may have under way: as many launchers as come at once after a power cut, and no more. */
export const HANDSHAKES_OF_SOURCE = 2048;

/**
 * Closes connections of a source that has begun many and completed none of them, so that others find room.
 * @param most under way at a time, of one source
 * @param refused is told of each
 */
export function limitHandshakes(server: Server, refused: () => void, most = HANDSHAKES_OF_SOURCE): void {
  const underWay = createCounts();
  const places = new Map<string, string>();
  const end = (place: string) => {
    const source = places.get(place);
    if (source === undefined) return;
    places.delete(place);
    underWay.add(source, -1);
  };
  server.prependListener('connection', (socket: Socket) => {
    const source = sourceOf(socket);
    const place = placeOf(socket);
    if (underWay.of(source) >= most) {
      refused();
      socket.destroy();
      return;
    }
    underWay.add(source, 1);
    places.set(place, source);
    socket.once('close', () => end(place));
  });
  server.on('secureConnection', (socket) => end(placeOf(socket)));
}
