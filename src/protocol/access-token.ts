import { createHmac } from 'node:crypto';
import { reportData } from '../attestation/report-data.ts';

/**
 * What one side of a launch sends to show the other that it knows the service access token: HMAC-SHA-256, 32 bytes,
 * under the token, over what Evidence would be made over. So it is good for this connection, service and direction
 * only, and the token itself never travels.
 */
export function accessTokenProof(token: string, context: Parameters<typeof reportData>[0]): Buffer {
  return createHmac('sha256', token)
    .update('envcas service access token, version 1\n')
    .update(reportData(context))
    .digest();
}
