'use strict';

/**
 * Makes a Node executable smaller, and free of libatomic.so.1, which minimal systems lack.
 *
 * Debugging and symbol sections are left out: a quarter of the file, none of it loaded by a process. Of libatomic, Node
 * calls `__atomic_compare_exchange` alone, for eight bytes. That function is added as a few machine instructions at the
 * end of the code, and found by an IRELATIVE relocation, as every function that is chosen at run time (ifunc).
 *
 * Sources: System V ABI, "Object Files" and "Program Loading and Dynamic Linking"; Linux Standard Base 5.0, "Symbol
 * Versioning"; the processors' psABI for relocation types.
 */

/**
 * The function by processor (e_machine of ELF), as machine code and assembly. It ends the process for other sizes than
 * eight. The first two instructions are the resolver: they return the address of the third.
 * @type {Record<number, { jumpSlot: number, irelative: number, code: string }>}
 */
const processors = {
  62: {
    jumpSlot: 7, // R_X86_64_JUMP_SLOT
    irelative: 37, // R_X86_64_IRELATIVE
    code: `
      488d0501000000  lea rax, [rip + 1]
      c3              ret
      4883ff08        cmp rdi, 8
      7519            jne 2f
      488b02          mov rax, [rdx]
      488b09          mov rcx, [rcx]
      f0480fb10e      lock cmpxchg [rsi], rcx
      7506            jne 1f
      b801000000      mov eax, 1
      c3              ret
      488902          1: mov [rdx], rax
      31c0            xor eax, eax
      c3              ret
      0f0b            2: ud2`,
  },
  183: {
    jumpSlot: 1026, // R_AARCH64_JUMP_SLOT
    irelative: 1032, // R_AARCH64_IRELATIVE
    code: `
      40000010  adr x0, .+8
      c0035fd6  ret
      1f2000f1  cmp x0, #8
      c1010054  b.ne 3f
      440040f9  ldr x4, [x2]
      650040f9  ldr x5, [x3]
      26fc5fc8  1: ldaxr x6, [x1]
      df0004eb  cmp x6, x4
      a1000054  b.ne 2f
      25fc07c8  stlxr w7, x5, [x1]
      87ffff35  cbnz w7, 1b
      20008052  mov w0, #1
      c0035fd6  ret
      5f3f03d5  2: clrex
      460000f9  str x6, [x2]
      00008052  mov w0, #0
      c0035fd6  ret
      00000000  3: udf #0`,
  },
};

const LIBRARY = 'libatomic.so.1';
const FUNCTION = '__atomic_compare_exchange';

const [PT_LOAD, PT_DYNAMIC] = [1, 2];
const [SHT_STRTAB, SHT_NOBITS, SHT_VERNEED] = [3, 8, 0x6ffffffe];
const PF_X = 1;
const SHF_ALLOC = 2;
const [DT_NULL, DT_NEEDED, DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_JMPREL] = [
  0, 1, 2, 5, 6, 7, 8, 23,
];
const [DT_VERSYM, DT_VERNEED, DT_VERNEEDNUM] = [0x6ffffff0, 0x6ffffffe, 0x6fffffff];

const [PROGRAM_HEADER, SECTION_HEADER, RELOCATION, SYMBOL, DYNAMIC] = [56, 64, 24, 24, 16];

/**
 * @param {Buffer} original a Node executable (ELF, 64 bits, little-endian), left as it is
 * @returns {Buffer} the executable without debugging information, which needs no libatomic
 * @throws {Error} where the file is not built as expected; nothing is guessed
 */
function makePortable(original) {
  const elf = withoutSymbols(original);
  removeLibatomic(elf);
  return elf;
}

/**
 * Leaves out all sections that no process loads, as strip(1) does.
 * @param {Buffer} elf
 */
