/** The two ways in which a policy admits something from the host: arguments `@@N` and variables `\@\@NAME`. */

/** A piece of an argument: text as it is, or the place of a host argument, counted from 1. */
export type ArgumentPart = string | { argument: number };

/** Takes a word of a command apart at `@@N`. */
export function parseHostArguments(word: string): ArgumentPart[] {
  const parts: ArgumentPart[] = [];
  let from = 0;
  for (const match of word.matchAll(/@@([1-9][0-9]{0,8})(?![0-9])/g)) {
    if (match.index > from) parts.push(word.slice(from, match.index));
    parts.push({ argument: Number(match[1]) });
    from = match.index + match[0].length;
  }
  if (from < word.length || parts.length === 0) parts.push(word.slice(from));
  return parts;
}

/**
 * Name of the host variable that a key of `environment` admits, or undefined for a variable of the policy.
 * The key is written `\@\@NAME`, since YAML lets no unquoted text begin with `@`; `"@@NAME"` means the same.
 */
export function hostVariable(key: string): string | undefined {
  return /^(?:\\@\\@|@@)(.+)$/s.exec(key)?.[1];
}
