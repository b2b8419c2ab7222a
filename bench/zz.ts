import { createPrivateKey, createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { reportData } from '../src/attestation/report-data.ts';
import { platformOf, signSoftwareEvidence } from '../src/attestation/software.ts';
import { formatConfigId } from '../src/policy/names.ts';
import { connectCas } from '../src/protocol/connect.ts';
import { frames } from '../src/protocol/frame.ts';
import { CONFIGURATION_LIMIT, channelBinding, LAUNCH_PROTOCOL } from '../src/protocol/launch.ts';
import { MEASUREMENT, SERVICE } from './policy.ts';

const port = Number(process.argv[2]);
const privateKey = createPrivateKey(readFileSync('/tmp/prof/las.pem'));
const las = { private: privateKey, platform: platformOf(createPublicKey(privateKey)) };
const a: number[] = [],
  b: number[] = [],
  e: number[] = [];
for (let i = 0; i < 1500; i++) {
  const t0 = performance.now();
  const { socket, key } = await connectCas(
    { host: '127.0.0.1', port },
    { ALPNProtocols: [process.argv[3] ?? LAUNCH_PROTOCOL], minVersion: 'TLSv1.3' },
    Date.now() + 9000,
  );
  const t1 = performance.now();
  const request = { session: 'bench', service: SERVICE };
  const data = reportData({
    role: 'launcher',
    channel: channelBinding(socket),
    casKey: key,
    configId: formatConfigId(request),
  });
  const evidence = await signSoftwareEvidence(
    { measurement: MEASUREMENT, pid: 1, uid: 0, gid: 0, id: MEASUREMENT, properties: [] },
    data,
    las,
    Date.now(),
  );
  const t2 = performance.now();
  if (process.argv[3]) {
    const body = JSON.stringify({ ...request, evidence });
    socket.write(
      `POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    await new Promise<void>((r) => {
      socket.on('end', r);
      socket.resume();
    });
  } else {
    const s = frames(socket, CONFIGURATION_LIMIT);
    s.write({ ...request, evidence });
    await s.read(Date.now() + 9000);
  }
  const t3 = performance.now();
  socket.destroy();
  a.push(t1 - t0);
  e.push(t2 - t1);
  b.push(t3 - t2);
}
const q = (v: number[]) => v.sort((x, y) => x - y)[v.length >> 1]?.toFixed(3);
console.log('connect', q(a), 'evidence', q(e), 'answer', q(b));
