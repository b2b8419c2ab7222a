import type { Command } from 'commander';
import { example, structured } from '../options.ts';
import { prints } from '../output.ts';

/** `scone cert …` */
export function addCert(program: Command): void {
  structured(program.command('cert').description('certificates and public keys').command('show-key-hash'))
    .description('print the key hash of a certificate or public key')
    .argument('<file>', 'PEM, of a chain the first counts; - for standard input')
    .addHelpText('after', example('scone cert show-key-hash client.pem'))
    .action(prints(async () => (await import('../cert.ts')).showKeyHash));
}
