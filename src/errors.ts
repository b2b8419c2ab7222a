/**
 * Every error a user can meet, declared once.
 *
 * The key is the permanent code. `message` says what happened, `hint` what to do about it, `exit` is the
 * exit status of `envcas` and `scone` (sysexits(3), and 126 and 127 as in POSIX env), `http` the status of
 * the CAS's REST interface. `{name}` in a message is a value that the place of failure fills in; a secret
 * is never one.
 */
export const errors = {
  USAGE: { exit: 64, http: 400, message: '{detail}', hint: 'Run the command with --help.' },
  CONFIG_ID_MISSING: {
    exit: 78,
    message: 'SCONE_CONFIG_ID is not set',
    hint: 'Set SCONE_CONFIG_ID=SESSION/SERVICE, or SESSION/SERVICE@CODE where a one-time password is asked for.',
  },
  CONFIG_ID_MALFORMED: {
    exit: 78,
    message: 'SCONE_CONFIG_ID is malformed: {detail}',
    hint: 'Its form is SESSION/SERVICE or SESSION/SERVICE@CODE: names of letters, digits and _ . ~ -, a code of six digits.',
  },
  ADDRESS_MALFORMED: {
    exit: 78,
    message: '{name} is malformed: {detail}',
    hint: 'Give HOST, HOST:PORT or [IPV6]:PORT.',
  },
  SETTING_MALFORMED: {
    exit: 78,
    message: '{name} is malformed: {detail}',
    hint: 'Correct the variable, or unset it.',
  },
  CAS_KEY_MALFORMED: {
    exit: 78,
    message: '{name} is not a CAS key hash: {detail}',
    hint: 'Copy it from `scone cas show-identification -c`.',
  },
  CAS_KEY_UNKNOWN: {
    exit: 78,
    message: 'no key is known for the CAS at {address}, so it cannot be told from an impostor',
    hint: 'Run `scone cas attest {host}`, set SCONE_CAS_KEY, or start the LAS with --cas {address}=KEY.',
  },
  CAS_KEY_MISMATCH: {
    exit: 76,
    message: 'the CAS at {address} has the key {actual}, but {expected} is pinned ({source})',
    hint: 'Somebody may be in between. Only if the CAS was set up anew: attest it again.',
  },
  CAS_UNREACHABLE: {
    exit: 69,
    message: 'cannot reach the CAS at {address}: {detail}',
    hint: 'Check that the CAS is running, and its address: of SCONE_CAS_ADDR for `envcas` (without it the host is `cas`), of --cas or the last `scone cas attest` for `scone`.',
  },
  CAS_PROTOCOL: {
    exit: 76,
    message: 'the CAS at {address} gave an answer that cannot be understood: {detail}',
    hint: 'Check that the address and port are those of a CAS, of a version that fits this program.',
  },
  CAS_UNKNOWN: {
    exit: 78,
    message: 'no attested CAS is known by the name {name}',
    hint: 'Run `scone cas attest ADDRESS` first.',
  },
  CAS_BUSY: {
    exit: 69,
    http: 503,
    message: 'the CAS has more to do than it takes on at a time',
    hint: 'Try again in a few seconds.',
  },
  CAS_NOT_VOUCHED_FOR: {
    exit: 69,
    http: 503,
    message: 'no Evidence about this CAS can be had at present',
    hint: 'The log of the CAS says what is wrong with its LAS.',
  },
  CAS_NOT_TRUSTWORTHY: {
    exit: 77,
    message: 'Error during attestation of CAS: {detail}',
    hint: 'See `scone cas attest --help` for what can be expected of a CAS, and what may be tolerated in tests.',
  },
  LAS_UNREACHABLE: {
    exit: 69,
    message: 'cannot reach the LAS at {socket}: {detail}',
    hint: 'Check SCONE_LAS_ADDR and that the LAS is running on this host.',
  },
  LAS_PROTOCOL: {
    exit: 76,
    message: 'the LAS at {socket} gave an answer that cannot be understood: {detail}',
    hint: 'Check that the socket is that of a LAS, of a version that fits this program.',
  },
  LAS_REFUSED: {
    exit: 77,
    message: 'the LAS vouches for nothing: {detail}',
    hint: 'The LAS gave the reason above.',
  },
  PROCESS_UNREADABLE: {
    exit: 77,
    message: 'process {pid} cannot be looked at: {detail}',
    hint: "Run the LAS as root, or as the launcher's own user; at an envcas that is installed setgid only root can look.",
  },
  PROCESS_TRACED: {
    exit: 77,
    message: 'process {pid} is being traced by process {tracer}',
    hint: 'Start the program without a debugger or strace.',
  },
  PROCESS_PRELOADED: {
    exit: 77,
    message: 'process {pid} was started with {variable}, which loads code into it',
    hint: 'Unset the variable before the launch; what the program needs belongs in its policy.',
  },
  PROCESS_CHANGED: {
    exit: 77,
    message: 'process {pid} is not the one that was measured any more: {detail}',
    hint: 'Ask again; if it happens again, something on this host interferes.',
  },
  PROCESS_ELSEWHERE: {
    exit: 77,
    message:
      'process {pid} sees other files than the LAS: another mount or user namespace, or another root folder',
    hint: 'Run a LAS where the launcher runs, inside its container or service; or that of the host with --containers, if the user namespace is the same.',
  },
  PROCESS_NOT_SECURE: {
    exit: 77,
    message: 'process {pid} does not run as an executable that root has installed setgid (secure-execution)',
    hint: 'Start the envcas that packaging/install.sh has installed; not where setgid has no effect, as on a file system with nosuid or with no_new_privs.',
  },
  PROCESS_CODE_CHANGEABLE: {
    exit: 77,
    message: 'process {pid} has code in it from files that not only root can write (root-owned-code)',
    hint: 'The launcher and its libraries belong to root, writable by nobody else; a LAS that is not root cannot tell.',
  },
  PROCESSES_UNSEEN: {
    exit: 77,
    message: 'this LAS cannot see which files the code of processes comes from: {detail}',
    hint: '--containers and --require root-owned-code need CAP_CHECKPOINT_RESTORE in the first user namespace, beside CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH. The units and manifests in packaging/ ask for them; a container has to be given them.',
  },
  HARDWARE_UNUSABLE: {
    exit: 69,
    message: 'the hardware gives no Evidence, {what}: {detail}',
    hint: 'Check the kernel module (tdx_guest, sev-guest), that configfs is mounted, and that the program may write there; or set SCONE_MODE=sim for Evidence by software alone.',
  },
  TPM_UNUSABLE: {
    exit: 69,
    message: 'the TPM cannot be used, {what}: {detail}',
    hint: 'Install tpm2-tools, and run as root or in the group of the device (tss); TPM2TOOLS_TCTI names another TPM than device:/dev/tpmrm0. After the TPM was cleared, remove the folder `tpm` of the LAS and enrol again.',
  },
  TPM_REGISTERS_CHANGED: {
    exit: 77,
    message: 'the TPM gives the key out only while its registers {pcrs} have the values they had',
    hint: 'Start this machine as it was started then; or open the store by another of its methods, and `scone cas rekey` it.',
  },
  HARDWARE_MISSING: {
    exit: 69,
    message: 'SCONE_MODE is hw, and no hardware vouches here: {detail}',
    hint: 'Run on a machine with SGX, TDX, SEV-SNP or an enrolled TPM; auto takes what there is.',
  },
  HARDWARE_UNWANTED: {
    exit: 78,
    message: 'SCONE_MODE is sim, and the LAS at {socket} vouches by hardware',
    hint: 'Leave SCONE_MODE at auto, or start the LAS with SCONE_MODE=sim too.',
  },
  EXECUTABLE_TOO_LARGE: {
    exit: 77,
    message: 'the executable has {size} bytes, more than the {limit} that are measured',
    hint: 'A launcher is much smaller.',
  },
  CHALLENGE_FAILED: {
    exit: 77,
    message: 'process {pid} did not prove that it asked for this Evidence itself',
    hint: 'The socket was handed over, forwarded or kept open across exec. Connect to the LAS directly.',
  },
  LAUNCH_REFUSED: { exit: 77, message: 'Attestation failed', hint: 'The causes below say what was missing.' },
  CAS_ANSWER_REFUSAL: {
    exit: 77,
    message: 'CAS sent an attestation/configuration error: {detail}',
    hint: 'The causes below say what was missing.',
  },
  ADMISSION_UNKNOWN: {
    exit: 77,
    http: 403,
    message: 'who may be given the service cannot be told: a variable in its policy cannot be used',
    hint: '`scone session explain SESSION/SERVICE` says what is wrong, to those who may read the session.',
  },
  EVIDENCE_MISSING: {
    exit: 77,
    http: 403,
    message: 'the service needs Evidence about the launcher, and none came',
    hint: 'Run a LAS on this host and set SCONE_LAS_ADDR.',
  },
  EVIDENCE_INVALID: {
    exit: 77,
    http: 403,
    message: 'the Evidence does not verify: {detail}',
    hint: 'What was changed, or made for something else, proves nothing. Launcher, LAS and CAS must be of versions that fit each other, and no proxy may end TLS in between.',
  },
  COLLATERAL_MISSING: {
    exit: 77,
    http: 403,
    message: 'the Evidence cannot be checked without {what}',
    hint: "Give it with --collateral; a CAS takes it with `scone cas collateral import`, or fetches it from the maker's service.",
  },
  COLLATERAL_INVALID: {
    exit: 77,
    http: 403,
    message: '{what} does not count: {detail}',
    hint: "Fetch it anew from the maker's service; compare --at, or the clock.",
  },
  CERTIFICATE_REVOKED: {
    exit: 77,
    http: 403,
    message: 'the certificate {certificate} with the serial number {serial} was revoked by its issuer',
    hint: 'Nothing that this key signs can be trusted any more. Replace or re-register the machine.',
  },
  TCB_UNACCEPTABLE: {
    exit: 77,
    http: 403,
    message: 'the {part} cannot be trusted: {detail}',
    hint: 'No policy can tolerate this. Update firmware and microcode of the machine.',
  },
  EVIDENCE_STALE: {
    exit: 77,
    http: 403,
    message: 'the Evidence about the machine is older than the policy admits: {detail}',
    hint: 'The LAS takes it anew when it is asked to; if this goes on, its log says why it cannot.',
  },
  TPM_UNKNOWN: {
    exit: 77,
    http: 403,
    message: 'nobody has said that a TPM with the attestation key {key} is to be trusted',
    hint: 'Run `scone las enrol` on that host; to `scone cas attest`, name the key with --tpm-key.',
  },
  TPM_UNTRUSTED: {
    exit: 77,
    http: 403,
    message: 'the TPM with the endorsement key {key} is not trusted: {detail}',
    hint: "Give the CAS its maker's root certificates, and those in between, with `scone cas serve --tpm-roots`; or trust this one by name with --trusted-tpm.",
  },
  TPM_UNPROVEN: {
    exit: 77,
    http: 403,
    message: 'it was not shown that this TPM holds both keys',
    hint: 'Enrol again, on the host of the TPM; an enrolment is good for a minute.',
  },
  TPM_ENROLLED: {
    exit: 77,
    http: 403,
    message: 'the TPM TPM_EK:{key} is enrolled with another key',
    hint: 'An owner of the CAS lets it be enrolled anew: `scone cas remove-tpm TPM_EK:{key}`.',
  },
  TPM_NOT_ENROLLED: {
    exit: 69,
    http: 404,
    message: 'no TPM is enrolled as {key}',
    hint: 'It is named as `scone las enrol` prints it: TPM_EK: and 64 hexadecimal digits.',
  },
  PLATFORM_UNTRUSTED: {
    exit: 77,
    http: 403,
    message: 'the LAS key {platform} is not trusted',
    hint: 'Trust it with `scone cas serve --trusted-platform`, or in the policy under `platforms` or `trusted_scone_qe_pubkeys`.',
  },
  PLATFORM_NOT_ALLOWED: {
    exit: 77,
    http: 403,
    message: 'the platform {platform} is not among the platforms of the service',
    hint: 'Launch on one of the hosts that the policy lists under `platforms`.',
  },
  DEBUG_NOT_TOLERATED: {
    exit: 77,
    http: 403,
    message: '{detail}',
    hint: "In order to ignore this error, add `tolerate: [debug-mode]` to the session's `security.attestation` config.",
  },
  RUN_AS_UNEXPECTED: {
    exit: 77,
    http: 403,
    message: 'it runs as {actual}, where {expected} is expected',
    hint: 'Start it as that user or service; or name it: `run_as` in the policy, --run-as of the command.',
  },
  MACHINE_MISSING: {
    exit: 77,
    http: 403,
    message:
      'the policy asks for measurements of the machine ({wanted}), and the Evidence is of the root {root}, which has none',
    hint: 'Launch where the LAS has a hardware root of trust; `scone las serve` prints which it found.',
  },
  MACHINE_UNNAMED: {
    exit: 77,
    http: 403,
    message:
      'the LAS that vouches is known by the measurements of its machine alone, and the policy names none of the kind {kind}',
    hint: 'If this is the machine you mean, add to the `attestation` of the service, beside `mrenclave`: {machine}',
  },
  MACHINE_UNEXPECTED: {
    exit: 77,
    http: 403,
    message:
      'the machine is not the one that the policy names, {kind} {name}: {actual} - Expected {expected}',
    hint: 'Compare with `scone evidence show`; another image, kernel or firmware has other measurements.',
  },
  TOLERANCE_MISSING: {
    exit: 77,
    http: 403,
    message: 'to admit it all the same, the session would need under `security.attestation`: {entries}',
    hint: 'Each entry gives up what is said of it above; updating the machine is better.',
  },
  PROPERTY_MISSING: {
    exit: 77,
    http: 403,
    message:
      'the LAS does not say of the launcher that it has the property {property}, which the policy requires',
    hint: 'Install envcas with packaging/install.sh, and run a LAS of this version as root.',
  },
  MEASUREMENT_UNEXPECTED: {
    exit: 77,
    http: 403,
    message: 'Unexpected enclave measurement (MRENCLAVE, {actual}) - Expected {expected}',
    hint: 'Compare with `SCONE_HASH=1 envcas`; a new build has a new measurement.',
  },
  SIGNER_UNEXPECTED: {
    exit: 77,
    http: 403,
    message: 'the launcher is not signed as the policy asks: {actual}',
    hint: 'Compare with `signer` under `attestation` in the policy; software Evidence never names a signer.',
  },
  WEAKNESS_NOT_TOLERATED: {
    exit: 77,
    http: 403,
    message: 'the platform has a known weakness, {weakness}',
    hint: 'Update the platform, or tolerate it in the session, as is said below.',
  },
  ADVISORIES_NOT_IGNORED: {
    exit: 77,
    http: 403,
    message: 'security advisories apply to the platform: {advisories}',
    hint: 'Update the platform, or ignore them in the session, as is said below.',
  },
  PROCESS_SEEN: {
    exit: 77,
    http: 403,
    message: 'this process has asked for a configuration of session {session} before',
    hint: 'With `singleton_enclaves`, each process is given a configuration once: start a new one.',
  },
  ACCESS_TOKEN_MISSING: {
    exit: 77,
    http: 403,
    message: 'a service access token is required',
    hint: 'Set SCONE_SERVICE_ACCESS_TOKEN to the `service_access_token` of the session.',
  },
  ACCESS_TOKEN_INVALID: {
    exit: 77,
    http: 403,
    message: 'the service access token is wrong',
    hint: 'SCONE_SERVICE_ACCESS_TOKEN must be the `service_access_token` of the session, to the last character.',
  },
  ACCESS_TOKEN_THROTTLED: {
    exit: 77,
    http: 429,
    message: 'Too many wrong service access tokens. Please try again in {seconds} seconds.',
    hint: 'No token is looked at before that.',
  },
  ACCESS_TOKEN_UNPROVEN: {
    exit: 77,
    message: 'the CAS at {address} did not prove that it knows the service access token',
    hint: 'The session must have the same `service_access_token`; or unset SCONE_SERVICE_ACCESS_TOKEN.',
  },
  OTP_MISSING: {
    exit: 77,
    http: 403,
    message: 'A One-time Password is required. Please append @CODE to SCONE_CONFIG_ID.',
    hint: 'The code comes from the authenticator that holds the shared secret of this service.',
  },
  OTP_INVALID: {
    exit: 77,
    http: 403,
    message: 'The given One-time Password is invalid. Please try again.',
    hint: 'A code is valid for its 30 seconds and the 30 before and after; check the clocks.',
  },
  OTP_USED: {
    exit: 77,
    http: 403,
    message:
      'A One-time Password was already used within this time-step. Please try again in the next time-step',
    hint: 'Each code is good for one launch; wait for the next one.',
  },
  OTP_THROTTLED: {
    exit: 77,
    http: 429,
    message: 'Too many wrong One-time Passwords. Please try again in {seconds} seconds.',
    hint: 'No code is looked at before that.',
  },
  SESSION_NOT_FOUND: {
    exit: 77,
    http: 404,
    message: 'Session not found: {session}',
    hint: 'Check the name.',
  },
  SERVICE_NOT_FOUND: {
    exit: 77,
    http: 404,
    message: 'the session {session} has no service {service}',
    hint: 'Check the name; `scone session read` shows the session to those who may read it.',
  },
  SESSION_EXISTS: {
    exit: 73,
    http: 409,
    message: 'Session already exists, please specify predecessor hash: {session}',
    hint: 'To replace it, put the hash of its present version (scone session read --hash) under `predecessor`.',
  },
  PREDECESSOR_UNKNOWN: {
    exit: 65,
    http: 404,
    message: 'the predecessor is given, but there is no session {session}',
    hint: 'Remove `predecessor` from a first version.',
  },
  PREDECESSOR_STALE: {
    exit: 73,
    http: 409,
    message: 'the session {session} was changed meanwhile: its present version is not the given predecessor',
    hint: 'Read the session again and repeat the change on its present version.',
  },
  NAMESPACE_NOT_FOUND: {
    exit: 65,
    http: 404,
    message: 'there is no namespace {namespace} to create the session in',
    hint: 'Create a session of that name first.',
  },
  ACCESS_DENIED: {
    exit: 77,
    http: 403,
    message: 'You have insufficient rights to {operation} session {session}',
    hint: "Use an identity that the session's access_policy names.",
  },
  IDENTITY_REQUIRED: {
    exit: 77,
    http: 401,
    message: 'a client certificate is required',
    hint: 'With curl: --cert FILE --key FILE.',
  },
  POLICY_INVALID: {
    exit: 65,
    http: 400,
    message: 'the session is not valid',
    hint: 'The list says what and where.',
  },
  SIGNATURE_INVALID: {
    exit: 77,
    http: 403,
    message: 'the signature of {signer} is not accepted: {detail}',
    hint: 'Sign the session again, exactly as it stands; every signer signs it once.',
  },
  SIGNED_SESSION_INVALID: {
    exit: 65,
    http: 400,
    message: 'the signed session is not valid: {detail}',
    hint: 'Make it with `scone session sign`.',
  },
  ENCRYPTED_SESSION_INVALID: {
    exit: 65,
    http: 400,
    message: 'the encrypted session is not valid: {detail}',
    hint: 'Encrypt it with `scone session encrypt`, for the CAS that is to open it.',
  },
  SECRET_UNAVAILABLE: {
    exit: 77,
    http: 403,
    message: 'the secret {secret} of session {session} cannot be used: {detail}',
    hint: 'An imported secret must be exported to the session; a format must be one that its kind has.',
  },
  VALUE_NOT_PUBLIC: {
    exit: 77,
    http: 404,
    message: 'Secret does not exist or is not visible for a public client',
    hint: 'A session publishes a secret with `export_public: true`.',
  },
  POLICY_UNUSABLE: {
    exit: 77,
    http: 403,
    message: 'the policy cannot be applied, {section}: {detail}',
    hint: 'Look at what the variables of this section stand for.',
  },
  NOT_SUPPORTED: {
    exit: 69,
    http: 501,
    message: '{what} is not supported by this version',
    hint: 'docs/session-language.md and `scone --help` say what is.',
  },
  NAMESPACE_CHANGED: {
    exit: 73,
    http: 409,
    message:
      'the namespace {namespace} is not as it was expected: it was changed, or has another `namespace_hash`',
    hint: 'Read the namespace again, and decide whether you trust its present version.',
  },
  ROOT_SEALED: {
    exit: 73,
    http: 409,
    message: 'the root namespace can be set only before any other session is created',
    hint: 'On this CAS it stays as it is by default: anybody may create sessions.',
  },
  CREATOR_MISMATCH: {
    exit: 77,
    http: 403,
    message: 'the session names another `creator` than the one who uploads it',
    hint: 'Remove `creator`; it is filled in.',
  },
  CREATOR_UNKNOWN: {
    exit: 65,
    http: 400,
    message: 'the session speaks of its CREATOR, and nobody says who that is',
    hint: 'Write `creator: signer: PUBLIC KEY` into the session before it is signed, or upload it with a client certificate; `calculate-hash` takes --with-self-as-creator.',
  },
  SESSION_DIFFERS: {
    exit: 65,
    message:
      'the session {session} on the CAS, {hash}, is not the one in the file; they differ in: {sections}',
    hint: '`scone session read` prints what is on the CAS, and `scone session history` who changed it.',
  },
  WARNINGS: {
    exit: 65,
    message: '{path}: warnings: {count}, and --fail-on-warning was given',
    hint: 'The warnings above say what and where. Nothing was uploaded.',
  },
  ONE_TIME_PASSWORD_UNUSED: {
    exit: 65,
    http: 404,
    message: 'the service {service} of session {session} asks for no one-time password',
    hint: 'Its policy names one with `one_time_password_shared_secret`.',
  },
  LAUNCHER_CONFIG_MISSING: {
    exit: 78,
    message: 'the policy injects no /etc/envcas/config.yaml',
    hint: 'Add it to the injection_files of the image that the service names.',
  },
  LAUNCHER_CONFIG_INVALID: {
    exit: 78,
    message: '/etc/envcas/config.yaml is not valid: {detail}',
    hint: 'It names the `program`, and under `injection_files` what is written where.',
  },
  FILE_NOT_INJECTED: {
    exit: 78,
    message: '`from: {path}` is none of the injected files',
    hint: 'The policy injects: {paths}.',
  },
  FILE_UNREADABLE: {
    exit: 66,
    message: 'cannot read the injection file {path}: {detail}',
    hint: 'An injection file without `content` is a template on the file system of this host.',
  },
  TEMPLATE_INVALID: {
    exit: 78,
    message: '{place}: {detail}',
    hint: 'A reference has the form $$SCONE::name$$ or $$SCONE::name:format$$; a template on the host may use the secrets that `provide_secrets` of the image names.',
  },
  TARGET_UNWRITABLE: {
    exit: 73,
    message: 'cannot write {path}: {detail}',
    hint: 'Its folder must exist, or be in `directories`, and be writable for the user who starts envcas; only root can give files to others.',
  },
  HOST_ARGUMENT_MISSING: {
    exit: 64,
    message: 'the policy asks for host argument @@{number}, but only {count} were given',
    hint: 'Pass it on the command line: envcas ARGUMENT …',
  },
  NUL_BYTE: {
    exit: 78,
    message: '{place} holds a NUL byte, which no argument or variable can',
    hint: 'Use a format such as :hex or :base64, or hand the value over in a file.',
  },
  ARGUMENTS_TOO_LARGE: {
    exit: 126,
    message: 'the kernel does not start {program} with so many bytes of arguments and environment (E2BIG)',
    hint: 'One argument or variable has at most 128 KiB; hand larger secrets over in a file.',
  },
  CONFIGURATION_TOO_LARGE: {
    exit: 77,
    http: 400,
    message: 'the configuration of the service has more than {limit} bytes, secrets included',
    hint: 'Use large secrets in fewer places.',
  },
  PROGRAM_MISSING: {
    exit: 127,
    message: 'there is no program {program}',
    hint: '`program` in /etc/envcas/config.yaml is the absolute path of an executable file on this host.',
  },
  PROGRAM_NOT_EXECUTABLE: {
    exit: 126,
    message: 'cannot execute {program}: {detail}',
    hint: 'It must be a file that this user may execute; a script needs a #! line.',
  },
  USER_UNKNOWN: {
    exit: 78,
    message: 'there is no user {user} on this host',
    hint: 'Correct `user` or `owner` in /etc/envcas/config.yaml of the policy, or make the user.',
  },
  GROUP_UNKNOWN: {
    exit: 78,
    message: 'there is no group {group} on this host',
    hint: 'Correct `group` in /etc/envcas/config.yaml of the policy, or make the group.',
  },
  USER_NOT_PERMITTED: {
    exit: 78,
    message: 'the program cannot run as {user}: {detail}',
    hint: 'Start envcas as root, or as the user and group that /etc/envcas/config.yaml names.',
  },
  DESCRIPTOR_UNAVAILABLE: {
    exit: 78,
    message: 'the program cannot be given descriptor {fd}: {detail}',
    hint: 'Choose a lower number in /etc/envcas/config.yaml, or raise the limit of open files.',
  },
  PROGRAM_UNEXPECTED: {
    exit: 77,
    message: 'the program {program} has the SHA-256 {actual}, and the policy admits {expected}',
    hint: 'Install the program that the policy means, or have `sha256` in its /etc/envcas/config.yaml name this one.',
  },
  PROGRAM_CHANGEABLE: {
    exit: 77,
    message: 'the program {program} cannot be checked: {detail}',
    hint: 'A checked program belongs to root or to whom it runs as, and neither group nor others may write to it.',
  },
  WORKING_DIRECTORY: {
    exit: 78,
    message: 'cannot change to the working directory {path}: {detail}',
    hint: '`pwd` of the service must exist on this host.',
  },
  FILE_INVALID: { exit: 65, message: '{path}: {detail}', hint: 'Correct the file and try again.' },
  STATE_UNUSABLE: {
    exit: 74,
    message: '{path}: {detail}',
    hint: 'Check that file and folder belong to the user who runs this, that nobody else may write to them, and that there is room.',
  },
  STATE_SEALED: {
    exit: 74,
    message: '{path} does not decrypt: it was changed, or belongs to another master key',
    hint: 'Restore the store together with its master key.',
  },
  NOT_PROVISIONED: {
    exit: 78,
    http: 409,
    message: 'this CAS has no owner yet, and so nobody may do this',
    hint: 'Provision it: `scone cas provision`, with the token that the CAS prints when it starts.',
  },
  NOT_OWNER: {
    exit: 77,
    http: 403,
    message: 'only an owner of this CAS may do this',
    hint: 'Use the identity that provisioned the CAS, or have an owner add yours to `owners`.',
  },
  PROVISIONED_ALREADY: {
    exit: 77,
    http: 409,
    message: 'this CAS has an owner already',
    hint: 'Ask whoever provisioned it. If nobody of yours did, it is not your CAS: do not use it.',
  },
  TOKEN_INVALID: {
    exit: 77,
    http: 403,
    message: 'the provisioning token is wrong',
    hint: 'Copy it from what the CAS printed when it was started last.',
  },
  TOKEN_THROTTLED: {
    exit: 75,
    http: 429,
    message: 'too many wrong provisioning tokens came from here: the next one counts in {seconds} seconds',
    hint: 'Wait, and give the right one.',
  },
  CONFIGURATION_CHANGED: {
    exit: 75,
    http: 409,
    message: 'the configuration of the owner was changed by somebody else; it has version {version} now',
    hint: 'Look at it with `scone cas show-config`, and update it again.',
  },
  REGISTRATIONS_CHANGED: {
    exit: 75,
    http: 409,
    message: 'somebody else has registered or removed a CAS at the same time',
    hint: 'Look at `scone cas list-registrations`, and try again.',
  },
  REGISTRATION_NOT_FOUND: {
    exit: 69,
    http: 404,
    message: 'no CAS is registered as {id}',
    hint: 'See `scone cas list-registrations`.',
  },
  UPGRADE_NOT_REGISTERED: {
    exit: 78,
    http: 409,
    message: 'no CAS is registered as an upgrade',
    hint: 'Start the new version sealed, and name it: `scone cas register-upgrade ADDRESS`.',
  },
  NOT_REGISTERED: {
    exit: 77,
    http: 403,
    message:
      'no CAS with measurement {measurement} on platform {platform} is registered to be given the root key',
    hint: 'The owner registers it: `scone cas register-backup ADDRESS` or `register-upgrade ADDRESS`.',
  },
  REGISTRATION_OUTDATED: {
    exit: 77,
    http: 403,
    message: 'the registration {id} does not say as whom the CAS must run, so it gives no root key',
    hint: 'The owner registers the CAS anew, with --run-as, and removes the old registration.',
  },
  CAS_SEALED: {
    exit: 69,
    http: 503,
    message: 'the CAS is sealed: it does not have the key of its store',
    hint: 'Whoever holds a passphrase or a share: `scone cas unseal ADDRESS`.',
  },
  UNSEAL_REFUSED: {
    exit: 77,
    http: 403,
    message: 'the store does not open by {method}: {detail}',
    hint: 'Give what belongs to this store; any of its methods will do.',
  },
  UNSEAL_THROTTLED: {
    exit: 75,
    http: 429,
    message: 'too many wrong attempts to unseal: the next one counts in {seconds} seconds',
    hint: 'Wait, and give the right passphrase or share.',
  },
  SHARE_INVALID: {
    exit: 65,
    http: 400,
    message: 'this is no share for this store: {detail}',
    hint: 'Copy the whole line that `scone cas init` or `rekey` has printed.',
  },
  PASSPHRASE_WEAK: {
    exit: 65,
    message: 'the passphrase has fewer than {least} characters',
    hint: 'Take several words that have nothing to do with each other.',
  },
  SEAL_DAMAGED: {
    exit: 74,
    http: 500,
    message: "the record of how the store is sealed (state, row 'seal') is not right: {detail}",
    hint: 'Restore that row, or the whole store, from a backup.',
  },
  STORE_REKEYED: {
    exit: 75,
    http: 409,
    message: 'the store was keyed anew since this CAS has opened it',
    hint: "Start the CAS again, which opens by what `scone cas rekey` has named. Where nobody ran that, restore the row 'seal' of state.",
  },
  SEAL_CHANGED: {
    exit: 75,
    http: 409,
    message: 'how the store is sealed was changed by somebody else at the same time',
    hint: 'Look at what it is now, and do it again.',
  },
  STORE_SEALED_ALREADY: {
    exit: 73,
    message: 'the store {store} is set up already, and opens by: {methods}',
    hint: '`scone cas rekey` gives it other methods.',
  },
  STORE_UNAVAILABLE: {
    exit: 69,
    http: 503,
    message: 'the store {store} cannot be used at present: {detail}',
    hint: 'Nothing was lost that was confirmed. Check that the database runs, can be reached and written, and has room; then try again.',
  },
  STORE_DAMAGED: {
    exit: 74,
    http: 500,
    message: 'the store {store} is damaged: {detail}',
    hint: 'Stop the CAS, keep a copy of the store, and restore the last backup.',
  },
  STORE_NOT_EMPTY: {
    exit: 73,
    message: 'the store {store} has something in it already',
    hint: 'Give an empty database; nothing was changed.',
  },
  STORE_MOVED: {
    exit: 78,
    message: 'the store {store} was moved to {to}',
    hint: 'Start the CAS on the new store. Two that go on from one would each tell another story.',
  },
  BACKUP_INVALID: {
    exit: 65,
    http: 400,
    message: 'line {line} of the backup is not right: {detail}',
    hint: 'Nothing was changed. Take another copy of the backup, or an earlier one.',
  },
  BACKUP_WITHOUT_CODE: {
    exit: 65,
    http: 400,
    message: 'the backup has no code, so rows may have been taken out of it, or put back from earlier',
    hint: 'Nothing was changed. For a backup that version 0.1.0 has made, `scone cas restore --without-code` shows what it would change.',
  },
  RESTORE_UNFINISHED: {
    exit: 78,
    http: 500,
    message: 'a restore of the store {store} was begun, and the audit log does not tell of it',
    hint: 'Restore the backup into an empty database, by `scone cas restore` of this version.',
  },
  AUDIT_LOG_DAMAGED: {
    exit: 74,
    http: 500,
    message: 'entry {sequence} of the audit log is not right: {detail}',
    hint: 'Somebody has changed the log, or the disk has. Keep a copy of it, and restore the last backup.',
  },
  CAS_ROLLED_BACK: {
    exit: 77,
    message:
      'the CAS at {address} has lost what it had: its audit log of {now} entries does not begin with the {size} that were seen before',
    hint: 'Somebody has put an older store in place. Ask who runs it, and compare with `scone cas verify-audit-log`; `scone cas attest` begins anew with what there is.',
  },
  CAS_RESTORED: {
    exit: 77,
    message:
      'the CAS at {address} was restored from a backup on {time} (entry {sequence} of its audit log), and not all of the {size} entries seen before are in it',
    hint: 'What was uploaded after that backup is gone; sessions may be older than you know them. Where that is as it should be, attest the CAS again: `scone cas attest`.',
  },
  ADDRESS_IN_USE: {
    exit: 69,
    message: 'cannot listen on {address}: {detail}',
    hint: 'Stop the other server, or choose another address or folder; `scone up --free-ports` takes any free ports.',
  },
  REQUEST_TOO_LARGE: {
    exit: 65,
    http: 413,
    message: 'the body of the request has more than {limit} bytes',
    hint: 'Split the session; large secrets can be imported from another one.',
  },
  TOO_MANY_SESSIONS: {
    exit: 77,
    http: 403,
    message: 'this client has created {limit} sessions, and may create no more',
    hint: 'Ask who runs the CAS to raise the limit (--sessions-per-client), or use names and versions of sessions again.',
  },
  TOO_MUCH_STORED: {
    exit: 77,
    http: 403,
    message: 'the sessions that this client has uploaded have {limit} MiB, and may have no more',
    hint: 'Ask who runs the CAS to raise the limit (--mebibytes-per-client), or upload shorter sessions.',
  },
  TOO_MANY_REQUESTS: {
    exit: 69,
    http: 429,
    message: 'you have more than {limit} requests under way at a time',
    hint: 'Wait for the answers to those that are under way.',
  },
  PATH_UNKNOWN: {
    exit: 76,
    http: 404,
    message: 'there is nothing at the path {path}',
    hint: 'docs/openapi.yaml has all calls; an older CAS may not have this one.',
  },
  METHOD_NOT_ALLOWED: {
    exit: 76,
    http: 405,
    message: 'the path {path} takes {allowed} alone',
    hint: 'docs/openapi.yaml has all calls.',
  },
  HEADERS_TOO_LARGE: {
    exit: 65,
    http: 431,
    message: 'path and headers of the request have more than {limit} bytes',
    hint: 'The CAS needs none beyond what HTTP asks for.',
  },
  REQUEST_SLOW: {
    exit: 69,
    http: 408,
    message: 'the request did not come within {seconds} seconds',
    hint: 'Try again.',
  },
  REQUEST_INVALID: {
    exit: 65,
    http: 400,
    message: '{detail}',
    hint: 'docs/openapi.yaml says what each call takes.',
  },
  OUTPUT_UNWRITABLE: {
    exit: 73,
    message: 'cannot write {path}: {detail}',
    hint: 'Its folder must exist, and not be one of another user that all may write to. What is there must be a file of this user, or a link that nobody else could put there.',
  },
  ENCRYPTION_KEY_UNKNOWN: {
    exit: 78,
    message: 'no key for encrypted sessions is known of the CAS {name}',
    hint: 'Attest it again; a CAS of an older version has none.',
  },
  INTERNAL: {
    exit: 70,
    http: 500,
    message: 'an error of this program itself: {detail}',
    hint: 'Please report it.',
  },
} as const satisfies Record<string, { exit: number; http?: number; message: string; hint: string }>;

