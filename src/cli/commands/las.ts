import { type Command, InvalidArgumentError, Option } from 'commander';
import { properties } from '../../attestation/claims.ts';
import { readMode } from '../../platform/mode.ts';
import { defaultLasSocket } from '../../policy/address.ts';
import { collect, example, logLevel, networked, structured } from '../options.ts';
import { prints, serves } from '../output.ts';

/** `scone las …` */
export function addLas(program: Command): void {
  const las = program.command('las').description('the local attestation service');
  las
    .command('serve')
    .description('run a LAS in the foreground')
    .requiredOption('--dir <dir>', 'keep its key there')
    .option('--socket <socket>', 'Unix socket to listen on', defaultLasSocket)
    .option('--cas <address[=key hash]>', 'tell launchers the key of this CAS (repeatable)', collect)
    .addOption(required())
    .addOption(mode())
    .option('--containers', 'vouch for processes in containers too, where only root can write their code')
    .addOption(logLevel('info'))
    .addHelpText(
      'after',
      example(
        'scone las serve --dir /var/lib/scone --cas cas.example.org=KEYHASH',
        'scone las serve --dir /var/lib/scone --require secure-execution --require root-owned-code',
      ),
    )
    .action(serves(async () => (await import('../serve.ts')).runLas));
  networked(structured(las.command('enrol')))
    .description("make a key in this host's TPM, and have a CAS know it; the LAS then vouches by the TPM")
    .requiredOption('--dir <dir>', 'that of the LAS')
    .addHelpText('after', example('scone las enrol --dir /var/lib/scone'))
    .action(prints(async () => (await import('../enrol.ts')).enrolTpm));
}

function required(): Option {
  const option = new Option(
    '--require <property>',
    'vouch for no process without secure-execution or root-owned-code (repeatable)',
  ).argParser((text, before: string[] = []) => {
    if ((properties as readonly string[]).includes(text)) return [...before, text];
    throw new InvalidArgumentError(`Properties are ${properties.join(' and ')}.`);
  });
  // What a shell completes; checked above, as it may be given several times.
  option.argChoices = [...properties];
  return option;
}

function mode(): Option {
  const option = new Option('--mode <mode>', 'what vouches: hw (or do not start), sim (software), or auto')
    .env('SCONE_MODE')
    .default('auto')
    .argParser((text) => readMode({ SCONE_MODE: text }));
  option.argChoices = ['auto', 'hw', 'sim'];
  return option;
}
