const ASCII = /^\p{ASCII}*$/u

/**
 * `text` as it is compared and searched: NFC, folded character by character so that `A`, `a` and letters with
 * two small forms are one (Unicode §3.13, full case folding; the dotless ı stays itself as it does there).
 * The database's `lower` under locale C would fold ASCII only.
 */
export function foldCase(text: string): string {
  if (ASCII.test(text)) return text.toLowerCase()
  const folded = Array.from(text.normalize('NFC'), (character) =>
    // First to lower case: the capital ẞ has no capital of its own to become the SS that ß becomes.
    character === 'ı' ? character : character.toLowerCase().toUpperCase().toLowerCase(),
  )
  return folded.join('').normalize('NFC')
}

/** `email` as it is compared: without surrounding space and regard to case. */
export const normalizeEmail = (email: string): string => foldCase(email.trim())

/**
 * Whether mail to the two arrives at one mailbox: nothing but the case of ASCII letters differs. `straße.de` and
 * `strasse.de` compare as one email, and are two domains (UTS 46 §4).
 */
export const isSameMailbox = (one: string, other: string): boolean => lowerAscii(one) === lowerAscii(other)

const lowerAscii = (text: string): string =>
  text.trim().replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase())