function withoutSymbols(elf) {
  expect(
    elf.readUInt32BE(0) === 0x7f454c46 && elf[4] === 2 && elf[5] === 1,
    'a 64-bit little-endian ELF file',
  );
  const sections = sectionHeaders(elf);
  expect(
    sections.every((section) => section + SECTION_HEADER <= elf.length),
    'a whole file',
  );
  const names = /** @type {number} */ (sections[elf.readUInt16LE(0x3e)]);
  /** @param {number} section */
  const end = (section) =>
    number(elf, section + 24) +
    (elf.readUInt32LE(section + 4) === SHT_NOBITS ? 0 : number(elf, section + 32));
  const isLoaded = sections.map((section) => (number(elf, section + 8) & SHF_ALLOC) !== 0);
  const kept = sections.slice(0, isLoaded.lastIndexOf(true) + 1);
  expect(isLoaded.slice(1, kept.length).every(Boolean), 'loaded sections before all others');
  const contents = Math.max(
    ...kept.map(end),
    ...programHeaders(elf).map((header) => number(elf, header + 8) + number(elf, header + 32)),
  );

  const nameTable = elf.subarray(number(elf, names + 24), end(names));
  const headersAt = align(contents + nameTable.length);
  const stripped = Buffer.alloc(headersAt + (kept.length + 1) * SECTION_HEADER);
  elf.copy(stripped, 0, 0, contents);
  nameTable.copy(stripped, contents);
  for (const [index, section] of [...kept, names].entries())
    elf.copy(stripped, headersAt + index * SECTION_HEADER, section, section + SECTION_HEADER);
  const lastHeader = headersAt + kept.length * SECTION_HEADER;
  expect(stripped.readUInt32LE(lastHeader + 4) === SHT_STRTAB, 'names of sections');
  setNumber(stripped, lastHeader + 24, contents);
  setNumber(stripped, 0x28, headersAt);
  stripped.writeUInt16LE(kept.length + 1, 0x3c);
  stripped.writeUInt16LE(kept.length, 0x3e);
  return stripped;
}

/**
 * Puts the function into the executable, and takes the library from what it needs.
 * @param {Buffer} elf changed in place
 */
function removeLibatomic(elf) {
  const processor = processors[elf.readUInt16LE(0x12)];
  if (!processor) throw new Error(`no code for the processor with the ELF number ${elf.readUInt16LE(0x12)}`);
  const headers = programHeaders(elf);
  /** @param {number} address */
  const offset = (address) => {
    for (const header of headers) {
      const into = address - number(elf, header + 16);
      if (elf.readUInt32LE(header) === PT_LOAD && into >= 0 && into < number(elf, header + 32))
        return number(elf, header + 8) + into;
    }
    throw new Error(`no segment holds the address ${address}`);
  };
  const dynamicHeader = headers.find((header) => elf.readUInt32LE(header) === PT_DYNAMIC);
  if (dynamicHeader === undefined) throw new Error('it is linked statically');
  const dynamic = table(number(elf, dynamicHeader + 8), number(elf, dynamicHeader + 32) / DYNAMIC, DYNAMIC);
  /** @param {number} tag */
  const entry = (tag) => dynamic.find((each) => number(elf, each) === tag);
  /** @param {number} tag */
  const value = (tag) => {
    const found = entry(tag);
    if (found === undefined) throw new Error(`no dynamic entry ${tag}`);
    return number(elf, found + 8);
  };
  const strings = offset(value(DT_STRTAB));
  /** @param {number} index */
  const text = (index) => elf.toString('latin1', strings + index, elf.indexOf(0, strings + index));

  const needed = dynamic.findIndex(
    (each) => number(elf, each) === DT_NEEDED && text(number(elf, each + 8)) === LIBRARY,
  );
  if (needed < 0) return;

  const versions = removeVersions(elf, offset(value(DT_VERNEED)), text);
  setNumber(elf, /** @type {number} */ (entry(DT_VERNEEDNUM)) + 8, value(DT_VERNEEDNUM) - 1);
  const versionsSection = sectionHeaders(elf).find(
    (section) => elf.readUInt32LE(section + 4) === SHT_VERNEED,
  );
  if (versionsSection === undefined) throw new Error('it has no section of versions');
  elf.writeUInt32LE(elf.readUInt32LE(versionsSection + 44) - 1, versionsSection + 44);

  const symbols = offset(value(DT_SYMTAB));
  const versionOf = offset(value(DT_VERSYM));
  const resolver = addCode(elf, headers, machineCode(processor.code));
  const relocations = [
    ...table(offset(value(DT_JMPREL)), value(DT_PLTRELSZ) / RELOCATION, RELOCATION),
    ...table(offset(value(DT_RELA)), value(DT_RELASZ) / RELOCATION, RELOCATION),
  ];
  let changed = 0;
  for (const relocation of relocations) {
    const symbol = elf.readUInt32LE(relocation + 12);
    if (!versions.has(elf.readUInt16LE(versionOf + 2 * symbol) & 0x7fff)) continue;
    const name = text(elf.readUInt32LE(symbols + symbol * SYMBOL));
    const type = elf.readUInt32LE(relocation + 8);
    expect(
      name === FUNCTION && type === processor.jumpSlot,
      `${FUNCTION} alone, but it has ${name} (${type})`,
    );
    elf.writeUInt32LE(processor.irelative, relocation + 8);
    elf.writeUInt32LE(0, relocation + 12);
    setNumber(elf, relocation + 16, resolver);
    elf.writeUInt16LE(1, versionOf + 2 * symbol);
    changed++;
  }
  expect(changed === 1, `${FUNCTION} once`);

  const rest = /** @type {number} */ (dynamic[needed]);
  const last = /** @type {number} */ (dynamic.at(-1));
  expect(number(elf, last) === DT_NULL, 'an end of the dynamic entries');
  elf.copyWithin(rest, rest + DYNAMIC, last + DYNAMIC);
  elf.fill(0, last, last + DYNAMIC);
}

