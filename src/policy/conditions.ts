import type { Session } from './session.ts';

/** All of a session that is filled in where it is decided who is admitted, as a text. */
export function conditionsOf({ security, services }: Pick<Session, 'security' | 'services'>): string {
  const conditions = services.map(
    ({ attestation, mrenclaves, platforms, one_time_password_shared_secret }) => [
      ...[attestation, mrenclaves, platforms, one_time_password_shared_secret],
    ],
  );
  return JSON.stringify([security, conditions]);
}

/** What a text refers to, also one that is not well formed. */
export function* referencesIn(text: string): Generator<string> {
  for (const [, reference = ''] of text.matchAll(/\$\$(?:SCONE|PALAEMON)::([^$|]{1,1024})/g)) yield reference;
}
