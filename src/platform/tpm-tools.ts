import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { failure, reason } from '../errors.ts';

/** The programs of tpm2-tools, with a folder for their files, which goes when the work is done. */
export interface TpmTools {
  /** @returns what it prints @throws Failure TPM_UNUSABLE */
  run(program: string, ...args: string[]): Promise<string>;
  /** The same, with something on standard input, such as what must be in no file. */
  pipe(input: Buffer, program: string, ...args: string[]): Promise<Buffer>;
  file(name: string): string;
}

const PATIENCE = 60_000;
const MOST_OUTPUT = 64 * 1024;

/**
 * @param directory where the folder is made
 * @param env TPM2TOOLS_TCTI says how the TPM is reached, as in `device:/dev/tpmrm0`, which is also the default
 */
export async function withTpmTools<Result>(
  directory: string,
  env: NodeJS.ProcessEnv,
  work: (tools: TpmTools) => Promise<Result>,
): Promise<Result> {
  const tcti = env.TPM2TOOLS_TCTI || 'device:/dev/tpmrm0';
  const folder = await mkdtemp(join(directory, 'work-'));
  const options = {
    env: { PATH: env.PATH, LANG: 'C', TPM2TOOLS_TCTI: tcti, TSS2_LOG: 'all+none' },
    timeout: PATIENCE,
    cwd: folder,
  };
  const pipe = async (input: Buffer, program: string, ...args: string[]) => {
    try {
      return await output(program, args, input, options);
    } finally {
      // Without a resource manager keys stay in the TPM, which has room for three.
      if (!/tpmrm|tabrmd/.test(tcti))
        await output('tpm2_flushcontext', ['-t'], Buffer.alloc(0), options).catch(() => {});
    }
  };
  try {
    return await work({
      run: async (program, ...args) => (await pipe(Buffer.alloc(0), program, ...args)).toString(),
      pipe,
      file: (name) => join(folder, name),
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function output(
  program: string,
  args: string[],
  input: Buffer,
  options: { env: NodeJS.ProcessEnv; timeout: number; cwd: string },
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: 'pipe' });
    const printed: Buffer[] = [];
    let size = 0;
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MOST_OUTPUT) child.kill();
      else printed.push(chunk);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      if (said.length < MOST_OUTPUT) said += chunk;
    });
    child.stdin.on('error', () => {});
    child.on('error', (error: NodeJS.ErrnoException) => {
      const detail =
        error.code === 'ENOENT' ? 'not found in PATH; the package tpm2-tools has it' : reason(error);
      reject(tpmUnusable(program, detail, error));
    });
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(Buffer.concat(printed));
      // The last error that it tells of is just that there was one.
      const [, first] = /^ERROR: (.{1,500})/m.exec(said) ?? [];
      reject(tpmUnusable(program, first ?? `it ended with ${signal ?? `status ${code}`}`));
    });
    child.stdin.end(input);
  });
}

export function tpmUnusable(what: string, detail: string, cause?: unknown) {
  return failure('TPM_UNUSABLE', { what, detail }, cause);
}
