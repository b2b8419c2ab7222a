import type { FastifyInstance } from 'fastify';
import type { fileList } from '../attestation/collateral.ts';
import type { Evidence, HardwareEvidence } from '../attestation/hardware-evidence.ts';
import { reportData } from '../attestation/report-data.ts';
import { causes, Failure, failure } from '../errors.ts';
import { enclaveQuote, isInEnclave } from '../platform/gramine.ts';
import { seenBy } from '../platform/hidden.ts';
import { connectLas } from '../protocol/las.ts';
import { version } from '../version.ts';
import type { Log } from './cas.ts';
import { createTurns } from './limits/turns.ts';

const LAS_PATIENCE = 10_000;
/** Requests of one source. */
const MOST_WAITING = 64;

export interface AttestOptions {
  /** SHA-256 of the public key that the Evidence is bound to. */
  casKey: Buffer;
  /** PEM. */
  certificate: () => string;
  /** The LAS that vouches for this CAS. */
  lasSocket: string;
  /** What Evidence from hardware is checked with. */
  collateralOf?: (hardware: HardwareEvidence) => Promise<ReturnType<typeof fileList>>;
  log: Log;
}

/** `GET /v1/attest`: Evidence about this process, over a nonce of whoever asks. */
export function addAttestRoute(app: FastifyInstance, options: AttestOptions): void {
  const { casKey, certificate, lasSocket, collateralOf, log } = options;
  // One after the other, since the process takes another name for each.
  const inTurn = createTurns(1, MOST_WAITING);
  app.get<{ Querystring: { nonce?: string } }>('/v1/attest', async (request) => {
    const { nonce } = request.query;
    if (!nonce || !/^([0-9a-f]{2}){16,64}$/.test(nonce))
      throw failure('REQUEST_INVALID', { detail: 'nonce must be 32 to 128 hexadecimal digits' });
    const channel = Buffer.from(nonce, 'hex');
    const data = reportData({ role: 'cas', channel, casKey, configId: '' });
    try {
      const { evidence, hardware } = await inTurn(() => evidenceOf(lasSocket, data, channel));
      const collateral = hardware && (await collateralOf?.(hardware));
      return { evidence, hardware, collateral, certificate: certificate(), version };
    } catch (error) {
      if (error instanceof Failure && error.code === 'CAS_BUSY') throw error;
      log.error({ error: causes(error).join(': ') }, 'no Evidence about this CAS');
      throw failure('CAS_NOT_VOUCHED_FOR');
    }
  });
}

/** Evidence about this process: from the enclave that it runs in, or from its LAS. */
export async function evidenceOf(lasSocket: string, data: Buffer, nonce: Buffer): Promise<Evidence> {
  if (isInEnclave()) return { hardware: { type: 'sgx', quote: enclaveQuote(data).toString('base64') } };
  return seenBy(lasSocket, async () => {
    const las = await connectLas(lasSocket, undefined, Date.now() + LAS_PATIENCE);
    try {
      return await las.evidence(data, nonce.toString('base64'));
    } finally {
      las.close();
    }
  });
}
