import { type Failure, failure } from '../errors.ts';
import type { LauncherConfiguration } from '../policy/schema/launcher.ts';
import { LAUNCHER_CONFIGURATION_PATH } from '../policy/schema/launcher.ts';
import type { Image, Service } from '../policy/session.ts';
import type { SessionVersion } from './versions.ts';

type InjectedFile = Image['injection_files'][number];

/** The files of a service's image, and what becomes of them. */
export interface Injection {
  image: Image | undefined;
  /** What the policy has the launcher do; undefined where that is not for the policy to say. */
  launcher: LauncherConfiguration | undefined;
  /** Files that the launcher is given. One that it will not write is not, and so neither are the secrets in it. */
  files: InjectedFile[];
  /** Why the service is not launched, whoever asks. */
  refusal: Failure | undefined;
}

export function injectionOf({ session, launchers }: SessionVersion, service: Service): Injection {
  const image = session.images.find(({ name }) => name === service.image_name);
  const injected = image?.injection_files ?? [];
  const launcher = launchers.get(image?.name ?? '');
  const written = new Set(launcher?.injection_files.map(({ from }) => from));
  const files = launcher ? injected.filter(({ path }) => written.has(path)) : injected;
  const needsVolumes =
    (image?.volumes.length ?? 0) > 0 || service.fspf_path !== undefined || service.fspf_key !== undefined;
  // Else the launcher would read the host's own, and the host would choose the program.
  const isMisunderstood =
    !launcher &&
    injected.some(({ path, content }) => path === LAUNCHER_CONFIGURATION_PATH && content !== undefined);
  const refusal = needsVolumes
    ? failure('NOT_SUPPORTED', { what: 'mounting volumes and protected file systems' })
    : isMisunderstood
      ? failure('POLICY_UNUSABLE', {
          section: LAUNCHER_CONFIGURATION_PATH,
          detail: 'it is not understood; upload the session again',
        })
      : undefined;
  return { image, launcher, files, refusal };
}
