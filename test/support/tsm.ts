import { constants } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { TsmFiles } from '../../src/las/tsm.ts';

/** What may go wrong in a kernel. */
export interface TsmFaults {
  /** The request is taken when its file is closed, and that fails. */
  failsOnClose?: boolean;
  /** As in kernels before that was put right: the request is not taken, and nothing says so. */
  losesWrites?: boolean;
  /** Somebody puts a request of his own in the place of one that was just taken. */
  replaces?: Buffer;
  /** So many requests are changed by somebody else, before their answer is read. */
  interference?: number;
}

export interface TsmTree extends TsmFiles {
  /** Folders that are there now. */
  folders(): string[];
  /** Requests that were taken. */
  requests: Buffer[];
}

/**
 * The kernel's configfs-tsm by its published rules (Documentation/ABI/testing/configfs-tsm; drivers/virt/coco/tsm.c as it
 * is described there): a folder has its files at once; each may be opened for what it is for, by root too; a binary file is
 * taken when it is closed; `generation` counts what was taken; `outblob` needs an `inblob`, and answers EWOULDBLOCK where
 * the request was changed since.
 */
export function tsmTree(
  provider: 'tdx_guest' | 'sev_guest',
  report: (data: Buffer, level: number) => Buffer,
  faults: TsmFaults = {},
  { floor = 0, auxblob = Buffer.alloc(0) } = {},
): TsmTree {
  const isSnp = provider === 'sev_guest';
  const readable = ['generation', 'provider', 'outblob', ...(isSnp ? ['auxblob', 'privlevel_floor'] : [])];
  const writable = ['inblob', ...(isSnp ? ['privlevel'] : [])];
  const entries = new Map<string, { generation: number; level: number; inblob?: Buffer }>();
  const requests: Buffer[] = [];
  let { interference = 0 } = faults;
  const error = (code: string) => Object.assign(new Error(code), { code, errno: -1 });

  const entryOf = (path: string) => {
    const entry = entries.get(basename(dirname(path)));
    if (!entry) throw error('ENOENT');
    return entry;
  };
  const read = (path: string): Buffer => {
    const entry = entryOf(path);
    const name = basename(path);
    if (writable.includes(name)) throw error('EACCES');
    if (!readable.includes(name)) throw error('ENOENT');
    if (name === 'generation') return Buffer.from(`${entry.generation}\n`);
    if (name === 'provider') return Buffer.from(`${provider}\n`);
    if (name === 'privlevel_floor') return Buffer.from(`${floor}\n`);
    if (!entry.inblob || entry.level < floor) throw error('EINVAL');
    if (interference > 0) {
      interference--;
      entry.generation++;
      throw error('EWOULDBLOCK');
    }
    return name === 'auxblob' ? auxblob : report(entry.inblob, entry.level);
  };

  const tree = {
    requests,
    folders: () => [...entries.keys()],
    async mkdir(path: string) {
      if (entries.has(basename(path))) throw error('EEXIST');
      entries.set(basename(path), { generation: 0, level: 0 });
    },
    async rmdir(path: string) {
      if (!entries.delete(basename(path))) throw error('ENOENT');
    },
    readFile: async (path: string) => read(path),
    async open(path: string, flags: number) {
      const entry = entryOf(path);
      const name = basename(path);
      if (!writable.includes(name) || flags !== constants.O_WRONLY) throw error('EACCES');
      let written: Buffer | undefined;
      return {
        async write(data: Buffer) {
          if (written) throw error('EINVAL');
          if (name === 'inblob' && data.length > 64) throw error('EINVAL');
          written = Buffer.from(data);
          return { bytesWritten: data.length };
        },
        async close() {
          if (!written || faults.losesWrites) return;
          if (faults.failsOnClose) throw error('EINVAL');
          entry.generation++;
          if (name === 'privlevel') {
            entry.level = Number(written);
            return;
          }
          entry.inblob = written;
          requests.push(written);
          if (!faults.replaces) return;
          entry.generation++;
          entry.inblob = faults.replaces;
        },
      };
    },
  };
  return tree as unknown as TsmTree;
}
