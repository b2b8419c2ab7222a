import { readFile, writeFile } from 'node:fs/promises';
import * as v from 'valibot';
import { failure, reason } from '../../errors.ts';
import { makePrivateDirectory } from '../../platform/private-file.ts';
import { withTpmTools } from '../../platform/tpm-tools.ts';

/** A key that a TPM gives out only while some of its registers have the values they had (TPM 2.0 Part 1 §19.7). */
export const sealedInTpm = v.strictObject({
  /** As tpm2-tools write them: `sha256:0,7`. */
  pcrs: v.pipe(v.string(), v.regex(/^sha256:\d{1,2}(,\d{1,2}){0,23}$/)),
  /** TPM2B_PUBLIC and TPM2B_PRIVATE, base64. */
  publicArea: v.pipe(v.string(), v.maxLength(4096), v.base64()),
  privateArea: v.pipe(v.string(), v.maxLength(4096), v.base64()),
});
export type SealedInTpm = v.InferOutput<typeof sealedInTpm>;

interface Place {
  /** Where a folder for the files of the programs is made. */
  directory: string;
  env: NodeJS.ProcessEnv;
}

/** The key above it is made anew each time, always the same, from the seed of the TPM's owner hierarchy. */
const PRIMARY = ['-C', 'o', '-g', 'sha256', '-G', 'ecc'];

/** @throws Failure TPM_UNUSABLE */
export async function sealInTpm(
  key: Buffer,
  { pcrs, directory, env }: Place & { pcrs: string },
): Promise<SealedInTpm> {
  makePrivateDirectory(directory);
  return withTpmTools(directory, env, async ({ run, pipe, file }) => {
    await run('tpm2_createprimary', '-Q', ...PRIMARY, '-c', file('primary.ctx'));
    await run('tpm2_createpolicy', '-Q', '--policy-pcr', '-l', pcrs, '-L', file('policy'));
    const parts = ['-u', file('public'), '-r', file('private')];
    // No attributes of a key that could be used with an empty password instead of the policy.
    const policy = ['-L', file('policy'), '-a', 'fixedtpm|fixedparent|noda'];
    await pipe(key, 'tpm2_create', '-Q', '-C', file('primary.ctx'), ...policy, '-i', '-', ...parts);
    return {
      pcrs,
      publicArea: (await readFile(file('public'))).toString('base64'),
      privateArea: (await readFile(file('private'))).toString('base64'),
    };
  });
}

/** @throws Failure TPM_UNUSABLE, also where it is another TPM; TPM_REGISTERS_CHANGED */
export async function unsealInTpm(object: SealedInTpm, { directory, env }: Place): Promise<Buffer> {
  makePrivateDirectory(directory);
  return withTpmTools(directory, env, async ({ run, pipe, file }) => {
    await writeFile(file('public'), Buffer.from(object.publicArea, 'base64'));
    await writeFile(file('private'), Buffer.from(object.privateArea, 'base64'));
    await run('tpm2_createprimary', '-Q', ...PRIMARY, '-c', file('primary.ctx'));
    const parts = ['-u', file('public'), '-r', file('private')];
    await run('tpm2_load', '-Q', '-C', file('primary.ctx'), ...parts, '-c', file('object.ctx'));
    const { pcrs } = object;
    return pipe(Buffer.alloc(0), 'tpm2_unseal', '-c', file('object.ctx'), '-p', `pcr:${pcrs}`).catch(
      (error) => {
        throw /policy check failed|0x99D/i.test(reason(error))
          ? failure('TPM_REGISTERS_CHANGED', { pcrs })
          : error;
      },
    );
  });
}
