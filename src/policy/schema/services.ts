import * as v from 'valibot';
import { runAs } from '../../attestation/credentials.ts';
import { products, tcbParts } from '../../attestation/machine.ts';
import { hex, integer, list, object, oneOf, oneOrMany, record, text, textOr } from '../shapes.ts';
import { splitWords } from '../words.ts';
import { absolutePath, described, imageName, name, oneTimePassword, referenceOr } from './values.ts';

/** `services`: what may be launched, and by whom. */

const withoutNul = v.pipe(
  text,
  v.check((value) => !value.includes('\0'), 'a NUL byte cannot be part of an argument or variable'),
);

/** Words of a command that is written as a text. */
const MOST_WORDS = 10_000;

const commandLine = v.pipe(
  withoutNul,
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const words = splitWords(dataset.value);
    if (words && words.length <= MOST_WORDS) return words;
    addIssue({
      message: words ? `expected at most ${MOST_WORDS} words` : 'a quotation mark is not closed',
    });
    return NEVER;
  }),
);
const command = textOr(commandLine, list(withoutNul)) as v.GenericSchema<string | string[], string[]>;

const variableName = v.pipe(text, v.regex(/^[^=\0]+$/, 'a variable name is not empty and has no = or NUL'));

/** Of a fleet, as many as all variables together may come to. */
const MOST_OF_FLEET = 20_000;

const measurements = referenceOr(oneOrMany(referenceOr(hex(64)), MOST_OF_FLEET));

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

/** A measurement of so many hexadecimal digits, or several, any of which is right. */
const measured = (digits: number, meaning: string) =>
  v.optional(described(referenceOr(oneOrMany(referenceOr(hex(digits)))), meaning));

const tdx = v.pipe(
  object({
    mrtd: measured(96, 'Measurement of the firmware that the virtual machine starts with'),
    rtmr0: measured(96, 'Configuration of the virtual machine, as the firmware measured it'),
    rtmr1: measured(96, 'Boot loader and kernel, as the firmware measured them'),
    rtmr2: measured(96, 'Kernel, its command line and initial file system, as the boot loader measured them'),
    rtmr3: measured(96, 'What the running system has measured'),
    mrconfigid: measured(96, 'What whoever started the virtual machine says of its configuration'),
    mrowner: measured(96, 'Who owns it, as whoever started it says'),
    mrownerconfig: measured(96, 'What the owner says of its configuration'),
    attributes: measured(16, 'Attributes of the virtual machine, as the module has them'),
    mrservicetd: measured(96, 'Service domains that are bound to it, such as one that may move it elsewhere'),
  }),
  v.check(
    ({ mrtd }) => mrtd !== undefined,
    'expected mrtd: nothing else says which firmware measured the rest',
  ),
);

const tcbVersion = v.optional(described(integer(0, 255), 'Version, at least'));
const sevSnp = v.pipe(
  object({
    measurement: measured(96, 'Measurement of what the virtual machine starts with (launch measurement)'),
    guest_policy: measured(
      16,
      'What whoever started it allows and demands of the firmware, as a number of 16 digits',
    ),
    host_data: measured(64, 'What whoever started the virtual machine gave along'),
    id_key_digest: measured(96, 'Digest of the key that signed its identity block'),
    author_key_digest: measured(96, 'Digest of the key that signed that key'),
    family_id: measured(32, 'Family, as its identity block says'),
    image_id: measured(32, 'Image, as its identity block says'),
    vmpl: v.optional(described(integer(0, 3), 'Privilege level that the LAS runs at; default: 0')),
    products: v.optional(described(list(oneOf(...products)), 'Processor generations; default: all of them')),
    minimum_tcb: v.optional(
      described(
        object(
          Object.fromEntries(tcbParts.map((part) => [part, tcbVersion])) as Record<
            (typeof tcbParts)[number],
            typeof tcbVersion
          >,
        ),
        'Versions of the firmware that are recent enough; without it, outdated-tcb must be tolerated',
      ),
    ),
  }),
  v.check(
    ({ measurement }) => measurement !== undefined,
    'expected measurement: nothing else says what was started',
  ),
);

const pcr = v.pipe(text, v.regex(/^(1?[0-9]|2[0-3])$/, 'expected the number of a register, 0 to 23'));
const tpm = object({
  pcrs: v.pipe(
    described(
      record(pcr, referenceOr(oneOrMany(referenceOr(hex(64))))),
      'Registers by number, and what SHA-256 bank they hold',
    ),
    v.check(
      (pcrs) => Object.keys(pcrs).length > 0,
      'expected a register: with none, nothing is said of the machine',
    ),
  ),
});

const machineSections = {
  tdx: v.optional(
    described(tdx, 'Intel TDX virtual machine that the LAS runs in; an addition to the language'),
  ),
  sev_snp: v.optional(
    described(sevSnp, 'AMD SEV-SNP virtual machine that the LAS runs in; an addition to the language'),
  ),
  tpm: v.optional(described(tpm, 'Host whose TPM has measured it; an addition to the language')),
};

/** Machines, as a variant names them. */
export const machines = object(machineSections);

const attestationVariant = v.pipe(
  object({
    mrenclave: v.optional(described(measurements, 'Measurement of the launcher, or a list of them')),
    signer: v.optional(described(referenceOr(signerVariant), 'Who signed the launcher, and its version')),
    ...machineSections,
    run_as: v.optional(
      described(
        referenceOr(
          v.pipe(
            oneOrMany(referenceOr(runAs)),
            v.check((whom) => whom.length > 0, 'expected somebody: an empty list admits nobody'),
          ),
        ),
        'As whom the launcher may run: uid:N, user:NAME or unit:NAME.service, or a list; an addition to the language',
      ),
    ),
    one_time_password_shared_secret: v.optional(oneTimePassword),
  }),
  v.check(
    ({ mrenclave, signer }) => mrenclave !== undefined || signer !== undefined,
    'expected mrenclave or signer',
  ),
);

/** What a launcher must be to be admitted to a service: any one of these. */
export const attestationVariants = referenceOr(oneOrMany(referenceOr(attestationVariant), MOST_OF_FLEET));
export const mrenclaves = list(referenceOr(hex(64)), MOST_OF_FLEET);

export const platforms = referenceOr(
  list(
    referenceOr(
      v.pipe(
        text,
        v.regex(
          /^([0-9A-Fa-f]{64}|INTEL_QE_ID:[0-9A-Fa-f]{32}|AMD_CHIP_ID:[0-9A-Fa-f]{128}|TPM_EK:[0-9A-Fa-f]{64})$/,
          'expected the 64 hexadecimal digits of a LAS key, or INTEL_QE_ID: and 32, AMD_CHIP_ID: and 128, TPM_EK: and 64',
        ),
        v.transform((value) => value.replace(/[0-9A-Fa-f]+$/, (digits) => digits.toLowerCase())),
      ),
    ),
    MOST_OF_FLEET,
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
  platforms: v.optional(
    described(platforms, 'Hosts that are allowed, by LAS key or by what their hardware is known by'),
    [],
  ),
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
