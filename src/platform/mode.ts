import { failure } from '../errors.ts';

/** What SCONE_MODE asks for: Evidence from hardware or none, by software alone, or what there is. */
export type Mode = 'auto' | 'hw' | 'sim';

/** @throws Failure SETTING_MALFORMED */
export function readMode(env: NodeJS.ProcessEnv): Mode {
  const written = (env.SCONE_MODE || 'auto').toLowerCase();
  if (written === 'auto' || written === 'hw' || written === 'sim') return written;
  throw failure('SETTING_MALFORMED', { name: 'SCONE_MODE', detail: 'expected hw, sim or auto' });
}
