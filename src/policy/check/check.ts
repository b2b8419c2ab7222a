import type { Session } from '../schema/session.ts';
import type { YamlText } from '../yaml.ts';
import { checkImages } from './images.ts';
import { createScope, type Findings, type Scope } from './scope.ts';
import { checkSecrets } from './secrets.ts';
import { checkSecurity } from './security.ts';
import { checkServices } from './services.ts';

/** What the schema of single values cannot see: references, duplicates, combinations. */
export function check(session: Session, yaml: YamlText): Findings {
  const { scope, findings } = createScope(session, yaml);
  for (const key of ['services', 'images', 'secrets', 'volumes'] as const) checkUnique(scope, key);
  checkSecrets(scope);
  checkSecurity(scope);
  checkImages(scope);
  checkServices(scope);
  return findings;
}

function checkUnique({ session, error }: Scope, key: 'services' | 'images' | 'secrets' | 'volumes'): void {
  const seen = new Set<string>();
  session[key].forEach(({ name }, index) => {
    if (seen.has(name)) error([key, index, 'name'], `there are two ${key} of the name ${name}`);
    seen.add(name);
  });
}
