import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from '../test/support/leave-nothing.ts';
import { executables } from '../test/support/stack.ts';
import { comparePrograms } from './measure.ts';

const ROUNDS = 40;

const head = `name: company/shop
version: "0.3.10"

access_policy:
  read: [CREATOR]
  update: [CREATOR]
  create_sessions: [CREATOR]

security:
  attestation:
    tolerate: [debug-mode]
    ignore_advisories: [INTEL-SA-00334, INTEL-SA-00615]
`;

const services = (number: number) => `  - name: service-${number}
    image_name: image-${number}
    attestation:
      - mrenclave:
          - ${'0123456789abcdef'.repeat(4)}
    command: envcas --listen 0.0.0.0:${8000 + number} --config /etc/service/config.json
    pwd: /srv/service-${number}
    environment:
      LANG: C.UTF-8
      LOG_LEVEL: info
      LOG_FORMAT: json
      CACHE_URL: redis://cache.example.org:6379/${number}
      PUBLIC_URL: https://service-${number}.example.org/
      DATABASE_URL: postgres://service_${number}:$$SCONE::password_${number}$$@database.example.org:5432/shop
      API_TOKEN: $$SCONE::token_${number}:hex$$
      "\\\\@\\\\@TZ": null
`;

const images = (number: number) => `  - name: image-${number}
    injection_files:
      - path: /etc/envcas/config.yaml
        content: |
          program: /usr/bin/service
          injection_files:
            - from: /etc/service/config.json
              to: /run/service-${number}/config.json
            - from: /etc/service/tls.pem
              to: /run/service-${number}/tls.pem
      - path: /etc/service/config.json
        content: |
          {
            "listen": {"address": "0.0.0.0", "port": ${8000 + number}},
            "database": {
              "host": "database.example.org",
              "password": "$$SCONE::password_${number}|escape(json)$$"
            },
            "upstream": ["https://a.example.org", "https://b.example.org"]
          }
      - path: /etc/service/tls.pem
        content: |
          $$SCONE::certificate_${number}:privatekey$$
          $$SCONE::certificate_${number}:crt$$
`;

const secrets = (number: number) => `  - name: password_${number}
    kind: ascii
    size: 32
  - name: token_${number}
    kind: binary
    size: 32
    export:
      - session: company/monitoring
  - name: key_${number}
    kind: private-key
  - name: certificate_${number}
    kind: x509
    private_key: key_${number}
    issuer: ca
    valid_for: 90 days
    dns:
      - service-${number}.example.org
      - service-${number}.internal
`;

/** A policy of 600 lines: services with files, passwords and certificates. */
function policy(): string {
  const numbers = Array.from({ length: 10 }, (_, index) => index + 1);
  const each = (part: (number: number) => string) => numbers.map(part).join('');
  return `${head}
services:
${each(services)}
images:
${each(images)}
secrets:
  - {name: ca_key, kind: private-key}
  - {name: ca, kind: x509-ca, private_key: ca_key}
${each(secrets)}`;
}

/** How long it takes to check a policy of some hundred lines. */
export async function check(): Promise<void> {
  const { scone } = executables();
  const work = temporaryFolder();
  const file = join(work, 'session.yaml');
  const text = policy();
  writeFileSync(file, text);
  const lines = text.split('\n').length - 1;
  const env = { PATH: process.env.PATH, HOME: work };
  const programs = [
    {
      name: `\`scone session check\`, ${lines} lines`,
      command: scone,
      args: ['session', 'check', file],
      env,
    },
    { name: '`scone version`', command: scone, args: ['version'], env },
    { name: 'bare `node -e 0`', command: process.execPath, args: ['-e', '0'], env },
  ];
  await comparePrograms('Checking a policy', programs, ROUNDS);
}
