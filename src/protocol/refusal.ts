import * as v from 'valibot';
import { causes, Failure } from '../errors.ts';
import { replaceUnseen } from '../unseen.ts';

/** Characters of a message. */
const LONGEST = 8192;
const line = v.pipe(v.string(), v.maxLength(LONGEST));

/** How a server says no: the code of the error, and its messages, outermost first. */
export const refusal = v.object({
  refusal: v.object({
    code: v.pipe(v.string(), v.maxLength(64)),
    messages: v.pipe(v.array(line), v.minLength(1), v.maxLength(16)),
    hint: v.optional(line),
  }),
});
export type Refusal = v.InferOutput<typeof refusal>;

/** What is sent of an error: all of a declared one; of any other only that something failed. */
export function toRefusal(error: unknown): Refusal {
  if (error instanceof Failure)
    return {
      refusal: {
        code: error.code,
        messages: causes(error).map((message) => message.slice(0, LONGEST)),
        hint: error.hint.slice(0, LONGEST),
      },
    };
  return { refusal: { code: 'INTERNAL', messages: ['an error of the server itself; its log says more'] } };
}

/** A server's refusal as an error again; its text is shown, never interpreted. */
export class Refused extends Error {
  override name = 'Refused';
  /** One of a newer version may be none that is declared here. */
  readonly code: string;
  readonly hint: string | undefined;

  constructor({ refusal: { code, messages, hint } }: Refusal) {
    const [first, ...rest] = messages;
    const cause = rest.reduceRight<Error | undefined>(
      (inner, message) => new Error(message, inner && { cause: inner }),
      undefined,
    );
    super(first, cause && { cause });
    this.code = CODE.test(code) ? code : 'INTERNAL';
    this.hint = hint;
  }
}

const CODE = /^[A-Z][A-Z0-9_]{0,63}$/;

/** A line for a terminal, without what text from outside may hold that is not seen, or makes other text look otherwise. */
export function printable(text: string): string {
  return replaceUnseen(text.replaceAll('\n', '; '), () => '\ufffd');
}
