import { type Command, Option } from 'commander';
import { type Failure, failure } from '../errors.ts';

/** Commands that others of this name have and this one has not, and why. */
const commands: [names: string[], why: string][] = [
  [
    ['las probe', 'las show-tcb-state', 'las provision-pck-certificate', 'las scone-epid-trust-anchor'],
    '`scone las serve` says which hardware it found, `scone evidence verify` what a quote proves',
  ],
  [
    ['fspf', 'binary-fs'],
    'a program uses the files of its host as they are; files with secrets are written by envcas',
  ],
  [
    ['signer'],
    'executables are not signed; a launcher is known by its measurement, which SCONE_HASH=1 envcas prints',
  ],
  [
    ['cargo', 'g++', 'gcc', 'gccgo', 'gdb', 'gfortran', 'rustc'],
    'programs are built and debugged with the tools of their language, as they are',
  ],
  [['cas session'], 'it is called `scone session`'],
  [['help-markdown'], '`scone help` prints plain text'],
];

/** Makes what is left out say so when it is called. Neither help nor completion offers it. */
export function leaveOutCommands(program: Command): void {
  for (const [names, why] of commands)
    for (const words of names.map((name) => name.split(' '))) {
      const name = words.pop() ?? '';
      const group = words.reduce(
        (at, word) => at.commands.find((each) => each.name() === word) ?? at,
        program,
      );
      group
        .command(name, { hidden: true })
        .description(`Not part of this version: ${why}.`)
        .argument('[arguments...]')
        .allowUnknownOption()
        .helpOption(false)
        .action(() => {
          throw leftOut(['scone', ...words, name].join(' '), why);
        });
    }
  const names = commands.flatMap(([each]) => each).join(', ');
  program.addHelpText('after', `\nNot part of this version, each says why: ${names}`);
}

/** Takes options that others of this name have, only to say why this command has them not. */
export function leaveOutOptions(command: Command, rows: readonly [flags: string, why: string][]): void {
  const options = rows.map(([flags, why]) => ({ why, option: new Option(flags).hideHelp() }));
  for (const { option } of options) command.addOption(option);
  const names = options.map(({ option }) => option.long ?? option.short).join(', ');
  command
    .addHelpText('after', `\nNot part of this version, each says why: ${names}`)
    .hook('preAction', () => {
      for (const { why, option } of options)
        if (command.getOptionValue(option.attributeName()) !== undefined)
          throw leftOut(`the option ${option.long ?? option.short}`, why);
    });
}

function leftOut(what: string, why: string): Failure {
  return failure('NOT_SUPPORTED', { what }, new Error(why));
}
