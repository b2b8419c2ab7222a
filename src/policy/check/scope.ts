import { formatOf, formatsOf } from '../../secrets/kinds.ts';
import {
  type Part,
  parseTemplate,
  type Reference,
  splitReference,
  TemplateError,
} from '../../secrets/substitute.ts';
import { nearest } from '../nearest.ts';
import { didYouMean, MOST_PROBLEMS, type Path, type Problem } from '../problem.ts';
import type { SecretDefinition, Session } from '../schema/session.ts';
import type { YamlText } from '../yaml.ts';

/** What was found in a session. */
export interface Findings {
  errors: Problem[];
  /** What its author may not have meant. */
  warnings: Problem[];
  /** What the language has and a CAS of this version does not do. */
  unsupported: Problem[];
}

/** Where a variable stands: in an argument or variable, in a file, or in what the CAS itself reads. */
export type Place = 'text' | 'file' | 'policy';

/** A session that is being looked at, with what the checks of its parts have in common. */
export interface Scope {
  session: Session;
  /** Undefined where it is said by a variable, and so known only when it is used. */
  security: Exclude<Session['security'], string> | undefined;
  attestation: Exclude<Exclude<Session['security'], string>['attestation'], string> | undefined;
  secrets: ReadonlyMap<string, SecretDefinition>;
  /** @param meant gives a guess; not asked once there are enough errors, since guessing takes long */
  error(path: Path, message: string, meant?: () => string | undefined): void;
  warn(path: Path, message: string): void;
  /** Something that is understood and not done. */
  refuse(path: Path, what: string): void;
  /** Whether no more errors are taken. */
  isFull(): boolean;
  noSecret(path: Path, name: string): void;
  /** Takes a template apart, or tells that it is malformed. */
  parts(template: string, path: Path): Part[];
  reference(reference: Reference, path: Path, place: Place): void;
  template(template: string | null | undefined, path: Path, place: Place): void;
  /** Every text in a part of a policy, however deep. */
  values(value: unknown, path: Path): void;
  nameOf(reference: Reference): { name: string; format: string };
}

export function createScope(session: Session, yaml: YamlText): { scope: Scope; findings: Findings } {
  const findings: Findings = { errors: [], warnings: [], unsupported: [] };
  const { errors, warnings, unsupported } = findings;
  const secrets = new Map(session.secrets.map((secret) => [secret.name, secret]));
  const security = typeof session.security === 'string' ? undefined : session.security;
  const scope: Scope = {
    session,
    security,
    attestation: typeof security?.attestation === 'string' ? undefined : security?.attestation,
    secrets,
    error(path, message, meant) {
      if (!scope.isFull()) errors.push({ ...yaml.problem(path, message), ...didYouMean(meant?.()) });
    },
    warn(path, message) {
      if (warnings.length < MOST_PROBLEMS) warnings.push(yaml.problem(path, message, 'warning'));
    },
    refuse(path, what) {
      if (unsupported.length < MOST_PROBLEMS)
        unsupported.push(yaml.problem(path, `${what}: a CAS of this version takes no such session`));
    },
    isFull: () => errors.length >= MOST_PROBLEMS,
    noSecret(path, name) {
      const guess = () => nearest(name, secrets.keys());
      scope.error(path, `there is no secret ${JSON.stringify(name)} in this session`, guess);
    },
    parts(template, path) {
      try {
        return parseTemplate(Buffer.from(template));
      } catch (thrown) {
        if (!(thrown instanceof TemplateError)) throw thrown;
        scope.error(path, thrown.message);
        return [];
      }
    },
    nameOf: ({ text }) => splitReference(text, (name) => secrets.has(name)),
    reference(reference, path, place) {
      const { name, format } = scope.nameOf(reference);
      const secret = secrets.get(name);
      if (!secret) return void scope.noSecret(path, name);
      // The kind of an imported secret may be unknown here.
      if (secret.kind === undefined) return;
      const found = formatOf(secret.kind, format);
      if (!found) {
        const known = formatsOf(secret.kind).map((it) => it || '(none)');
        const has = `which has no format ${format || '(none)'}; it has: ${known.join(' ')}`;
        scope.error(path, `${name} is of kind ${secret.kind}, ${has}`);
      } else if (found.raw && (place === 'text' || reference.escape))
        scope.error(
          path,
          `raw bytes cannot stand in an argument, variable or JSON; add a format such as :hex to ${name}`,
        );
    },
    template(template, path, place) {
      for (const part of scope.parts(template ?? '', path))
        if (!Buffer.isBuffer(part)) scope.reference(part, path, place);
    },
    values(value, path) {
      if (typeof value === 'string') scope.template(value, path, 'policy');
      else if (typeof value === 'object' && value !== null)
        for (const [key, item] of Object.entries(value))
          scope.values(item, [...path, Array.isArray(value) ? Number(key) : key]);
    },
  };
  return { scope, findings };
}
