import { type Command, InvalidArgumentError, Option } from 'commander';

/** What several commands have in common. */

/** Gives a command `--json`. */
export function structured(command: Command): Command {
  return command.option('--json', 'print JSON');
}

/** Gives a command what it takes to fill in a session file. */
export function templated(command: Command): Command {
  return command
    .option('-e <NAME=VALUE>', 'value of a template variable (repeatable)', collect)
    .option('--use-env', 'take template variables from the environment, where -e gives none')
    .option(
      '--allow-references',
      'let the value of a template variable be a reference to a secret, or several words of a command',
    )
    .option('-n, --name <name>', 'give the session this name, whatever the file says')
    .option('--fail-on-warning', 'treat warnings as errors');
}

/** Gives a command what it takes to reach a CAS. */
export function networked(command: Command): Command {
  return command
    .option('-c, --cas <cas>', 'an attested CAS (default: the default one)')
    .addOption(identity())
    .addOption(retries())
    .option(
      '--only_for_testing-disable-attestation-verification',
      'trust whoever answers; --cas may be HOST[:PORT] then',
    );
}

export function identity(): Option {
  return new Option(
    '--identity <file>',
    'be whoever this PEM of a PKCS#8 key and its certificate says (default: see `scone self show`)',
  );
}

export function retries(): Option {
  return new Option('--retries <n>', 'how often to try again where the CAS cannot be reached')
    .env('SCONE_CLI_RETRIES')
    .default(3)
    .argParser((text) => wholeNumber(text, 0, 999));
}

/** A time, in milliseconds since 1970: a date, or a date and time in UTC. */
export function timeOption(flags: string): Option {
  return new Option(flags, 'as of then, as in 2026-04-01T00:00:00Z (default: now)').argParser((text) => {
    const time = Date.parse(text);
    if (/^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z)?$/.test(text) && !Number.isNaN(time)) return time;
    throw new InvalidArgumentError('A date is wanted, or a time such as 2026-04-01T00:00:00Z.');
  });
}

export function logLevel(level: string): Option {
  return new Option('--log-level <level>', 'what is logged on standard error')
    .choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal'])
    .default(level);
}

/** @throws InvalidArgumentError, which commander reports with the option's name */
export function wholeNumber(text: string, least: number, most: number): number {
  if (/^\d{1,6}$/.test(text) && Number(text) >= least && Number(text) <= most) return Number(text);
  throw new InvalidArgumentError(`A number from ${least} to ${most} is wanted.`);
}

/** Parser of an option that may be given several times. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

export function example(...lines: string[]): string {
  return `\nExample:\n${lines.map((line) => `  ${line}`).join('\n')}`;
}
