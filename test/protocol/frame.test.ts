import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setImmediate as tick } from 'node:timers/promises';
import { FrameError, frames } from '../../src/protocol/frame.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { PATIENCE } from '../support/until.ts';

const folder = temporaryFolder();
const path = join(folder, 's');
const server = createServer().listen(path);
const open: Socket[] = [];
after(() => {
  for (const socket of open) socket.destroy();
  server.close();
});

/** Two connected sockets. */
async function socketPair(): Promise<[Socket, Socket]> {
  const accepted = once(server, 'connection');
  const near = connect(path);
  const [[far]] = (await Promise.all([accepted, once(near, 'connect')])) as [[Socket], unknown];
  near.setNoDelay();
  open.push(near, far);
  far.on('error', () => {});
  return [near, far];
}

function frame(body: string | Buffer, length = Buffer.byteLength(body)): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(length);
  return Buffer.concat([head, Buffer.from(body)]);
}
const soon = () => Date.now() + PATIENCE;
const failsWith = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof FrameError, `${error}`);
  assert.match(error.message, message);
  return true;
};

test('a connection that was closed before is said to be, at once', async () => {
  const [near, far] = await socketPair();
  far.destroy();
  await once(near.resume(), 'close');
  const closed = frames(near, 1000);
  await assert.rejects(closed.read(soon()), failsWith(/^the connection was closed$/));
  await assert.rejects(closed.arrival(), failsWith(/^the connection was closed$/));
});

test('a message arrives as it was written, in both directions', async () => {
  const [near, far] = await socketPair();
  const [here, there] = [frames(near, 1000), frames(far, 1000)];
  for (const message of [{ a: [1, 'é\0', null] }, 'text', 0, false, null, []]) {
    here.write(message);
    assert.deepEqual(await there.read(soon()), message);
    there.write(message);
    assert.deepEqual(await here.read(soon()), message);
  }
});

test('a message may arrive in two pieces cut anywhere', async () => {
  const [near, far] = await socketPair();
  const reader = frames(near, 100);
  const message = { text: 'é€😀', n: 1 };
  const bytes = frame(JSON.stringify(message));
  for (let at = 1; at < bytes.length; at++) {
    const reading = reader.read(soon());
    far.write(bytes.subarray(0, at));
    for (let turn = 0; turn < 3; turn++) await tick();
    far.write(bytes.subarray(at));
    assert.deepEqual(await reading, message, `cut at ${at}`);
  }
});

test('a message may arrive byte by byte', async () => {
  const [near, far] = await socketPair();
  const reading = frames(near, 100).read(soon());
  for (const byte of frame('{"a":"é"}')) {
    far.write(Buffer.of(byte));
    await tick();
  }
  assert.deepEqual(await reading, { a: 'é' });
});

test('several messages at once are read one after the other, also beyond the limit of one', async () => {
  const [near, far] = await socketPair();
  const reader = frames(near, 10);
  const count = 20_000;
  far.write(Buffer.concat(Array.from({ length: count }, (_, index) => frame(`${index}`))));
  for (let index = 0; index < count; index++) assert.equal(await reader.read(soon()), index);
});

test('messages that came before the end are still read', async () => {
  const [near, far] = await socketPair();
  const reader = frames(near, 10);
  far.end(Buffer.concat([frame('1'), frame('2')]));
  await once(near, 'close');
  assert.equal(await reader.read(soon()), 1);
  assert.equal(await reader.read(soon()), 2);
  await assert.rejects(reader.read(soon()), failsWith(/connection was closed/));
});

const refused: [what: string, bytes: Buffer, message: RegExp][] = [
  ['a length of 0', frame(''), /a message of 0 bytes is announced, 1 to 10 are allowed/],
  ['a length over the limit, before its bytes come', frame('', 11), /a message of 11 bytes/],
  ['the greatest length', frame('', 0xffffffff), /a message of 4294967295 bytes/],
  ['what speaks another protocol', Buffer.from('HTTP/1.1 200 OK\r\n\r\n'), /a message of \d+ bytes/],
  ['what is not JSON', frame('{"a":1'), /not JSON/],
  ['what is not UTF-8 and so not JSON', frame(Buffer.of(0xff)), /not JSON/],
];
for (const [what, bytes, message] of refused)
  test(`${what} is refused, and not quoted`, async () => {
    const [near, far] = await socketPair();
    far.write(bytes);
    await assert.rejects(frames(near, 10).read(soon()), failsWith(message));
  });

test('a message as long as the limit is accepted', async () => {
  const [near, far] = await socketPair();
  far.write(frame('"12345678"'));
  assert.equal(await frames(near, 10).read(soon()), '12345678');
});

test('what comes after an announced length over the limit is not taken in', async () => {
  const [near, far] = await socketPair();
  const reader = frames(near, 10);
  far.write(frame(Buffer.alloc(8 * 1024 * 1024)));
  await assert.rejects(reader.read(soon()), FrameError);
  for (let turn = 0; turn < 20; turn++) await tick();
  assert.ok(near.bytesRead < 1024 * 1024, `${near.bytesRead}`);
});

test('an end before a message, or in the middle of one, is told', async () => {
  for (const bytes of [[], [0, 0], [0, 0, 0, 5], [0, 0, 0, 5, 0x31]]) {
    const [near, far] = await socketPair();
    const reading = frames(near, 10).read(soon());
    far.end(Buffer.from(bytes));
    await assert.rejects(reading, failsWith(/connection was closed/));
  }
});

test('a connection that breaks is told', async () => {
  const [near] = await socketPair();
  const reader = frames(near, 10);
  near.destroy(new Error('broken'));
  await assert.rejects(reader.read(soon()), { message: 'broken' });
  await assert.rejects(reader.read(soon()), { message: 'broken' });
});

test('the deadline ends a read, also where bytes trickle in, and keeps no timer', async () => {
  const [near, far] = await socketPair();
  const reader = frames(near, 100);
  const start = Date.now();
  const trickle = setInterval(() => far.write(' '), 10);
  far.write(frame('', 100));
  try {
    await assert.rejects(reader.read(start + 100), failsWith(/no answer in time/));
  } finally {
    clearInterval(trickle);
  }
  assert.ok(Date.now() - start < PATIENCE);
});

test('a deadline that has passed ends a read unless its message is there', async () => {
  const [near, far] = await socketPair();
  await assert.rejects(frames(near, 10).read(0), failsWith(/no answer in time/));
  const reader = frames(far, 10);
  near.write(frame('1'));
  while (far.bytesRead < 5) await tick();
  assert.equal(await reader.read(0), 1);
});

test('a long message is written in pieces, between which others are served, and arrives whole', async () => {
  const [near, far] = await socketPair();
  const sizes: number[] = [];
  const write = near.write.bind(near);
  near.write = (chunk: Buffer, ...rest: never[]) => {
    sizes.push(chunk.length);
    return write(chunk, ...rest);
  };
  const message = { text: 'x'.repeat(5 * 1024 * 1024) };
  const json = Buffer.from(JSON.stringify(message));
  const pieces: Buffer[] = [];
  for (let from = 0; from < json.length; from += 100_000) pieces.push(json.subarray(from, from + 100_000));
  const written = frames(near, 100).writePieces(pieces);
  assert.ok(near.writableLength < 2 * 1024 * 1024);
  assert.deepEqual(await frames(far, 1 << 24).read(soon()), message);
  await written;
  assert.equal(
    sizes.reduce((sum, each) => sum + each),
    json.length + 4,
  );
});
