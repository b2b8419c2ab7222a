import type { Argument, Command, Option } from 'commander';
import { readClientState } from '../protocol/client-state.ts';
import { replaceUnseen } from '../unseen.ts';

/**
 * What is printed to a script in place of candidates where a file is wanted: shells know best how to complete those.
 */
const FILES = ':file';
/** Names in angle brackets that stand for a file or folder, and for an attested CAS. */
const fileNames = /^(file|dir|socket|signer)$/;
const casNames = /^cas$/;

/** `scone completion SHELL`: the script that makes a shell complete `scone`. */
export function completionScript(shell: keyof typeof scripts): string {
  return scripts[shell];
}

/**
 * `scone complete -- WORD…`, which the scripts call: what the last of the words may become, one candidate a line, with
 * what it is about after a tab. A mistake in the words gives nothing, and so does one in a file that is looked at.
 */
export function complete(program: Command, words: readonly string[]): string {
  try {
    return candidates(program, words)
      .map(([text, about]) => `${text}\t${replaceUnseen(about.replace(/\s+/g, ' '), () => '')}\n`)
      .join('');
  } catch {
    return '';
  }
}

type Candidate = [text: string, about: string];

function candidates(program: Command, words: readonly string[]): Candidate[] {
  const last = words.at(-1) ?? '';
  const at = locate(program, words.slice(0, -1));
  if (at.config !== undefined) process.env.SCONE_CLI_CONFIG = at.config;
  const matching = (all: Candidate[]) => all.filter(([text]) => text === FILES || text.startsWith(last));

  if (at.option) return matching(valuesOf(optionValue(at.option), at.option.argChoices));
  if (/^@(?!@)/.test(last)) return [[FILES, '']];
  if (last.startsWith('-') && !at.onlyArguments) {
    const [flag = '', value] = last.split('=', 2);
    const option = value === undefined ? undefined : findOption(at.command, flag);
    if (!option) return matching(optionsOf(at.command));
    return matching(
      valuesOf(optionValue(option), option.argChoices).map(([text, about]) =>
        text === FILES ? [text, about] : [`${flag}=${text}`, about],
      ),
    );
  }
  const visible = at.command.createHelp().visibleCommands(at.command);
  if (visible.length > 0 && at.arguments === 0)
    return matching(visible.map((command) => [command.name(), command.description()]));
  const argument = argumentAt(at.command, at.arguments);
  return argument ? matching(valuesOf(argument.name(), argument.argChoices)) : [];
}

/** Where on the command line the word stands that is to be completed. */
interface Location {
  command: Command;
  /** The option whose value it is. */
  option: Option | undefined;
  /** How many arguments of the command come before it. */
  arguments: number;
  /** After `--`. */
  onlyArguments: boolean;
  /** What `scone -c` was given. */
  config: string | undefined;
}

function locate(program: Command, words: readonly string[]): Location {
  const at: Location = {
    command: program,
    option: undefined,
    arguments: 0,
    onlyArguments: false,
    config: undefined,
  };
  for (const word of words) {
    const { command, option } = at;
    const subcommand = at.onlyArguments ? undefined : command.commands.find((each) => each.name() === word);
    if (option) {
      if (command === program && option.attributeName() === 'config') at.config = word;
      at.option = undefined;
    } else if (word === '--' && !at.onlyArguments) at.onlyArguments = true;
    else if (word.startsWith('-') && !at.onlyArguments) {
      const found = findOption(command, word);
      if (found?.required) at.option = found;
    } else if (subcommand) {
      at.command = subcommand;
      at.arguments = 0;
    } else at.arguments++;
  }
  return at;
}

function findOption(command: Command, flag: string): Option | undefined {
  return command.options.find((option) => option.short === flag || option.long === flag);
}

function optionsOf(command: Command): Candidate[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .map((option) => [option.long ?? option.short ?? '', option.description]);
}

/** What stands in angle brackets in the flags of an option. */
function optionValue({ flags }: Option): string {
  return /[<[]([^\]>]*)/.exec(flags)?.[1] ?? '';
}

