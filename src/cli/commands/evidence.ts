import type { Command } from 'commander';
import { collect, example, structured, timeOption } from '../options.ts';
import { prints } from '../output.ts';

const FILE = 'a quote of SGX, TDX or a TPM, a report of SEV-SNP or Azure; - for standard input';

/** `scone evidence …` */
export function addEvidence(program: Command): void {
  const evidence = program.command('evidence').description('quotes and reports that hardware makes');
  withFiles(structured(evidence.command('verify')))
    .description('verify Evidence, and say what a policy would have to tolerate to admit it')
    .argument('<file>', FILE)
    .option(
      '--collateral <file>',
      'what the maker of the hardware publishes, or a folder of it (repeatable)',
      collect,
    )
    .addOption(timeOption('--at <time>'))
    .addHelpText(
      'after',
      `
Collateral is certificates (PEM, DER), revocation lists, TCB information and identities of enclaves (JSON): whatever is
needed is found in it. It exits with 0 where the Evidence is genuine, whatever its platform lacks.
${example('scone evidence verify quote.bin --collateral collateral/', 'scone evidence verify q.msg --signature q.sig --key ak.pem')}`,
    )
    .action(prints(async () => (await import('../evidence/verify.ts')).verifyEvidenceFile));
  structured(evidence.command('show'))
    .description('print Evidence field by field, without verifying it')
    .argument('<file>', FILE)
    .addHelpText('after', example('scone evidence show quote.bin'))
    .action(prints(async () => (await import('../evidence/show.ts')).showEvidenceFile));
}

/** What some kinds of Evidence come with. */
function withFiles(command: Command): Command {
  return command
    .option('--signature <file>', "of a TPM: the quote's signature")
    .option('--key <file>', 'of a TPM: its attestation key, PEM or TPM2B_PUBLIC')
    .option('--pcrs <file>', 'of a TPM: the registers, one after the other')
    .option('--event-log <file>', 'of a TPM: what was measured at boot')
    .option('--quote <file>', 'of a machine with TDX on Azure: its quote');
}
