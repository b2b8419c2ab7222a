import * as v from 'valibot';
import { hex, list, object, oneOf, oneOrMany, text, textOr } from '../shapes.ts';
import { exportTarget, importerHash, sharingProblem } from './sharing.ts';
import { absolutePath, described, imageName, name, referenceOr, sessionReference } from './values.ts';

/** `images` and `volumes`: the files of services. */

const volumePolicy = described(
  oneOf('rollback_protected', 'ephemeral', 'no_rollback_protection'),
  'Whether an older state is refused, or changes are not kept',
);

const permission = v.pipe(
  text,
  v.regex(/^0?o?[0-7]{3,4}$/, 'expected a mode such as 0o700'),
  v.transform((mode) => `0o${mode.replace(/^0?o?/, '')}`),
);

const fileWithContent = object({
  path: described(absolutePath, 'Path under which the file is injected'),
  content: v.optional(described(text, 'Content, with variables; absent: a template on the launcher’s host')),
  permission: v.optional(described(permission, 'Mode of the injected file, such as 0o700')),
});
const filePath = v.pipe(
  absolutePath,
  v.transform((path): v.InferOutput<typeof fileWithContent> => ({ path })),
);

export const image = object({
  name: described(imageName, 'Named by image_name of services'),
  volumes: v.optional(
    described(
      list(
        object({
          name: described(name, 'Name of the volume, below in volumes'),
          path: described(absolutePath, 'Where it is mounted'),
          update_policy: v.optional(volumePolicy),
        }),
      ),
      'Volumes of the service',
    ),
    [],
  ),
  injection_files: v.optional(
    described(
      list(
        textOr(filePath, fileWithContent) as v.GenericSchema<unknown, v.InferOutput<typeof fileWithContent>>,
      ),
      'Files that the launcher is given',
    ),
    [],
  ),
  provide_secrets: v.optional(described(list(name), 'Secrets that templates on the launcher’s host may use')),
});

export const volume = v.pipe(
  object({
    name: described(name, 'Named by the volumes of images'),
    fspf_key: v.optional(described(referenceOr(hex(64)), 'Key of the volume; absent: made at first use')),
    fspf_tag: v.optional(described(hex(32), 'Tag of the state that the volume must have')),
    files: v.optional(
      described(oneOf('encrypted', 'authenticated-only'), 'How its files are kept; default: encrypted'),
    ),
    export: v.optional(
      described(
        oneOrMany(
          textOr(
            sharingProblem,
            object({
              to: v.optional(
                described(textOr(sharingProblem, exportTarget), 'The session that may import it'),
              ),
              session: v.optional(described(sessionReference, 'The session that may import it')),
              session_hash: v.optional(importerHash),
              update_policy: v.optional(volumePolicy),
              volume_alias: v.optional(described(name, 'Its name for the importer')),
            }),
          ),
        ),
        'Sessions that may import the volume',
      ),
    ),
    import: v.optional(
      described(
        object({
          session: described(sessionReference, 'The session that exports the volume'),
          volume: described(name, 'Its name there'),
          session_hash: v.optional(described(hex(64), 'The version that the other session must have')),
        }),
        'Where the volume comes from',
      ),
    ),
  }),
  v.check(
    (it) =>
      it.import === undefined ||
      (it.fspf_key === undefined && it.fspf_tag === undefined && it.export === undefined),
    'an imported volume has no key, tag or export of its own',
  ),
);
