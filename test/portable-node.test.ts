import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import portableNode from '../scripts/portable-node.cjs';
import { temporaryFolder } from './support/leave-nothing.ts';
import { executables, missing, run } from './support/stack.ts';
import { until } from './support/until.ts';

const { machineCode, makePortable, processors } = portableNode;
const root = resolve(import.meta.dirname, '..');
const starter = join(root, 'scripts/node.cjs');
const original = readFileSync(join(root, `node_modules/node-linux-${process.arch}/bin/node`));

/** Assemblers by ELF's number of the processor, with the first line of their input. */
const assemblers = [
  {
    machine: 62,
    assembler: process.arch === 'x64' ? 'as' : 'x86_64-linux-gnu-as',
    first: '.intel_syntax noprefix',
  },
  { machine: 183, assembler: process.arch === 'arm64' ? 'as' : 'aarch64-linux-gnu-as', first: '' },
];

for (const { machine, assembler, first } of assemblers)
  test(`the machine code for ELF's processor ${machine} is its listing, assembled`, {
    skip: missing(assembler, assembler.replace(/as$/, 'objcopy')),
  }, (_t) => {
    const folder = temporaryFolder();
    const listing = processors[machine]?.code ?? '';
    const [object, code] = [join(folder, 'code.o'), join(folder, 'code')];
    const assembly = listing.replace(/^ *[0-9a-f]+ +/gm, '');
    execFileSync(assembler, ['-o', object], { input: `${first}\n${assembly}\n` });
    execFileSync(assembler.replace(/as$/, 'objcopy'), ['-O', 'binary', '-j', '.text', object, code]);
    assert.deepEqual(machineCode(listing), readFileSync(code));
  });

const atomicity = `
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
__attribute__((section(".text"))) const unsigned char code[] __attribute__((aligned(16))) = { BYTES };
typedef _Bool compare_exchange(size_t, void *, void *, void *, int, int);
static compare_exchange *exchange;
static struct pair { unsigned counter, parity; } shared;
static void *count(void *unused) {
  for (int i = 0; i < 300000; i++) {
    struct pair seen = { 0, 0 }, next;
    do {
      next.counter = seen.counter + 1;
      next.parity = next.counter % 2;
    } while (!exchange(sizeof seen, &shared, &seen, &next, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  }
  return unused;
}
int main(int argc, char **argv) {
  exchange = ((compare_exchange *(*)(void))(size_t)code)();
  if (argc > 1) return exchange(strtoul(argv[1], NULL, 10), &shared, &shared, &shared, 5, 5);
  struct pair other = { 7, 7 }, next = { 1, 1 };
  printf("%d", exchange(8, &shared, &other, &next, 5, 5));
  printf(" %u %u %u %u", shared.counter, shared.parity, other.counter, other.parity);
  printf(" %d", exchange(8, &shared, &other, &next, 5, 5));
  printf(" %u %u %u %u\\n", shared.counter, shared.parity, other.counter, other.parity);
  memset(&shared, 0, sizeof shared);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, count, NULL);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  printf("%u %u\\n", shared.counter, shared.parity);
}`;

test('the function added in place of libatomic compares and exchanges, at once for all threads', {
  skip: missing('gcc'),
}, (_t) => {
  const folder = temporaryFolder();
  const program = join(folder, 'atomicity');
  const { code = '' } = processors[process.arch === 'x64' ? 62 : 183] ?? {};
  const source = atomicity.replace('BYTES', machineCode(code).join(', '));
  execFileSync('gcc', ['-O2', '-w', '-pthread', '-x', 'c', '-o', program, '-'], { input: source });
  const { stdout } = run(program, [], {});
  assert.equal(stdout, '0 0 0 0 0 1 1 1 0 0\n1200000 0\n');
  for (const size of [1, 4, 7, 9, 16]) assert.equal(run(program, [`${size}`], {}).signal, 'SIGILL');
});

/** Sections of an ELF file by name, with their places in the file. */
function sections(elf: Buffer): { name: string; start: number; end: number; type: number }[] {
  const number = (at: number) => Number(elf.readBigUInt64LE(at));
  const headers = Array.from({ length: elf.readUInt16LE(0x3c) }, (_, index) => number(0x28) + index * 64);
  const names = number((headers[elf.readUInt16LE(0x3e)] ?? 0) + 24);
  return headers.map((header) => {
    const name = names + elf.readUInt32LE(header);
    const start = number(header + 24);
    return {
      name: elf.toString('latin1', name, elf.indexOf(0, name)),
      type: elf.readUInt32LE(header + 4),
      start,
      end: start + number(header + 32),
    };
  });
}

