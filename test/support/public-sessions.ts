import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** Session files that other people wrote, read where they are. */
const folder = resolve(import.meta.dirname, '../../../shared/policies');
/** Why tests of them are skipped, or false. */
export const skip = existsSync(folder) ? false : `${folder} is not there`;

export const files = [
  'args-env-tutorial/access_policy.yaml',
  'args-env-tutorial/access_token_policy.yaml',
  'args-env-tutorial/attestation_policy_4.yaml',
  'args-env-tutorial/host_arguments_policy.yaml',
  'args-env-tutorial/namespace.yaml',
  'args-env-tutorial/otp_policy.yaml',
  'args-env-tutorial/service_access_token.yaml',
  'copy_dapp/session_template.yml',
  'envcas-example/bash.yaml',
  'envcas-example/python.yaml',
  'ethernity/etny-securelock-test.yaml.tpl',
  'flask_example/flask-template.yml',
  'flask_example/redis-template.yml',
  'iexec-sms/tee-session-hardware.yml',
  'manifests/cas-owner.yaml',
  'manifests/vault-verify-policy.yaml',
  'node_example/nodejs-template.yml',
  'volume-demo/session_template.yml',
];

const digest = 'ab'.repeat(32);
/** What a file holds in place of a value, in its own template syntax or none. */
const placeholders: [RegExp, string][] = [
  [/__ENCLAVE_NAME__/g, 'enclave'],
  [/__PREDECESSOR__/g, ''],
  [/__MRENCLAVE__|mrEnclave[13]/g, digest],
];
/** Every session is a first version. */
export const predecessors: Record<string, string> = Object.fromEntries(
  [
    '',
    'ACCESS_POLICY_',
    'ACCESS_TOKEN_POLICY_',
    'ATTESTATION_POLICY_',
    'HOST_ARGUMENTS_POLICY_',
    'NAMESPACE_',
    'OTP_POLICY_',
  ].map((name) => [`${name}PREDECESSOR`, '~']),
);
const values: Record<string, string> = {
  ...predecessors,
  SESSION: 'session',
  MRENCLAVE: digest,
  OWNER_ID: 'owner',
  URL: 'https://example.test/x.zip',
  ...Object.fromEntries(
    ['', 'SCONE_', 'INPUT_', 'OUTPUT_'].flatMap((name) => [
      [`${name}FSPF_TAG`, 'cd'.repeat(16)],
      [`${name}FSPF_KEY`, digest],
    ]),
  ),
  FLASK_SESSION: 'flask',
  NODE_SESSION: 'node',
  REDIS_SESSION: 'redis',
  NAMESPACE: 'namespace',
};

/** Values of the template variables that the files have. */
export const variables = (name: string): string | undefined => values[name];

/** The text of a file, but for its placeholders. */
export function publicSession(file: string): string {
  return placeholders.reduce(
    (text, [placeholder, value]) => text.replace(placeholder, value),
    readFileSync(join(folder, file), 'utf8'),
  );
}
