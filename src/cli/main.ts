import { Command, CommanderError, Option } from 'commander';
import { failure } from '../errors.ts';
import { version } from '../version.ts';
import { expandArguments } from './arguments.ts';
import { addCas } from './commands/cas.ts';
import { addCert } from './commands/cert.ts';
import { addCompletion } from './commands/completion.ts';
import { addEvidence } from './commands/evidence.ts';
import { addVersionAndHelp } from './commands/help.ts';
import { addLas } from './commands/las.ts';
import { addLaunch } from './commands/launch.ts';
import { addOtp } from './commands/otp.ts';
import { addSelf } from './commands/self.ts';
import { addSession } from './commands/session.ts';
import { addUp } from './commands/up.ts';
import { leaveOutCommands } from './left-out.ts';
import { print } from './output.ts';
import { report, reportInJson } from './report.ts';

/** The exit status of printing help. */
let helped = Promise.resolve(0);

/**
 * scone: the command for people, and the two servers. Each group of commands has a file in commands/, which says how they
 * are used; what they do is brought in when one is called. The name in the brackets of an option or argument says what
 * completion offers for it: <file>, <dir>, <socket> and <signer> a path, <cas> an attested CAS.
 */
const program = new Command('scone')
  .description('Sessions, CAS and LAS: everything around envcas.')
  .usage('[options] <command> …')
  .version(version, '-V, --version', 'print the version')
  .helpOption('-h, --help', 'say how a command is used')
  .option(
    '-c, --config <file>',
    'keep identity and attested CASes there (default: $SCONE_CLI_CONFIG or ~/.cas/config.json)',
  )
  .option('-o, --output <file>', 'print to this file, made with mode 0600, once the command has succeeded')
  .addHelpText(
    'after',
    `
An argument @FILE stands for the arguments in FILE, one a line, and @@… for an argument that begins with @.
With --json, warnings and errors are JSON as well, one object a line on standard error.`,
  )
  // `-c` before a command is another one than after it.
  .enablePositionalOptions()
  .exitOverride()
  .configureOutput({
    outputError: () => {},
    writeOut: (text) => {
      helped = print(text).then(() => 0, report);
    },
  })
  .hook('preAction', () => {
    const { config } = program.opts<{ config?: string }>();
    if (config === '') throw failure('USAGE', { detail: '--config takes a file' });
    if (config !== undefined) process.env.SCONE_CLI_CONFIG = config;
  });

addUp(program);
addCas(program);
addLas(program);
addSession(program);
addLaunch(program);
addOtp(program);
addSelf(program);
addCert(program);
addEvidence(program);
addCompletion(program);
addVersionAndHelp(program);
everyCommand(program, (command) => command.addOption(new Option('-o, --output <file>').hideHelp()));
leaveOutCommands(program);
void main();

function everyCommand(command: Command, change: (command: Command) => void): void {
  for (const each of command.commands) {
    if (each.commands.length === 0) change(each);
    else everyCommand(each, change);
  }
}

async function main(): Promise<void> {
  const given = process.argv.slice(2);
  try {
    // The words of a line that is being completed are not arguments yet.
    const args = given[0] === 'complete' ? given : expandArguments(given);
    const end = args.indexOf('--');
    if (args.slice(0, end < 0 ? undefined : end).includes('--json')) reportInJson();
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    process.exitCode = statusOf(error) || (await helped);
  }
}

/** Reports an error, except where commander has printed help instead. */
function statusOf(error: unknown): number {
  if (!(error instanceof CommanderError)) return report(error);
  const EX_USAGE = 64;
  if (error.code === 'commander.help') return EX_USAGE;
  if (error.exitCode === 0) return 0;
  const detail = error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ');
  return report(failure('USAGE', { detail }, error.cause));
}
