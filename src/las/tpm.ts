import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { tpmReportData } from '../attestation/report-data.ts';
import type { Credential } from '../attestation/tpm/credential.ts';
import { parsePublicArea } from '../attestation/tpm/structures.ts';
import { oneAtATime } from '../platform/in-turn.ts';
import { makePrivateDirectory, writePrivate } from '../platform/private-file.ts';
import { type TpmTools, tpmUnusable, withTpmTools } from '../platform/tpm-tools.ts';

/**
 * A TPM 2.0 through the programs of tpm2-tools. Its attestation key lies under its endorsement key, so that it counts
 * resets as they are, and outlives restarts; its two parts are kept in the LAS's folder, of use to this TPM alone. It is
 * used with an authorisation that lies beside them: who else reaches the TPM can do nothing with it.
 */
export interface Tpm {
  /** TPMT_PUBLIC */
  attestationKey: Buffer;
  /** Makes a quote over the beginning of report data ({@link tpmReportData}). */
  quote(reportData: Buffer): Promise<{
    /** TPMS_ATTEST */
    message: Buffer;
    /** TPMT_SIGNATURE */
    signature: Buffer;
    pcrs: Record<string, string>;
  }>;
  clock(): Promise<{ resetCount: number; restartCount: number }>;
  /** TPMT_PUBLIC, and its certificate in DER where the maker put one in. */
  endorsementKey(): Promise<{ publicArea: Buffer; certificate?: Buffer }>;
  /** Opens what was encrypted for the two keys. */
  activate(credential: Credential): Promise<Buffer>;
}

export interface TpmOptions {
  /** Of the LAS. */
  directory: string;
  /** TPM2TOOLS_TCTI says how the TPM is reached, as in `device:/dev/tpmrm0`, which is also the default. */
  env: NodeJS.ProcessEnv;
}

/** Where the endorsement key is kept in a TPM by convention (TCG Provisioning Guidance §7.8). */
const ENDORSEMENT_KEY = '0x81010001';
/** Of an RSA endorsement key's certificate (TCG EK Credential Profile §2.2.1.4). */
const CERTIFICATE = '0x1c00002';
/** All registers that only a reset sets back. */
const REGISTERS = Array.from({ length: 16 }, (_, index) => index);
const DIGEST = 32;
/** Those of an attestation key; `noda`: wrong authorisations of others, to any key, do not lock it (TPM 2.0 Part 1, 19.8). */
const ATTRIBUTES = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda';

/** Magic and version before a credential in a file of tpm2_makecredential(1). */
const CREDENTIAL_HEADER = Buffer.from('badcc0de00000001', 'hex');

const keyFiles = (directory: string) => ({
  publicPart: join(directory, 'tpm', 'ak.pub'),
  privatePart: join(directory, 'tpm', 'ak.priv'),
  authorization: join(directory, 'tpm', 'ak.auth'),
});

/** Whether a LAS with this folder has an attestation key in its TPM. */
export function isEnrolled(directory: string): boolean {
  const { publicPart, privatePart } = keyFiles(directory);
  return existsSync(publicPart) && existsSync(privatePart);
}

/**
 * Opens the TPM; where there is no attestation key yet, it makes one.
 * @throws Failure TPM_UNUSABLE
 */
