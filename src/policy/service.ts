import type { Service, Session } from './schema.ts';

/** The shared secret of the one-time passwords that a service asks for: its own, else the session's. */
export function oneTimePasswordReference(session: Session, service: Service): string | undefined {
  return (
    service.one_time_password_shared_secret ??
    service.attestation.find((variant) => variant.one_time_password_shared_secret !== undefined)
      ?.one_time_password_shared_secret ??
    session.security.attestation.one_time_password_shared_secret
  );
}

/** Measurements of the launcher that a service admits, lower-case hexadecimal. */
export function admittedMeasurements(service: Service): string[] {
  return [...service.mrenclaves, ...service.attestation.flatMap(({ mrenclave }) => mrenclave)];
}
