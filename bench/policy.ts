/**
 * A policy that gives a number of secrets to one service.
 * @param platform key of a LAS that is trusted; without one, no Evidence is asked for
 */
export function policyWith(secrets: number, platform?: string): string {
  const names = Array.from({ length: secrets }, (_, index) => `secret_${index + 1}`);
  const attestation =
    platform === undefined ? 'mode: none' : `tolerate: [debug-mode], trusted_scone_qe_pubkeys: [${platform}]`;
  return `name: bench
version: "0.3.10"
security: {attestation: {${attestation}}}
images:
  - name: image
    injection_files:
      - path: /etc/envcas/config.yaml
        content: |
          program: /usr/bin/service
          injection_files:
            - {from: /etc/service/config.json, to: /run/service/config.json}
      - path: /etc/service/config.json
        content: |
          {"database": {"host": "database.example.org", "password": "$$SCONE::secret_1|escape(json)$$"}}
services:
  - name: ${SERVICE}
    image_name: image
    attestation: {mrenclave: ${MEASUREMENT}}
    command: envcas --listen 0.0.0.0:8080
    environment:
      LANG: C.UTF-8
${names.map((name) => `      ${name.toUpperCase()}: $$SCONE::${name}$$\n`).join('')}secrets:
${names.map((name) => `  - {name: ${name}, kind: ascii, size: 32}\n`).join('')}`;
}

export const SERVICE = 'service';
export const MEASUREMENT = '0123456789abcdef'.repeat(4);
