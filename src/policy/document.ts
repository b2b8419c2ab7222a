import { Composer, CST, type Document, Lexer, Parser } from 'yaml';
import { MOST_PROBLEMS } from './problem.ts';

/**
 * What a text may cost: characters, tokens (a line `key: value` has up to 8), values (what aliases stand for counts
 * each time) and nesting.
 */
export const limits = { characters: 4 * 1024 * 1024, tokens: 300_000, values: 100_000, depth: 64 } as const;

/**
 * The document of a text, with its places.
 * @param fail is told of the first syntax error, after which places are guesses, and of a text that would take more
 *   time, memory or call stack than any session is worth
 */
export function parseDocument(
  text: string,
  fail: (offset: number, message: string) => never,
): Document.Parsed {
  const parser = new Parser();
  let firstError: { offset: number; message: string } | undefined;
  let errors = 0;
  const countError = (offset: number, message: string) => {
    firstError ??= { offset, message };
    if (++errors > MOST_PROBLEMS) fail(firstError.offset, withoutQuotes(firstError.message));
  };
  const tokens = function* () {
    let lexemes = 0;
    let before = '';
    for (const lexeme of new Lexer().lex(text)) {
      if (++lexemes > limits.tokens) fail(parser.offset, `more than ${limits.tokens} tokens`);
      if (lexeme[0] === '"' && before !== CST.SCALAR) countErrorsIn(lexeme, parser.offset, countError);
      for (const token of parser.next(lexeme)) {
        if (token.type === 'error') countError(token.offset, token.message);
        yield token;
      }
      // Aliases have yet to be followed; this keeps what looks at the nodes from filling the call stack.
      if (parser.stack.length > 2 * limits.depth) fail(parser.offset, TOO_DEEP);
      before = lexeme;
    }
    yield* parser.end();
  };
  const options = {
    prettyErrors: false,
    // Checked by readYaml: the library compares every key with every other.
    uniqueKeys: false,
  };
  const [document, another] = new Composer(options).compose(tokens(), true, text.length);
  const [syntaxError] = document?.errors ?? [];
  if (syntaxError) fail(syntaxError.pos[0], withoutQuotes(syntaxError.message));
  if (another) fail(another.range[0], 'there are multiple documents, expected one');
  return document ?? fail(0, 'there is no document');
}

/** Tells of every error inside a double-quoted text, of which it may have as many as characters. */
function countErrorsIn(
  source: string,
  offset: number,
  count: (offset: number, message: string) => void,
): void {
  CST.resolveAsScalar(
    { type: 'double-quoted-scalar', source, offset, indent: 0, end: [] },
    true,
    (at, _, message) => count(at, message),
  );
}

export const TOO_DEEP = `nested deeper than ${limits.depth} levels`;

/** What the parser says, less what it quotes of the text, which may be a secret. */
function withoutQuotes(message: string): string {
  return message.replace(/\s+/g, ' ').replace(/(?<=\S): .*$|(?<=escape sequence) .*$|"[^"]*"/g, '');
}