/**
 * Removes the library from the list of versions that are needed: the next record takes its place.
 * @param {Buffer} elf changed in place
 * @param {number} first offset of the list
 * @param {(index: number) => string} text
 * @returns {Set<number>} numbers of the library's versions in the table of symbols
 */
function removeVersions(elf, first, text) {
  let at = first;
  while (text(elf.readUInt32LE(at + 4)) !== LIBRARY) {
    expect(elf.readUInt32LE(at + 12) !== 0, `versions of ${LIBRARY}`);
    at += elf.readUInt32LE(at + 12);
  }
  const versions = new Set();
  for (let left = elf.readUInt16LE(at + 2), version = at + elf.readUInt32LE(at + 8); left > 0; left--) {
    versions.add(elf.readUInt16LE(version + 6));
    version += elf.readUInt32LE(version + 12);
  }
  const distance = elf.readUInt32LE(at + 12);
  expect(distance !== 0, `another library after ${LIBRARY}`);
  elf.copyWithin(at, at + distance, at + distance + 16);
  // Both count from the record's own place. The last record's next is 0.
  elf.writeUInt32LE(elf.readUInt32LE(at + 8) + distance, at + 8);
  if (elf.readUInt32LE(at + 12) !== 0) elf.writeUInt32LE(elf.readUInt32LE(at + 12) + distance, at + 12);
  return versions;
}

/**
 * The first column of a listing.
 * @param {string} listing
 */
function machineCode(listing) {
  const columns = listing
    .trim()
    .split('\n')
    .map((line) => line.trim().split(' ', 1)[0]);
  return Buffer.from(columns.join(''), 'hex');
}

/**
 * Writes code behind the executable segment, where its last page has room.
 * @param {Buffer} elf
 * @param {number[]} headers
 * @param {Buffer} code
 * @returns {number} its address
 */
function addCode(elf, headers, code) {
  const segment = headers.find(
    (header) => elf.readUInt32LE(header) === PT_LOAD && elf.readUInt32LE(header + 4) & PF_X,
  );
  if (segment === undefined) throw new Error('no executable segment');
  const [start, address, size] = [8, 16, 32].map((field) => number(elf, segment + field));
  const at = align(/** @type {number} */ (size), 16);
  const offset = /** @type {number} */ (start) + at;
  const room = Math.min(
    ...headers
      .map((header) => number(elf, header + 8))
      .filter((other) => other >= /** @type {number} */ (start) + /** @type {number} */ (size)),
  );
  expect(
    offset + code.length <= room && elf.subarray(offset, offset + code.length).every((byte) => byte === 0),
    'room behind the code',
  );
  code.copy(elf, offset);
  for (const field of [32, 40]) setNumber(elf, segment + field, at + code.length);
  return /** @type {number} */ (address) + at;
}

/** @param {Buffer} elf */
function programHeaders(elf) {
  return table(number(elf, 0x20), elf.readUInt16LE(0x38), PROGRAM_HEADER);
}

/** @param {Buffer} elf */
function sectionHeaders(elf) {
  return table(number(elf, 0x28), elf.readUInt16LE(0x3c), SECTION_HEADER);
}

/**
 * Offsets of a table's rows.
 * @param {number} start
 * @param {number} count
 * @param {number} size
 */
function table(start, count, size) {
  return Array.from({ length: count }, (_, index) => start + index * size);
}

/** @param {number} size */
function align(size, to = 8) {
  return Math.ceil(size / to) * to;
}

/**
 * @param {Buffer} elf
 * @param {number} at
 */
function number(elf, at) {
  return Number(elf.readBigUInt64LE(at));
}

/**
 * @param {Buffer} elf
 * @param {number} at
 * @param {number} value
 */
function setNumber(elf, at, value) {
  elf.writeBigUInt64LE(BigInt(value), at);
}

/**
 * @param {boolean} condition
 * @param {string} what
 */
function expect(condition, what) {
  if (!condition) throw new Error(`expected of Node's executable: ${what}`);
}

module.exports = { machineCode, makePortable, processors };