test('nothing that a process loads is changed but headers, libraries, one relocation and room behind the code', () => {
  const portable = makePortable(original);
  const before = sections(original);
  const [data] = before.filter(({ name }) => name === '.data');
  assert.ok(data && portable.length < original.length * 0.85);
  const changed = new Set<string>();
  const differs = (at: number, size: number) =>
    original.compare(portable, at, at + size, at, at + size) !== 0;
  const pages = Array.from({ length: Math.ceil(data.end / 4096) }, (_, page) => page * 4096);
  const words = pages
    .filter((page) => differs(page, Math.min(4096, data.end - page)))
    .flatMap((page) => Array.from({ length: 512 }, (_, word) => page + word * 8));
  for (const at of words.filter((word) => word < data.end && differs(word, 8))) {
    const section = before.find(({ start, end, type }) => type !== 8 && start <= at && at < end);
    const last = before.findLast(({ end, type }) => type !== 8 && end <= at);
    changed.add(section?.name || `behind ${last?.name ?? 'nothing'}`);
  }
  const expected = ['.dynamic', '.gnu.version', '.gnu.version_r', '.rela.plt', 'behind ', 'behind .fini'];
  assert.deepEqual([...changed].sort(), expected);
  const kept = before
    .slice(
      1,
      before.findIndex(({ name }) => name === '.comment'),
    )
    .map(({ name }) => name);
  assert.deepEqual(
    sections(portable).map(({ name }) => name),
    ['', ...kept, '.shstrtab'],
  );
});

test('the executables need no library that minimal systems lack', () => {
  for (const program of Object.values(executables())) {
    const { stdout } = run('ldd', [program], { PATH: process.env.PATH });
    const libraries = stdout.match(/lib\S+(?=\.so)/g) ?? [];
    const known = ['libdl', 'libm', 'libstdc++', 'libgcc_s', 'libpthread', 'libc'];
    assert.deepEqual(new Set(libraries.filter((name) => !name.includes('/'))), new Set(known));
  }
});

test('a file that is not built as Node is refused', () => {
  assert.throws(() => makePortable(Buffer.alloc(100)), /expected of Node's executable: a 64-bit/);
  for (const length of [0, 20, 5000, original.length / 2, original.length - 1])
    assert.throws(() => makePortable(original.subarray(0, length)), Error, `${length} bytes`);
});

test('scripts run by the pinned Node, which ends them as they end', async () => {
  const node = (script: string) => run(process.execPath, [starter, '-e', script], { PATH: process.env.PATH });
  assert.match(
    node('console.log(process.execPath)').stdout,
    /node_modules\/\.cache\/envcas\/node-[0-9a-f]{16}-\d+\/node$/m,
  );
  assert.equal(node('process.exit(37)').status, 37);
  assert.equal(node('process.kill(process.pid, "SIGKILL")').status, 128 + 9);
  const child = spawn(process.execPath, [starter, '-e', 'console.log("runs"); setInterval(() => {}, 1e6)'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(child.stdout, 'data');
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [128 + 15, null]);
});

test('a portable Node that was cut short is made again, and what a killed run has left goes', async () => {
  const folder = temporaryFolder();
  cpSync(join(root, 'scripts'), join(folder, 'scripts'), { recursive: true });
  const bin = join(folder, `node_modules/node-linux-${process.arch}/bin`);
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, 'node'), original);
  const start = () => run(process.execPath, [join(folder, 'scripts/node.cjs'), '-v'], {});
  const wanted = { status: 0, signal: null, stdout: `${process.version}\n`, stderr: '' };
  const cache = join(folder, 'node_modules/.cache/envcas');
  const interrupted = spawn(process.execPath, [join(folder, 'scripts/node.cjs'), '-v'], { stdio: 'ignore' });
  await until(() => existsSync(cache) && readdirSync(cache).length > 0, 'a Node that is being made');
  interrupted.kill('SIGKILL');
  await once(interrupted, 'exit');
  assert.deepEqual(start(), wanted);
  const [name = '', ...others] = readdirSync(cache);
  assert.deepEqual(others, []);
  for (const content of ['', readFileSync(join(cache, name, 'node')).subarray(0, 1_000_000)]) {
    writeFileSync(join(cache, name, 'node'), content);
    assert.deepEqual(start(), wanted);
    assert.deepEqual(readdirSync(cache), [name]);
  }
  rmSync(join(cache, name, 'node'));
  assert.deepEqual(start(), wanted);
});

test('programs that npm finds above the checkout are not run', () => {
  const bins = join(temporaryFolder(), 'node_modules/.bin');
  const { stdout } = run(process.execPath, [starter, '-e', 'console.log(process.env.PATH)'], {
    PATH: `${bins}:/usr/bin:${bins}/../lib/node-gyp-bin:/bin`,
  });
  assert.equal(stdout, '/usr/bin:/bin\n');
});

test('one line says what is missing where the pinned Node is not there, or is damaged', (_t) => {
  const folder = temporaryFolder();
  cpSync(join(root, 'scripts'), join(folder, 'scripts'), { recursive: true });
  const start = () => run(process.execPath, [join(folder, 'scripts/node.cjs'), '-v'], {});
  const wanted = { status: 1, signal: null, stdout: '' };
  assert.deepEqual(start(), {
    ...wanted,
    stderr: 'envcas: the dependencies are not installed; run: npm ci\n',
  });
  const bin = join(folder, `node_modules/node-linux-${process.arch}/bin`);
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, 'node'), original.subarray(0, 1_000_000));
  const { stderr } = start();
  assert.match(
    stderr,
    /^envcas: .*node_modules\/node-linux-\w+\/bin\/node is damaged \(.*\); run: npm ci\n$/,
  );
  assert.deepEqual(readdirSync(join(folder, 'node_modules')), [`node-linux-${process.arch}`]);
});
