import type * as ForeignFunctions from 'node:ffi';

/** What reads and writes memory by its address. */
export const ffi = (): typeof ForeignFunctions => process.getBuiltinModule('node:ffi');

const errorNumber = cLibrary({ __errno_location: { arguments: [], return: 'pointer' } });

/** errno(3) of the call before. */
export const lastError = (): number => ffi().getInt32(errorNumber().__errno_location());

/**
 * Functions of the C library. It is opened at the first call, as that is the dearest thing that a launch does before it
 * talks to anyone.
 */
export function cLibrary<const Definitions extends ForeignFunctions.FunctionDefinitions>(
  definitions: Definitions,
) {
  const open = () => ffi().dlopen('libc.so.6', definitions).functions;
  let opened: ReturnType<typeof open> | undefined;
  return () => {
    opened ??= open();
    return opened;
  };
}
