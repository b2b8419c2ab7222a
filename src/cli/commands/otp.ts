import type { Command } from 'commander';
import { example, networked, structured } from '../options.ts';
import { prints } from '../output.ts';

/** `scone otp …` */
export function addOtp(program: Command): void {
  const otp = program.command('otp').description('one-time passwords');
  networked(structured(otp.command('show')))
    .description('show the secret of the one-time passwords of a service, for an authenticator app')
    .argument('<session/service>', 'the service, as in SCONE_CONFIG_ID')
    .option('--svg', 'print its QR code as SVG instead')
    .addHelpText(
      'after',
      example('scone otp show demo/with_otp', 'scone otp show demo/with_otp --svg -o otp.svg'),
    )
    .action(prints(async () => (await import('../otp.ts')).showOneTimePassword));
}
