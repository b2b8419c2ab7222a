import * as v from 'valibot';
import { hex, integer, list, object, oneOf, oneOrMany, record, text, textOr } from '../shapes.ts';
import { splitWords } from '../words.ts';
import { absolutePath, described, imageName, name, oneTimePassword, referenceOr } from './values.ts';

/** `services`: what may be launched, and by whom. */

const withoutNul = v.pipe(
  text,
  v.check((value) => !value.includes('\0'), 'a NUL byte cannot be part of an argument or variable'),
);

const commandLine = v.pipe(
  withoutNul,
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const words = splitWords(dataset.value);
    if (words) return words;
    addIssue({ message: 'a quotation mark is not closed' });
    return NEVER;
  }),
);
const command = textOr(commandLine, list(withoutNul)) as v.GenericSchema<string | string[], string[]>;

const variableName = v.pipe(text, v.regex(/^[^=\0]+$/, 'a variable name is not empty and has no = or NUL'));

const measurements = referenceOr(oneOrMany(referenceOr(hex(64))));

const signerVariant = v.pipe(
  object({
    mrsigner: described(referenceOr(hex(64)), 'MRSIGNER: digest of the key that signed the enclave'),
    isvprodid: described(referenceOr(integer(0, 65535)), 'Product id of the enclave'),
    isvsvn: v.optional(described(referenceOr(integer(0, 65535)), 'Security version, exactly')),
    isvsvn_min: v.optional(described(referenceOr(integer(0, 65535)), 'Security version, at least')),
    isvsvn_max: v.optional(described(referenceOr(integer(0, 65535)), 'Security version, at most')),
  }),
  v.check(
    ({ isvsvn, isvsvn_min, isvsvn_max }) =>
      isvsvn === undefined || (isvsvn_min === undefined && isvsvn_max === undefined),
    'isvsvn excludes isvsvn_min and isvsvn_max',
  ),
);

const attestationVariant = v.pipe(
  object({
    mrenclave: v.optional(described(measurements, 'Measurement of the launcher, or a list of them')),
    signer: v.optional(described(referenceOr(signerVariant), 'Who signed the launcher, and its version')),
    one_time_password_shared_secret: v.optional(oneTimePassword),
  }),
  v.check(
    ({ mrenclave, signer }) => mrenclave !== undefined || signer !== undefined,
    'expected mrenclave or signer',
  ),
);

/** What a launcher must be to be admitted to a service: any one of these. */
export const attestationVariants = referenceOr(oneOrMany(referenceOr(attestationVariant)));
export const mrenclaves = list(referenceOr(hex(64)));

export const platforms = referenceOr(
  list(
    referenceOr(
      v.pipe(
        text,
        v.regex(
          /^([0-9A-Fa-f]{64}|INTEL_QE_ID:[0-9A-Fa-f]{32})$/,
          'expected the 64 hexadecimal digits of a LAS key, or INTEL_QE_ID: and 32',
        ),
        v.transform((value) => value.replace(/[0-9A-Fa-f]+$/, (digits) => digits.toLowerCase())),
      ),
    ),
  ),
);

export const service = object({
  name: described(name, 'Name of the service: launched as SESSION/NAME'),
  image_name: v.optional(described(imageName, 'Name of the image with its files')),
  command: v.optional(
    described(command, 'Arguments, the launcher’s own name first; @@N admits a host argument'),
    [],
  ),
  environment: v.optional(
    described(
      v.nullable(record(variableName, v.nullable(withoutNul)), {}),
      'The only environment the program sees; \\@\\@NAME admits a variable of the host',
    ),
    {},
  ),
  pwd: v.optional(described(absolutePath, 'Working directory, which must exist')),
  attestation: v.optional(described(attestationVariants, 'Launchers that are admitted'), []),
  mrenclaves: v.optional(described(mrenclaves, 'Older form of attestation: {mrenclave: […]}'), []),
  platforms: v.optional(described(platforms, 'Hosts that are allowed, by LAS key'), []),
  one_time_password_shared_secret: v.optional(oneTimePassword),
  fspf_path: v.optional(described(text, 'File system protection file')),
  fspf_key: v.optional(described(referenceOr(hex(64)), 'Key of the file system protection file')),
  fspf_tag: v.optional(described(hex(32), 'Tag of the file system protection file')),
  fspf_update_policy: v.optional(
    described(
      oneOf('rollback_protected_reinitializable', 'no_rollback_protection'),
      'Whether an older state of the file system is refused',
    ),
  ),
  persistency: v.optional(described(text, 'Kept, without a meaning')),
});
