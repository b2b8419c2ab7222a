import type { Readable } from 'node:stream';

const LINE_END = 0x0a;
const RETURN = 0x0d;

/**
 * Lines of a stream of bytes, without their ends, at most one of them held at a time.
 * @param tooLong is thrown where a line has more than `longest` bytes, as one without an end has
 */
export async function* linesIn(
  stream: Readable,
  longest: number,
  tooLong: (line: number) => Error,
): AsyncGenerator<Buffer> {
  let begun: Buffer[] = [];
  let size = 0;
  let number = 1;
  const add = (part: Buffer) => {
    size += part.length;
    if (size > longest + 1) throw tooLong(number);
    begun.push(part);
  };
  const take = () => {
    const line = Buffer.concat(begun);
    const whole = line.at(-1) === RETURN ? line.subarray(0, -1) : line;
    if (whole.length > longest) throw tooLong(number);
    begun = [];
    size = 0;
    number++;
    return whole;
  };
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    let from = 0;
    for (let end = chunk.indexOf(LINE_END); end >= 0; end = chunk.indexOf(LINE_END, from)) {
      add(chunk.subarray(from, end));
      yield take();
      from = end + 1;
    }
    if (from < chunk.length) add(chunk.subarray(from));
  }
  if (size > 0) yield take();
}
