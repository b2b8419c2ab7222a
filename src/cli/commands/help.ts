import type { Command } from 'commander';
import { failure } from '../../errors.ts';
import { version } from '../../version.ts';
import { example, structured } from '../options.ts';
import { prints } from '../output.ts';

/** `scone version` and `scone help` */
export function addVersionAndHelp(program: Command): void {
  structured(program.command('version'))
    .description('print the version')
    .action(prints(async () => () => ({ text: `${version}\n`, json: { version } })));
  program
    .helpCommand(false)
    .command('help')
    .description('say how a command is used')
    .usage('[command...]')
    .argument('[command...]')
    .addHelpText('after', example('scone help cas attest'))
    .action((words: string[]) => {
      const command = words.reduce((at: Command, word) => {
        const found = at.commands.find((each) => each.name() === word);
        if (!found)
          throw failure('USAGE', { detail: `there is no command ${JSON.stringify(words.join(' '))}` });
        return found;
      }, program);
      command.outputHelp();
    });
}
