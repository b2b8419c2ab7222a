import { appendFile, open, rename } from 'node:fs/promises';
import { beginning, LONGEST_LINE, type Position, parseEntry } from '../audit/entry.ts';
import { causes, reason } from '../errors.ts';
import type { AuditLog } from './audit-log.ts';
import type { Log } from './cas.ts';

/** Milliseconds between two looks for entries. */
const LOOK_EVERY = 1000;
const AT_ONCE = 1000;

/**
 * Appends the audit log to a file, entry by entry, for whoever collects logs and keeps them elsewhere. What the file has already
 * is gone on from. Where the log does not go on from it, since the store was put back, the file is put aside and begun anew.
 * Somebody may move the file away at any time; the next entry then begins another.
 * @param path made with mode 0600
 */
export async function followInto(
  path: string,
  audit: Pick<AuditLog, 'lines'>,
  log: Log,
): Promise<{ stop(): Promise<void> }> {
  let position = await lastIn(path);
  let timer: NodeJS.Timeout | undefined;
  let isWritten = true;

  const write = async (): Promise<void> => {
    for (;;) {
      const isBegun = position.sequence > 0;
      // With the last one that is there already, which must be the same.
      const lines = await audit.lines(Math.max(1, position.sequence), AT_ONCE);
      const last = isBegun ? lines.shift() : undefined;
      if (isBegun && !(last && parseEntry(last, position.sequence).signature === position.signature)) {
        const aside = `${path}.${new Date().toISOString()}`;
        await rename(path, aside).catch(ignoreMissing);
        log.error({ path, aside }, 'the audit log does not go on from this file; it is begun anew');
        position = beginning;
        continue;
      }
      if (lines.length === 0) return;
      await appendFile(path, lines.map((line) => `${line}\n`).join(''), { mode: 0o600 });
      const newest = position.sequence + lines.length;
      const { signature } = parseEntry(lines.at(-1) as Buffer, newest);
      position = { sequence: newest, signature };
    }
  };
  const look = async () => {
    try {
      await write();
      if (!isWritten) log.info({ path }, 'the audit log is written to its file again');
      isWritten = true;
    } catch (error) {
      if (isWritten)
        log.error({ path, error: causes(error).join(': ') }, 'the audit log is not written to its file');
      isWritten = false;
      // A part of a line may be there.
      position = await lastIn(path).catch(() => position);
    }
  };
  const again = async () => {
    await look();
    timer = setTimeout(again, LOOK_EVERY).unref();
  };
  await look();
  timer = setTimeout(again, LOOK_EVERY).unref();
  return {
    async stop() {
      clearTimeout(timer);
      await look();
    },
  };
}

/** The last entry of a file; what follows it, which is none, is cut off. @throws Error of the file system */
async function lastIn(path: string): Promise<Position> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, 'r+');
  } catch (error) {
    ignoreMissing(error);
    return beginning;
  }
  try {
    const { size } = await file.stat();
    const start = Math.max(0, size - 2 * LONGEST_LINE);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - start), 0, size - start, start);
    const end = buffer.lastIndexOf('\n', bytesRead);
    if (start + end + 1 < size) await file.truncate(start + end + 1);
    if (end < 0) return beginning;
    const line = buffer.subarray(buffer.lastIndexOf('\n', end - 1) + 1, end);
    const { sequence, signature } = parseEntry(line, 0);
    return { sequence, signature };
  } catch (error) {
    throw new Error(`${path}: ${reason(error)}`, { cause: error });
  } finally {
    await file.close();
  }
}

function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}
