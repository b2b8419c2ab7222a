/**
 * What text from outside may hold that is not seen, or makes other text look otherwise: control, format, private and
 * unassigned characters, ends of lines, and what is drawn as nothing (Unicode Standard §4.5 and §5.21).
 */
const unseen = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;
/** The same but tabs and ends of lines. */
const unseenInLines = /(?!\r?\n|\t)[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** Puts something else in the place of each such character. */
export function replaceUnseen(text: string, replacement: (character: string) => string): string {
  return text.replace(unseen, replacement);
}

/** Lines with such characters as JSON escapes them, so that JSON keeps its meaning. */
export function escapeUnseen(text: string): string {
  return text.replace(unseenInLines, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}
