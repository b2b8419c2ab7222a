import type { Command } from 'commander';
import { defaultPorts } from '../../policy/address.ts';
import { example, logLevel } from '../options.ts';
import { serves } from '../output.ts';

/** `scone up` */
export function addUp(program: Command): void {
  program
    .command('up')
    .description('run a CAS and a LAS for this machine in the foreground')
    .option('--dir <dir>', 'keep everything there (default: $XDG_STATE_HOME/scone or ~/.local/state/scone)')
    .option(
      '--free-ports',
      `listen on any free ports instead of ${defaultPorts.api} and ${defaultPorts.enclave}`,
    )
    .addOption(logLevel('error'))
    .addHelpText(
      'after',
      example(
        'scone up &',
        'until [ -s ~/.local/state/scone/env ]; do sleep 0.1; done',
        '. ~/.local/state/scone/env',
      ),
    )
    .action(serves(async () => (await import('../serve.ts')).up));
}
