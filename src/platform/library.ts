import type * as ForeignFunctions from 'node:ffi';

/** What reads and writes memory by its address. */
export const ffi = (): typeof ForeignFunctions => process.getBuiltinModule('node:ffi');

/** Address of errno(3) of the main thread, on which all calls are made. */
let errno: bigint | undefined;

const open = <const Definitions extends ForeignFunctions.FunctionDefinitions>(definitions: Definitions) =>
  ffi().dlopen('libc.so.6', definitions).functions;

/**
 * Functions of the C library. It is opened at the first call, as that is the dearest thing that a launch does before it
 * talks to anyone.
 */
export function cLibrary<const Definitions extends ForeignFunctions.FunctionDefinitions>(
  definitions: Definitions,
) {
  let opened: ReturnType<typeof open<Definitions>> | undefined;
  return () => {
    // Opening a library changes errno, so where it is must be known before it is wanted.
    errno ??= open({ __errno_location: { arguments: [], return: 'pointer' } }).__errno_location();
    opened ??= open(definitions);
    return opened;
  };
}

/** errno(3) of the call before. */
export const lastError = (): number => (errno === undefined ? 0 : ffi().getInt32(errno));
