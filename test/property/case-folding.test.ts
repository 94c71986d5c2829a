import fc from 'fast-check'
import t from 'tap'
import { foldCase, normalizeEmail } from '../../src/case-folding.ts'

const text = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: 'binary' }),
  fc.string({
    unit: fc.constantFrom(
      'ß',
      'ẞ',
      'S',
      's',
      'İ',
      'i',
      'I',
      'ı',
      'Σ',
      'σ',
      'ς',
      'ﬁ',
      'Å',
      'K',
      '\u0307',
      '\u0345',
    ),
  }),
)

/** Every code point that is a character of its own. */
function* characters(): Generator<string> {
  for (let code = 0; code <= 0x10ffff; code++) {
    if (code < 0xd800 || code > 0xdfff) yield String.fromCodePoint(code)
  }
}

t.test('letters that Unicode folds to one are one', async (t) => {
  const apart = []

  // The oracle is the folding of regular expressions, simple case folding (Unicode §3.13, CaseFolding.txt C + S).
  for (const character of characters()) {
    for (const other of new Set([character.toLowerCase(), character.toUpperCase()])) {
      if (other === character || Array.from(other).length > 1) continue
      const areOne = new RegExp(`^\\u{${(character.codePointAt(0) ?? 0).toString(16)}}$`, 'iu').test(other)
      if (areOne && foldCase(character) !== foldCase(other)) apart.push([character, other])
    }
  }

  t.same(apart, [])
})

t.test('every character is folded at once', async (t) => {
  const unfinished = []

  for (const character of characters()) {
    const folded = foldCase(character)
    if (foldCase(folded) !== folded) unfinished.push(character)
  }

  t.same(unfinished, [])
})

t.test('folding twice is folding once', async () => {
  fc.assert(
    fc.property(text, (given) => foldCase(foldCase(given)) === foldCase(given)),
    { numRuns: 1000 },
  )
})

t.test('composed and decomposed spellings are one', async () => {
  fc.assert(
    fc.property(text, (given) => foldCase(given.normalize('NFD')) === foldCase(given.normalize('NFC'))),
    { numRuns: 1000 },
  )
})

t.test('of ASCII it is what toLowerCase gives', async () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme-ascii' }), (given) => foldCase(given) === given.toLowerCase()),
  )
})

t.test('an email is the same in capitals and in small letters', async () => {
  const local = fc.stringMatching(/^[a-zäöüéñçåøœ0-9._-]{1,20}$/)

  fc.assert(
    fc.property(local, (name) => {
      const email = `${name}@example.com`

      return normalizeEmail(email.toUpperCase()) === normalizeEmail(` ${email}\t`)
    }),
  )
})

t.test('letters that only look alike stay apart', async (t) => {
  t.not(foldCase('а'), foldCase('a'), 'Cyrillic and Latin a')
  t.not(foldCase('ı'), foldCase('i'), 'dotless i')
  t.not(foldCase('é'), foldCase('e'))
  t.not(foldCase('0'), foldCase('O'))
})

t.test('the two capitals of ß are what ß is', async (t) => {
  t.equal(foldCase('Straße'), 'strasse')
  t.equal(foldCase('STRASSE'), 'strasse')
  t.equal(foldCase('STRAẞE'), 'strasse')
})
