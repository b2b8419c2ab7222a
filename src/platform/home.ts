import { userInfo } from 'node:os';

/** The home folder of a user: HOME, else as the system knows it, else / as for a user of a container. */
export function homeFolder(env: NodeJS.ProcessEnv): string {
  if (env.HOME) return env.HOME;
  try {
    return userInfo().homedir;
  } catch {
    return '/';
  }
}
