import type { Command } from 'commander';
import { example, networked, structured } from '../options.ts';
import { prints } from '../output.ts';

/** `scone launch …` */
export function addLaunch(program: Command): void {
  const launch = program.command('launch').description('what envcas does with what it is given');
  networked(structured(launch.command('plan')))
    .description('say what a launch of a service would do, and where everything comes from')
    .argument('<session/service>', 'the service, as in SCONE_CONFIG_ID')
    .addHelpText('after', example('scone launch plan demo/web'))
    .action(prints(async () => (await import('../launch/plan.ts')).planLaunch));
  structured(launch.command('schema'))
    .description('print the JSON Schema of /etc/envcas/config.yaml, with which editors complete and check it')
    .addHelpText('after', example('scone launch schema -o envcas.schema.json'))
    .action(prints(async () => (await import('../launch/schema.ts')).showLauncherSchema));
}
