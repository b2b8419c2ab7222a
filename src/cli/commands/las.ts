import type { Command } from 'commander';
import { defaultLasSocket } from '../../policy/address.ts';
import { collect, example, logLevel } from '../options.ts';
import { serves } from '../output.ts';

/** `scone las …` */
export function addLas(program: Command): void {
  program
    .command('las')
    .description('the local attestation service')
    .command('serve')
    .description('run a LAS in the foreground')
    .requiredOption('--dir <dir>', 'keep its key there')
    .option('--socket <socket>', 'Unix socket to listen on', defaultLasSocket)
    .option('--cas <address[=key hash]>', 'tell launchers the key of this CAS (repeatable)', collect)
    .addOption(logLevel('info'))
    .addHelpText('after', example('scone las serve --dir /var/lib/scone --cas cas.example.org=KEYHASH'))
    .action(serves(async () => (await import('../serve.ts')).runLas));
}
