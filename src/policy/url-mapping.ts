import { RE2JS } from 're2js'

/** Which action on which resource a request to a URL is. */
export type MappingRule = {
  /** `{name}` stands for any segment of the path or value of a parameter; with `regex`, RE2's syntax. */
  url: string
  urlType: 'template' | 'regex'
  httpMethod: string
  resource: string
  /** Default: the method, in lower case. */
  action: string | null
  /** The highest goes first. */
  priority: number
}

/** The action that a request is, and what the URL says by the names of the rule. */
export type MappedUrl = {
  resource: string
  action: string
  attributes: Readonly<Record<string, string>>
}

/** The longest URL that is looked at. */
export const LONGEST_URL = 2048
/** The most instructions of one compiled expression: the time to match is at most this for each character. */
export const MOST_INSTRUCTIONS = 1000

export type UrlMapping = {
  /** What the first rule that fits makes of the request; `undefined` when none fits. */
  find(url: string, httpMethod: string): MappedUrl | undefined
  /** The rules about a method, in the order in which they are asked. */
  rulesFor(httpMethod: string): readonly MappingRule[]
}

type Matcher = (url: string) => Record<string, string> | undefined

/** Rules made ready, each when it is first asked. Of equal priority, the one that comes first goes first. */
export function createUrlMapping(rules: readonly MappingRule[]): UrlMapping {
  const byMethod = new Map<string, { rule: MappingRule; matcher: Matcher | undefined }[]>()
  for (const rule of [...rules].sort((a, b) => b.priority - a.priority)) {
    const method = rule.httpMethod.toLowerCase()
    const own = byMethod.get(method)
    const entry = { rule, matcher: undefined }
    if (own) own.push(entry)
    else byMethod.set(method, [entry])
  }
  return {
    find(url, httpMethod) {
      if (url.length > LONGEST_URL || isRelative(url)) return undefined
      const method = httpMethod.toLowerCase()
      for (const entry of byMethod.get(method) ?? []) {
        entry.matcher ??= matcherOf(entry.rule)
        const attributes = entry.matcher(url)
        if (!attributes) continue
        const { resource, action } = entry.rule
        return { resource, action: action ?? method, attributes }
      }
      return undefined
    },
    rulesFor: (httpMethod) => (byMethod.get(httpMethod.toLowerCase()) ?? []).map(({ rule }) => rule),
  }
}

/**
 * A path with `..` in it is another one to the server behind the gateway than to a rule (RFC 3986 §5.2.4), so it fits
 * none, however it is written: encoded, with a backslash, which browsers take for a slash, or before a `;`.
 */
