import { readFileSync } from 'node:fs'
import { foldCase } from '../case-folding.ts'
import { type HashedSet, readHashedSet } from './hashed-set.ts'

/** Common and breached passwords, as seeds/passwords/generate.ts made them. */
const FILE = new URL('../../seeds/passwords/common.bin', import.meta.url)

/** No password may be shorter, with whatever configuration (SP 800-63B-4 §3.1.1.2). */
export const SHORTEST_PASSWORD = 8

export type Blocklist = ReturnType<typeof createBlocklist>

/** `password` as it is compared: spellings and case make no other one. */
export const comparable = (password: string): string => foldCase(password.normalize('NFC'))

/**
 * What nobody may choose (SP 800-63B-4 §3.1.1.2; ASVS 6.2.4, 6.2.11, 6.2.12): common and breached passwords, whole and
 * without regard to case; repetitions; sequences; and what is little more than words that are known of the person
 * or the service.
 * @param ownWords names of the service and of its operator
 * @param readList the list of common passwords, read when first asked for
 */
export function createBlocklist(
  ownWords: readonly string[],
  readList: () => HashedSet = readCommonPasswords,
) {
  let list: HashedSet | undefined
  const isCommon = (text: string): boolean => {
    list ??= readList()
    return list.has(text)
  }

  return {
    /** Why nobody may have the password, as the end of a sentence about it; `undefined` when somebody may. */
    faultOf(password: string, personalWords: readonly string[] = []): string | undefined {
      const text = comparable(password)
      const unit = repeatedUnit(text)
      if (isCommon(text)) return 'is one of the passwords that attackers try first'
      if (unit !== undefined && (isTooShort(unit) || isCommon(unit) || isSequence(unit)))
        return 'repeats the same few characters'
      if (isSequence(text)) return 'is made of sequences such as 12345 and qwerty'
      if (isLittleBeside(text, [...ownWords, ...personalWords]))
        return 'is little more than a name of yours, your email or the name of the service'
      return undefined
    },
  }
}

/** The list that is shipped, 1.5 MB. */
export const readCommonPasswords = (): HashedSet => readHashedSet(readFileSync(FILE))

const isTooShort = (text: string): boolean => Array.from(text).length < SHORTEST_PASSWORD

/** What the text repeats twice or more, the last time perhaps cut off. */
function repeatedUnit(text: string): string | undefined {
  // The longest beginning that is also an end (Knuth, Morris, Pratt): what comes before the end repeats.
  const borders = [0]
  for (let end = 1, border = 0; end < text.length; end++) {
    while (border > 0 && text[end] !== text[border]) border = borders[border - 1] ?? 0
    if (text[end] === text[border]) border++
    borders.push(border)
  }
  const period = text.length - (borders.at(-1) ?? 0)
  return period * 2 <= text.length ? text.slice(0, period) : undefined
}

/** Where fingers and alphabets go: each step along one, in either direction or around its end, makes a sequence. */
const TRACKS = [
  ...['1234567890', '!@#$%^&*()', 'abcdefghijklmnopqrstuvwxyz', 'абвгдеёжзийклмнопрстуфхцчшщъыьэюя'],
  ...['qwertyuiop', 'asdfghjkl', 'zxcvbnm', 'qwertzuiop', 'yxcvbnm', 'azertyuiop', 'qsdfghjklm', 'wxcvbn'],
  ...['йцукенгшщзхъ', 'фывапролджэ', 'ячсмитьбю'],
  ...['1qaz', '2wsx', '3edc', '4rfv', '5tgb', '6yhn', '7ujm', '8ik,', '9ol.', '0p;/'],
  ...['1q2w3e4r5t6y7u8i9o0p', 'q1w2e3r4t5y6u7i8o9p0', 'qawsedrftgyhujikolp', 'azsxdcfvgbhnjm'],
]
const SHORTEST_RUN = 3
const SHORTEST_WORD = 3

const STEPS: ReadonlySet<string> = new Set(
  TRACKS.flatMap((track) => {
    const keys = Array.from(track)
    return keys.flatMap((key, place) => {
      const next = keys[(place + 1) % keys.length] ?? key
      return [`${key}${next}`, `${next}${key}`]
    })
  }),
)

/** Whether the whole text is runs along such tracks or on one key, each of three characters or more. */
function isSequence(text: string): boolean {
  let run = 0
  let last = ''
  for (const character of text) {
    if (run > 0 && (character === last || STEPS.has(last + character))) run++
    else if (run > 0 && run < SHORTEST_RUN) return false
    else run = 1
    last = character
  }
  return run >= SHORTEST_RUN
}

/** Whether the text holds the words, and without them is too short or has no letter. */
function isLittleBeside(text: string, words: readonly string[]): boolean {
  const left = words
    .map(comparable)
    .filter((word) => Array.from(word).length >= SHORTEST_WORD)
    .sort((a, b) => b.length - a.length)
    .reduce((rest, word) => rest.replaceAll(word, ''), text)
  return left !== text && (isTooShort(left) || !/\p{L}/u.test(left))
}

/** What others know of a person, for `faultOf`. */
export function personalWords(person: {
  email?: string | null | undefined
  fullName?: string | null | undefined
  firstName?: string | null | undefined
  lastName?: string | null | undefined
  phoneNumber?: string | null | undefined
  key?: string | undefined
  accountName?: string | undefined
}): string[] {
  const { email, fullName, firstName, lastName, phoneNumber, key, accountName } = person
  const whole = [email, email?.split('@', 1)[0], fullName, firstName, lastName, phoneNumber, key, accountName]
  const named = whole.filter((word) => word != null)
  return [...new Set(named.flatMap((word) => [word, ...partsOf(word)]))]
}

/** What everybody knows of a service: its names, and those in its addresses. */
export function serviceWords(names: readonly string[], urls: readonly string[]): string[] {
  const hosts = urls.map((url) => new URL(url).hostname).filter((host) => !/^[\d.]+$|:/.test(host))
  // The last part of a domain is no name.
  const labels = hosts.flatMap((host) => [host, ...host.split('.').slice(0, -1)])
  return [...new Set([...names.flatMap((name) => [name, ...partsOf(name)]), ...labels])]
}

const partsOf = (word: string): string[] => word.split(/[^\p{L}\p{N}]+/u)