function argumentAt({ registeredArguments }: Command, index: number): Argument | undefined {
  const last = registeredArguments.at(-1);
  return registeredArguments[index] ?? (last?.variadic ? last : undefined);
}

function valuesOf(name: string, choices: readonly string[] | undefined): Candidate[] {
  if (choices) return choices.map((choice) => [choice, '']);
  if (fileNames.test(name)) return [[FILES, '']];
  if (!casNames.test(name)) return [];
  const { cas_db } = readClientState(process.env);
  // What a shell could not tell from a file, an option, or another line is typed by hand.
  const isPlain = (cas: string) =>
    cas !== FILES && !cas.startsWith('-') && cas === replaceUnseen(cas, () => '');
  const names = Object.entries(cas_db).filter(([cas]) => isPlain(cas));
  return names.map(([cas, { url }]) => [cas, url]);
}

/**
 * Bash splits words at characters such as = and : as well, and replaces only what comes after the last of them; so the
 * words are put together again, and candidates shortened by what stays. It puts them in as they are, so they are quoted; zsh
 * and fish quote by themselves.
 */
const bash = `# Completion of scone for bash. In ~/.bashrc: source <(scone completion bash)
_scone() {
    local line=\${COMP_LINE:0:COMP_POINT} rest word words=() i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        rest=\${line#"\${line%%[![:space:]]*}"}
        word=\${COMP_WORDS[i]}
        [[ $rest == "$word"* ]] || word=$rest
        if [[ $i == 0 || $rest != "$line" ]]; then words+=("$word"); else words[-1]+=$word; fi
        line=\${rest#"$word"}
    done
    local kept=\${words[-1]%"$2"}
    # As it is meant, where it was quoted here before.
    kept=\${kept//\\\\/} words[-1]=\${words[-1]//\\\\/}
    COMPREPLY=()
    while IFS=$'\\t' read -r word _; do
        if [[ $word != ${FILES} ]]; then
            printf -v word %q "\${word#"$kept"}"
            COMPREPLY+=("$word")
        elif [[ $2 != @* ]]; then
            compopt -o default
        else # Bash would look for a host
            while IFS= read -r word; do
                [[ -d $word ]] && word+=/ && compopt -o nospace
                COMPREPLY+=("@$(printf %q "$word")")
            done < <(compgen -f -- "\${2#@}")
        fi
    done < <(command scone complete -- "\${words[@]:1}" 2>/dev/null)
}
complete -F _scone scone
`;

const zsh = `#compdef scone
# Completion of scone for zsh. In ~/.zshrc, after compinit: source <(scone completion zsh)
_scone() {
    local line files
    local -a texts shown
    for line in "\${(@f)$(command scone complete -- "\${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}"; do
        if [[ $line == ${FILES}* ]]; then
            files=1
        elif [[ -n $line ]]; then
            texts+=("\${line%%$'\\t'*}")
            shown+=("\${line/$'\\t'/  -- }")
        fi
    done
    if [[ -n $files ]]; then
        compset -P '@' || compset -P '--*='
        _files
    else
        compadd -l -d shown -a texts
    fi
}
if [[ $funcstack[1] == _scone ]]; then _scone "$@"; else compdef _scone scone; fi
`;

const fish = `# Completion of scone for fish: scone completion fish > ~/.config/fish/completions/scone.fish
function __scone_complete
    set -l words (commandline -opc)
    set -e words[1]
    set -l word (commandline -ct)
    set -l lines (command scone complete -- $words "$word" 2>/dev/null)
    if string match -q '${FILES}*' -- $lines
        set -l kept (string match -r -- '^(?:@|--[^=]*=)' "$word")
        set -l paths (__fish_complete_path (string replace -r -- '^(?:@|--[^=]*=)' '' "$word"))
        string join \\n -- "$kept"$paths
    else
        string join \\n -- $lines
    end
end
complete -c scone -f -a '(__scone_complete)'
`;

const scripts = { bash, zsh, fish };
