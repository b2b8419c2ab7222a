import { lstatSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { failure, reason } from '../errors.ts';
import { makeFolders } from '../platform/private-file.ts';
import { pathTooLong } from '../protocol/las.ts';

/**
 * Makes the path free to listen on: a socket that nobody answers on any more is removed.
 * @throws Failure ADDRESS_IN_USE where a server answers, STATE_UNUSABLE where the path cannot be used
 */
export async function claimSocket(path: string): Promise<void> {
  const detail = pathTooLong(path);
  if (detail !== undefined) throw failure('STATE_UNUSABLE', { path, detail });
  try {
    makeFolders(dirname(path), 0o755);
  } catch (error) {
    throw failure('STATE_UNUSABLE', { path: dirname(path), detail: reason(error) });
  }
  const present = lstatSync(path, { throwIfNoEntry: false });
  if (!present) return;
  if (!present.isSocket())
    throw failure('STATE_UNUSABLE', { path, detail: 'something that is no socket is there' });
  const answer = await new Promise<string>((resolve) => {
    const socket = connect({ path }, () => {
      socket.destroy();
      resolve('answers');
    });
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''));
  });
  if (answer === 'answers')
    throw failure('ADDRESS_IN_USE', { address: path, detail: 'another LAS answers there' });
  if (answer === 'ECONNREFUSED') rmSync(path, { force: true });
}
