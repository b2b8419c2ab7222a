import type { Command } from 'commander';
import { structured } from '../options.ts';
import { prints } from '../output.ts';

/** `scone self …` */
export function addSelf(program: Command): void {
  const self = program.command('self').description("the user's own identity, made on first use");
  const load = () => import('../self.ts');
  structured(self.command('show'))
    .description('print key hash and certificate')
    .action(prints(async () => (await load()).showSelf));
  structured(self.command('show-key-hash'))
    .description('print the key hash, as it stands in the access_policy of a session')
    .action(prints(async () => (await load()).showOwnKeyHash));
  structured(self.command('show-certificate'))
    .description('print the certificate as PEM')
    .action(prints(async () => (await load()).showOwnCertificate));
  structured(self.command('show-certificate-hash'))
    .description('print the SHA-256 of the certificate (deprecated: use show-key-hash)')
    .action(prints(async () => (await load()).showOwnCertificateHash));
  structured(self.command('show-session-signing-key'))
    .description('print the public key that goes with signed sessions (Ed25519) as PEM')
    .action(prints(async () => (await load()).showSigningKey));
}
