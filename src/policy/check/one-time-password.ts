import { DEFAULT_SIZE } from '../../secrets/generate.ts';
import { parseSharedSecret } from '../../secrets/one-time-password.ts';
import type { Path } from '../problem.ts';
import { isImported } from '../schema/session.ts';
import type { Scope } from './scope.ts';

/** A shared secret is base32, or one variable that stands for a secret which can be one. */
export function checkSharedSecret(scope: Scope, value: string | undefined, path: Path): void {
  if (value === undefined) return;
  const { error, warn } = scope;
  const [only, ...more] = scope.parts(value, path);
  let literal: string | undefined = value;
  if (only && !Buffer.isBuffer(only)) {
    if (more.length > 0) return void error(path, 'expected base32, or one reference to a secret');
    const { name, format } = scope.nameOf(only);
    const secret = scope.secrets.get(name);
    scope.reference(only, path, 'file');
    literal = undefined;
    if (secret && !isImported(secret) && secret.kind === 'binary') {
      if (format !== ':base32nopad') warn(path, `the bytes of ${name} are used; write :base32nopad`);
      const bytes =
        secret.value === undefined ? Number(secret.size ?? DEFAULT_SIZE) : secret.value.length / 2;
      if (bytes < 16) error(path, `${name} has fewer than 16 bytes, too few for one-time passwords`);
    }
    if (secret && !isImported(secret) && secret.kind === 'ascii') {
      literal = secret.value;
      if (literal === undefined)
        error(path, `${name} is generated as any ASCII; for one-time passwords use kind binary, size 20`);
    }
  }
  const parsed = literal === undefined ? undefined : parseSharedSecret(literal);
  if (typeof parsed === 'string') error(path, parsed);
}
