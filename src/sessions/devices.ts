/** The first that fits wins: Edge and Opera also say that they are Chrome, and Chrome that it is Safari. */
const PROGRAMS: [name: string, sign: RegExp][] = [
  ['Edge', /\bEdg(A|iOS)?\//],
  ['Opera', /\bOPR\//],
  ['Samsung Internet', /\bSamsungBrowser\//],
  ['Firefox', /\b(Firefox|FxiOS)\//],
  ['Chrome', /\b(Chrome|CriOS)\//],
  ['Safari', /\bVersion\/.*\bSafari\//],
]

const SYSTEMS: [name: string, sign: RegExp][] = [
  ['iPhone', /\biPhone\b/],
  ['iPad', /\biPad\b/],
  ['Android', /\bAndroid\b/],
  ['Windows', /\bWindows\b/],
  ['ChromeOS', /\bCrOS\b/],
  ['macOS', /\bMac OS X\b/],
  ['Linux', /\bLinux\b/],
]

/**
 * A word or three by which a person knows a device again, `Firefox on Linux`; for programs that are no browser the name
 * that they give, `curl`. A hint and nothing more: anybody can send any User-Agent.
 */
export function deviceOf(userAgent: string): string | null {
  const program = nameIn(PROGRAMS, userAgent)
  const system = nameIn(SYSTEMS, userAgent)
  if (program !== undefined && system !== undefined) return `${program} on ${system}`
  return program ?? system ?? /^[A-Za-z][\w.-]{0,62}/.exec(userAgent)?.[0] ?? null
}

const nameIn = (signs: typeof PROGRAMS, userAgent: string): string | undefined =>
  signs.find(([, sign]) => sign.test(userAgent))?.[0]
