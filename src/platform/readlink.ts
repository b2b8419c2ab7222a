import { cLibrary } from './library.ts';

const library = cLibrary({
  readlinkat: { arguments: ['i32', 'string', 'buffer', 'u64'], return: 'i64' },
});

/** The longest text of a symbolic link, and one byte more (path_resolution(7), PATH_MAX). */
const BYTES = 4097;

/**
 * What an open symbolic link holds, whatever its name stands for by now, which Node does not offer (readlinkat(2)).
 * @param fd opened with O_PATH and O_NOFOLLOW
 */
export function readOpenLink(fd: number): string {
  const text = Buffer.alloc(BYTES);
  const length = Number(library().readlinkat(fd, '', text, BigInt(BYTES)));
  if (length < 0 || length === BYTES) throw new Error('a symbolic link cannot be read');
  return text.toString('utf8', 0, length);
}
