import { parseArgs } from 'node:util'

/** An option of a command; `value` names what follows it, and an option without one is a switch. */
type Flag = { description: string; value?: string; required?: true }
type Flags = Record<string, Flag>
type Values<F extends Flags> = {
  [K in keyof F]: F[K] extends { value: string; required: true }
    ? string
    : (F[K] extends { value: string } ? string : boolean) | undefined
}

type Definition<F extends Flags> = {
  /** As it is typed after `postern`: `serve`, `users create`. */
  path: string
  summary: string
  /** What the help says beyond the summary; whole lines. */
  details?: readonly string[]
  /** Names of the arguments, all of them required. */
  positionals?: readonly string[]
  flags: F
  examples: readonly string[]
  /** @throws UsageError, StartupError, AppError */
  run(values: Values<F>, positionals: readonly string[]): Promise<void>
}

/** A command of `postern`. */
export type Command = Omit<Definition<Flags>, 'run'> & { run(args: readonly string[]): Promise<void> }

/** The command was typed in a way that it does not understand: exit code 2, with the usage line. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** A command whose `run` sees its options with their types. */
export function defineCommand<const F extends Flags>(definition: Definition<F>): Command {
  return {
    ...definition,
    async run(args) {
      const { values, positionals } = parse(definition, args)
      await definition.run(values, positionals)
    },
  }
}

function parse<F extends Flags>(
  definition: Definition<F>,
  args: readonly string[],
): { values: Values<F>; positionals: readonly string[] } {
  const { flags, positionals: expected = [] } = definition
  const { values, positionals } = parseStrictly(flags, args)
  if (positionals.length !== expected.length) {
    const wanted = expected.length === 0 ? 'no arguments' : expected.join(' and ')
    throw new UsageError(`"postern ${definition.path}" takes ${wanted}, and was given ${positionals.length}`)
  }
  for (const [name, { required }] of Object.entries(flags)) {
    if (required && !values[name]) throw new UsageError(`--${name} is missing`)
  }
  // Right by the strictness of parseArgs and the check above; its own types do not know `required`.
  return { values: values as Values<F>, positionals }
}

function parseStrictly(flags: Flags, args: readonly string[]) {
  const entries = Object.entries(flags).map(
    ([name, { value }]) => [name, { type: value === undefined ? 'boolean' : 'string' }] as const,
  )
  try {
    return parseArgs({ args: [...args], options: Object.fromEntries(entries), allowPositionals: true })
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    // Node's sentence; what follows is advice about the double dash.
    throw new UsageError(error.message.split(/[.\n]/, 1)[0] ?? error.message, { cause: error })
  }
}

/** `postern users create --email EMAIL --name NAME [--role KEY]` */
export function usageOf({ path, positionals = [], flags }: Omit<Command, 'run'>): string {
  const options = Object.entries(flags).map(([name, { value, required }]) => {
    const option = value === undefined ? `--${name}` : `--${name} ${value}`
    return required ? option : `[${option}]`
  })
  return ['postern', path, ...positionals, ...options].join(' ')
}

/** The usage with at most 120 characters in a line. */
function usageLines(command: Command): string[] {
  const lines = ['']
  for (const word of usageOf(command).split(/ (?=\[|--)/)) {
    const last = lines.at(-1) ?? ''
    if (last.length + word.length < 118) lines[lines.length - 1] = last === '' ? word : `${last} ${word}`
    else lines.push(`  ${word}`)
  }
  return lines.map((line) => `  ${line}`)
}

/** What `--help` prints for one command. */
export function helpOf(command: Command): string {
  const { summary, details = [], flags, examples } = command
  const options = Object.entries(flags).map(
    ([name, { value, description }]) =>
      [value === undefined ? `--${name}` : `--${name} ${value}`, description] as const,
  )
  return [
    `${summary}.`,
    ...(details.length > 0 ? ['', ...details] : []),
    '',
    'Usage:',
    ...usageLines(command),
    '',
    'Options:',
    ...columns([...options, ['--help', 'Show this']]),
    '',
    ...EXIT_CODES,
    '',
    examples.length === 1 ? 'Example:' : 'Examples:',
    ...examples.map((example) => `  ${example}`),
  ].join('\n')
}

export const EXIT_CODES = [
  'Exit codes:',
  ...columns([
    ['0', 'done'],
    ['1', 'refused or failed, with the reason on standard error'],
    ['2', 'wrong usage'],
    ['130, 143', 'ended by Ctrl-C or SIGTERM'],
  ]),
]

/** Two columns, the first one as wide as it must be. */
export function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length))
  return rows.map(([left, right]) => `  ${left.padEnd(width)}   ${right}`)
}