/** Permanent code of an error. */
export type ErrorCode = keyof typeof errors;

/** Of a refusal whose code a newer server knows, and this version does not. */
const EX_UNAVAILABLE = 69;

/** The exit status of an error, by the code of one that is declared, or that a server has sent. */
export const exitOf = (code: string): number =>
  Object.hasOwn(errors, code) ? errors[code as ErrorCode].exit : EX_UNAVAILABLE;

type Placeholder<Text extends string> = Text extends `${string}{${infer Name}}${infer Rest}`
  ? Name | Placeholder<Rest>
  : never;
type Values<Code extends ErrorCode> = Record<
  Placeholder<(typeof errors)[Code]['message']> | Placeholder<(typeof errors)[Code]['hint']>,
  string | number
>;

/** Seconds, where it is not known better. */
const RETRY_AFTER = 2;

/** A declared error, with its values filled in. `cause` says why, one level deeper. */
export class Failure extends Error {
  readonly code: ErrorCode;
  /** What stands in its message and hint. */
  readonly values: Readonly<Record<string, string | number>>;
  readonly hint: string;
  readonly exit: number;
  readonly http: number;
  /** Seconds until it may be otherwise, of what is refused for now. */
  readonly retryAfter: number | undefined;

  constructor(code: ErrorCode, values: Readonly<Record<string, string | number>>, cause?: unknown) {
    super(fill(errors[code].message, values), cause === undefined ? undefined : { cause });
    this.name = 'Failure';
    this.code = code;
    this.values = values;
    this.hint = fill(errors[code].hint, values);
    this.exit = errors[code].exit;
    const row = errors[code];
    this.http = 'http' in row ? row.http : 500;
    const isForNow = this.http === 429 || this.http === 503;
    this.retryAfter = isForNow ? Number(values.seconds ?? RETRY_AFTER) : undefined;
  }
}

