import type * as ForeignFunctions from 'node:ffi';

/** What reads and writes memory by its address. */
export const ffi = (): typeof ForeignFunctions => process.getBuiltinModule('node:ffi');

type Functions<Definitions extends ForeignFunctions.FunctionDefinitions> = ReturnType<
  typeof ForeignFunctions.dlopen<Definitions>
>['functions'];

let library: ForeignFunctions.DynamicLibrary | undefined;
/** Address of errno(3) of the main thread, on which all calls are made. */
let errno: bigint | undefined;

function open(): ForeignFunctions.DynamicLibrary {
  library = ffi().dlopen('libc.so.6').lib;
  // To be known before it is wanted, as finding it changes errno.
  errno = library.getFunction('__errno_location', { arguments: [], return: 'pointer' })() as bigint;
  return library;
}

/**
 * Functions of the C library. It is opened at the first call, and each of them made at its own first call, as that is
 * the dearest thing that a launch does before it talks to anyone.
 */
export function cLibrary<const Definitions extends ForeignFunctions.FunctionDefinitions>(
  definitions: Definitions,
): () => Functions<Definitions> {
  const functions = {} as Functions<Definitions>;
  for (const [name, signature] of Object.entries(definitions))
    Object.defineProperty(functions, name, {
      configurable: true,
      get() {
        const value = (library ?? open()).getFunction(name, signature);
        Object.defineProperty(functions, name, { value });
        return value;
      },
    });
  return () => functions;
}

/** errno(3) of the call before. */
export const lastError = (): number => (errno === undefined ? 0 : ffi().getInt32(errno));