export function isRelative(url: string): boolean {
  const [path = ''] = url.split(/[?#]/, 1)
  const plain = path.replaceAll(/%2e/gi, '.').replaceAll(/%2f|%5c|\\/gi, '/')
  return plain.split('/').some((segment) => /^\.{1,2}(;|$)/.test(segment))
}

const matcherOf = (rule: MappingRule): Matcher =>
  rule.urlType === 'regex' ? regexMatcher(rule.url) : templateMatcher(rule.url)

/** Anchored at the start only; what the named groups hold. An expression that cannot be read fits nothing. */
function regexMatcher(expression: string): Matcher {
  const compiled = compileExpression(expression)
  if (!compiled) return () => undefined
  const names = Object.keys(compiled.namedGroups())
  return (url) => {
    const match = compiled.matcher(url)
    if (!match.lookingAt()) return undefined
    return Object.fromEntries(
      names.flatMap((name): [string, string][] => {
        const value = match.group(name)
        return value === null ? [] : [[name, value]]
      }),
    )
  }
}

/** RE2 matches in time linear in the text, whatever the expression is. */
export function compileExpression(expression: string): RE2JS | undefined {
  try {
    return RE2JS.compile(expression)
  } catch {
    return undefined
  }
}

/**
 * How many instructions an expression compiles to, or, far above `MOST_INSTRUCTIONS`, an estimate: to compile what is
 * repeated a thousand times takes a second. `undefined` for one that cannot be read.
 */
export function instructionsOf(expression: string): number | undefined {
  const estimate = estimatedInstructions(expression)
  return estimate > LARGEST_COMPILED ? estimate : compileExpression(expression)?.programSize()
}

const LARGEST_COMPILED = 8 * MOST_INSTRUCTIONS

/** What counts as one in RE2's syntax: quotations, classes and escapes as a whole, repetitions, ends of groups. */
const TOKEN = new RegExp(
  [
    String.raw`\\Q(?<quoted>.*?)(?:\\E|$)`,
    String.raw`\\[pPx]\{[^}]*\}|\\.`,
    String.raw`\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]`,
    String.raw`(?<flags>\(\?[a-zA-Z-]*\))`,
    String.raw`(?<open>\((?:\?P?<\w*>|\?[a-zA-Z-]*:)?)|(?<close>\))`,
    String.raw`\{(?<least>\d+)(?:,(?<most>\d*))?\}|(?<wide>[*+?])|.`,
  ].join('|'),
  'gs',
)

/** About as many as it has, rather more than fewer, told from its text. */
function estimatedInstructions(expression: string): number {
  const outer: number[] = []
  // Of the group that is being read, and of what a repetition would repeat.
  let size = 2
  let last = 0
  const add = (more: number): void => {
    last = more
    size += more
  }
  for (const { groups = {} } of expression.matchAll(TOKEN)) {
    const { quoted, flags, open, close, least, most, wide } = groups
    if (quoted !== undefined) {
      size += quoted.length
      last = 1
    } else if (open !== undefined) {
      outer.push(size)
      size = 2
    } else if (close !== undefined) {
      const inner = size
      size = outer.pop() ?? 0
      add(inner)
    } else if (least !== undefined) {
      const times = most === '' ? Number(least) + 1 : Math.max(Number(least), Number(most ?? 0))
      size -= last
      add((last + 1) * Math.max(times, 1))
    } else if (wide !== undefined) {
      size -= last
      add(last + 2)
    } else if (flags === undefined) add(1)
  }
  return outer.reduce((sum, one) => sum + one, size)
}

type Part = { name: string } | { text: string }

const partOf = (text: string): Part =>
  text.length > 1 && text.startsWith('{') && text.endsWith('}') ? { name: text.slice(1, -1) } : { text }

/**
 * Segment by segment, scheme and host too. The parameters that the rule names must be there, each once; others may
 * be.
 */
function templateMatcher(template: string): Matcher {
  const [path, query] = splitUrl(template)
  const segments = path.split('/').map(partOf)
  const parameters = [...new URLSearchParams(query)].map(([name, value]) => ({ name, part: partOf(value) }))
  return (url) => {
    const [ownPath, ownQuery] = splitUrl(url)
    const own = ownPath.split('/')
    if (own.length !== segments.length) return undefined
    const found: [string, string][] = []
    const fits = (part: Part, value: string): boolean => {
      if ('text' in part) return part.text === value
      found.push([part.name, value])
      return true
    }
    // Servers merge slashes, so an empty segment is no name of anything.
    const isNamed = (part: Part, segment: string): boolean => 'text' in part || segment !== ''
    if (!segments.every((part, place) => isNamed(part, own[place] ?? '') && fits(part, own[place] ?? '')))
      return undefined
    if (parameters.length > 0) {
      const given = new URLSearchParams(ownQuery)
      const fit = parameters.every(({ name, part }) => {
        const [value, ...more] = given.getAll(name)
        return value !== undefined && more.length === 0 && fits(part, value)
      })
      if (!fit) return undefined
    }
    return Object.fromEntries(found)
  }
}

function splitUrl(url: string): [path: string, query: string] {
  const mark = url.indexOf('?')
  return mark < 0 ? [url, ''] : [url.slice(0, mark), url.slice(mark + 1)]
}