/** Makes the Failure of a code; TypeScript checks that every `{value}` of its message is given. */
export function failure<Code extends ErrorCode>(
  code: Code,
  ...rest: [keyof Values<Code>] extends [never] ? [cause?: unknown] : [values: Values<Code>, cause?: unknown]
): Failure {
  const hasValues = /\{\w+\}/.test(errors[code].message + errors[code].hint);
  const [values, cause] = hasValues ? rest : [{}, rest[0]];
  return new Failure(code, values as Record<string, string | number>, cause);
}

/** What went wrong, outermost first: the messages of an error and of its causes. */
export function causes(error: unknown): string[] {
  const messages: string[] = [];
  for (
    let at = error;
    at !== undefined && messages.length < 16;
    at = at instanceof Error ? at.cause : undefined
  )
    messages.push(reason(at));
  return messages;
}

/** About anything thrown, without what caused it; fit for a `{detail}`. */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  return systemErrors[code] ?? (error.message || code || error.name);
}

/** errno(3) names in words; anything else keeps its own message. */
const systemErrors: Record<string, string> = {
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  ENOENT: 'no such file or directory',
  ENOTDIR: 'a part of the path is not a directory',
  EISDIR: 'it is a directory',
  EROFS: 'the file system is read-only',
  ENOSPC: 'no space left on the device',
  EDQUOT: 'the disk quota is exhausted',
  ELOOP: 'too many symbolic links',
  ENAMETOOLONG: 'the name is too long',
  ENOEXEC: 'not an executable format (a script needs a #! line)',
  ETXTBSY: 'the file is open for writing',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection closed by the other side',
  EPIPE: 'connection closed by the other side',
  EHOSTUNREACH: 'no route to the host',
  ETIMEDOUT: 'no answer in time',
  ENOTFOUND: 'the host name does not resolve',
  EAI_AGAIN: 'the host name cannot be resolved at present',
  EADDRINUSE: 'the address is in use',
  EADDRNOTAVAIL: 'the address is not one of this host',
};

function fill(template: string, values: Readonly<Record<string, string | number>>): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
}
