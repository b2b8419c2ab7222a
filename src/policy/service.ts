import type { Service, Session } from './schema/session.ts';

/** The shared secret of the one-time passwords that a service asks for, where the session's text says so. */
export function oneTimePasswordReference(session: Session, service: Service): string | undefined {
  const { security } = session;
  const attestation = typeof security === 'string' ? security : security.attestation;
  return (
    service.one_time_password_shared_secret ??
    variantsOf(service).find((variant) => variant.one_time_password_shared_secret !== undefined)
      ?.one_time_password_shared_secret ??
    (typeof attestation === 'string' ? undefined : attestation.one_time_password_shared_secret)
  );
}

/** The variants of a service's attestation that are written out, not variables. */
export function variantsOf({ attestation }: Service) {
  if (typeof attestation === 'string') return [];
  return attestation.filter((variant) => typeof variant !== 'string');
}
