import { Argument, type Command } from 'commander';
import { prints } from '../output.ts';

/** `scone completion`, and what its scripts call */
export function addCompletion(program: Command): void {
  const load = () => import('../completion.ts');
  program
    .command('completion')
    .description('print the script that makes a shell complete scone')
    .addArgument(new Argument('<shell>').choices(['bash', 'zsh', 'fish']))
    .addHelpText(
      'after',
      `
In ~/.bashrc:                 source <(scone completion bash)
In ~/.zshrc, after compinit:  source <(scone completion zsh)
Once, for fish:               scone completion fish > ~/.config/fish/completions/scone.fish`,
    )
    .action(prints(async () => (await load()).completionScript));
  program
    .command('complete', { hidden: true })
    .argument('[words...]')
    .action(
      prints(async () => {
        const { complete } = await load();
        return (words: string[]) => complete(program, words);
      }),
    );
}