export async function openTpm({ directory, env }: TpmOptions): Promise<Tpm> {
  const { publicPart, privatePart, authorization } = keyFiles(directory);
  makePrivateDirectory(join(directory, 'tpm'));
  // A TPM does one thing after the other, and so do its users.
  const takeTurn = oneAtATime();
  const inTurn = <Result>(work: (session: TpmTools) => Promise<Result>): Promise<Result> =>
    takeTurn(() => withTpmTools(join(directory, 'tpm'), env, work));

  if (!isEnrolled(directory))
    await inTurn(async ({ run, file }) => {
      await ensureEndorsementKey(run);
      // As text: the programs take a file up to its first NUL.
      writePrivate(authorization, Buffer.from(randomBytes(24).toString('base64url')), 'replace');
      await asEndorsement({ run, file }, (session) =>
        run(
          'tpm2_create',
          ...['-C', ENDORSEMENT_KEY, '-P', session, '-G', 'ecc256:ecdsa-sha256:null', '-a', ATTRIBUTES],
          ...['-p', `file:${authorization}`, '-u', file('ak.pub'), '-r', file('ak.priv')],
        ),
      );
      writePrivate(privatePart, await readFile(file('ak.priv')), 'replace');
      writePrivate(publicPart, await readFile(file('ak.pub')), 'replace');
    });
  const attestationKey = parsePublicArea(readFileSync(publicPart)).bytes;
  // A version before made it without.
  const authorized = existsSync(authorization) ? ['-p', `file:${authorization}`] : [];

  return {
    attestationKey,
    quote: (reportData) =>
      inTurn(async ({ run, file }) => {
        await loadAttestationKey({ run, file }, publicPart, privatePart);
        const selection = ['-l', `sha256:${REGISTERS.join()}`, '-g', 'sha256'];
        const extraData = ['-q', tpmReportData(reportData).toString('hex')];
        const outputs = ['-m', file('message'), '-s', file('signature'), '-o', file('pcrs'), '-F', 'values'];
        await run('tpm2_quote', '-c', file('ak.ctx'), ...authorized, ...selection, ...extraData, ...outputs);
        const [message, signature, values] = await Promise.all(
          ['message', 'signature', 'pcrs'].map((name) => readFile(file(name))),
        );
        if (!message || !signature || values?.length !== DIGEST * REGISTERS.length)
          throw tpmUnusable('tpm2_quote', 'it gave other registers than it was asked for');
        const pcrs = REGISTERS.map((register, index) => [
          String(register),
          values.subarray(DIGEST * index, DIGEST * (index + 1)).toString('hex'),
        ]);
        return { message, signature, pcrs: Object.fromEntries(pcrs) };
      }),
    clock: () =>
      inTurn(async ({ run }) => {
        const text = await run('tpm2_readclock');
        const count = (name: string) => {
          const [, number] = new RegExp(`^\\s*${name}: (\\d{1,10})$`, 'm').exec(text) ?? [];
          if (number === undefined) throw tpmUnusable('tpm2_readclock', `it says nothing of ${name}`);
          return Number(number);
        };
        return { resetCount: count('reset_count'), restartCount: count('restart_count') };
      }),
    endorsementKey: () =>
      inTurn(async ({ run, file }) => {
        await ensureEndorsementKey(run);
        await run('tpm2_readpublic', '-c', ENDORSEMENT_KEY, '-f', 'tss', '-o', file('ek.pub'));
        const publicArea = parsePublicArea(await readFile(file('ek.pub'))).bytes;
        if (!(await holds(run, 'handles-nv-index', CERTIFICATE))) return { publicArea };
        await run('tpm2_nvread', CERTIFICATE, '-C', 'o', '-o', file('ek.crt'));
        return { publicArea, certificate: trimmed(await readFile(file('ek.crt'))) };
      }),
    activate: ({ credentialBlob, encryptedSecret }) =>
      inTurn(async ({ run, file }) => {
        await loadAttestationKey({ run, file }, publicPart, privatePart);
        await writeFile(
          file('credential'),
          Buffer.concat([CREDENTIAL_HEADER, credentialBlob, encryptedSecret]),
          { mode: 0o600 },
        );
        await asEndorsement({ run, file }, (session) =>
          run(
            'tpm2_activatecredential',
            ...['-c', file('ak.ctx'), ...authorized, '-C', ENDORSEMENT_KEY, '-P', session],
            ...['-i', file('credential'), '-o', file('secret')],
          ),
        );
        return readFile(file('secret'));
      }),
  };
}

type Session = Pick<TpmTools, 'run' | 'file'>;

async function ensureEndorsementKey(run: TpmTools['run']): Promise<void> {
  if (!(await holds(run, 'handles-persistent', ENDORSEMENT_KEY)))
    await run('tpm2_createek', '-c', ENDORSEMENT_KEY, '-G', 'rsa');
}

/** Whether the TPM has something there. */
async function holds(run: TpmTools['run'], kind: string, handle: string): Promise<boolean> {
  return new RegExp(`^- ${handle}$`, 'im').test(await run('tpm2_getcap', kind));
}

async function loadAttestationKey(session: Session, publicPart: string, privatePart: string): Promise<void> {
  const { run, file } = session;
  await asEndorsement(session, (authorization) =>
    run(
      'tpm2_load',
      ...['-C', ENDORSEMENT_KEY, '-P', authorization],
      ...['-u', publicPart, '-r', privatePart, '-c', file('ak.ctx')],
    ),
  );
}

/** Uses the endorsement key, as the policy in its template asks (TCG EK Credential Profile §B.3). */
async function asEndorsement(
  { run, file }: Session,
  work: (authorization: string) => Promise<unknown>,
): Promise<void> {
  const session = file('session.ctx');
  await run('tpm2_startauthsession', '--policy-session', '-S', session);
  try {
    await run('tpm2_policysecret', '-S', session, '-c', 'e');
    await work(`session:${session}`);
  } finally {
    await run('tpm2_flushcontext', session);
  }
}

/** A certificate without what follows it in the space that the TPM has for it. */
function trimmed(bytes: Buffer): Buffer {
  const isLong = bytes[0] === 0x30 && bytes[1] === 0x82;
  return isLong ? bytes.subarray(0, 4 + bytes.readUInt16BE(2)) : bytes;
}
