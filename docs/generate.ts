/**
 * Writes what the documentation says of the code, from the code: `npm run docs`. test/docs/generated.test.ts fails
 * when one of these files is not what this would write.
 */
import { readFile, writeFile } from 'node:fs/promises'
import type { TSchema } from 'typebox'
import { openapiText } from '../src/cli/openapi.ts'
import { EnvSchema, expectation, loadConfig } from '../src/config.ts'
import { PROBLEMS } from '../src/errors.ts'

const ROOT = new URL('../', import.meta.url)
const BEGIN = '<!-- configuration:begin -->'
const END = '<!-- configuration:end -->'

if (import.meta.filename === process.argv[1]) {
  for (const [path, text] of await generatedFiles()) await writeFile(new URL(path, ROOT), text)
}

/** Path and content of every generated file, and of the README with its generated part. */
export async function generatedFiles(): Promise<[path: string, text: string][]> {
  const readme = await readFile(new URL('README.md', ROOT), 'utf8').catch(() => undefined)
  return [
    ['docs/configuration.md', configurationPage()],
    ['docs/errors.md', errorsPage()],
    // The defaults, whatever the environment of this process says.
    ['docs/openapi.json', `${await openapiText(loadConfig({}))}\n`],
    ['.env.example', envExample()],
    ...(readme === undefined ? [] : [['README.md', withTable(readme)] as [string, string]]),
  ]
}

type Variable = { name: string; description: string; fallback: string; rule: string; isSecret: boolean }

function variables(): Variable[] {
  return Object.entries<TSchema>(EnvSchema.properties).map(([name, schema]) => {
    // The schema's own options: `secret` is ours, the others are JSON Schema's.
    const {
      description = '',
      default: fallback = '',
      secret = false,
    } = schema as {
      description?: string
      default?: string | number | boolean
      secret?: boolean
    }
    return { name, description, fallback: String(fallback), rule: ruleOf(schema), isSecret: secret }
  })
}

/** What is allowed, where that is more than any text: `0 to 65535`, `dev, test, prod`. */
function ruleOf(schema: TSchema): string {
  return expectation(schema)
    .replace(/^have [01] to any number of characters$/, '')
    .replace(/^have (\d+) to any number of/, 'at least $1')
    .replace(/^have |^be a whole number from |^be one of |^be /, '')
}

/** With columns of one width, as the formatter of this repository wants tables. */
function table(): string {
  const rows = variables().map(({ name, description, fallback, rule, isSecret }) => [
    `\`${name}\`${isSecret ? ' †' : ''}`,
    fallback === '' ? '' : `\`${fallback}\``,
    rule,
    description,
  ])
  const head = ['Variable', 'Default', 'Allowed', 'Meaning']
  const cells = [head, ...rows].map((row) => row.map((cell) => cell.replaceAll('|', '\\|')))
  const widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)))
  const line = (row: string[]) =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`
  const [first = '', ...others] = cells.map(line)
  const rule = line(widths.map((width) => '-'.repeat(width)))
  return [
    ...[first, rule, ...others],
    '',
    '† A secret: it may also be read from the file that `<NAME>_FILE` names.',
  ].join('\n')
}

function configurationPage(): string {
  return [
    '# Configuration',
    '',
    'Every setting is an environment variable, the same for `serve` and for every other command. A variable that is',
    'set to nothing counts as not set. All faults are reported at once, and the process ends with exit code 1.',
    '',
    table(),
    '',
  ].join('\n')
}

function withTable(readme: string): string {
  const [begin, end] = [readme.indexOf(BEGIN), readme.indexOf(END)]
  if (begin === -1 || end < begin) throw new Error(`README.md lacks the lines ${BEGIN} and ${END}`)
  return `${readme.slice(0, begin + BEGIN.length)}\n\n${table()}\n\n${readme.slice(end)}`
}

function envExample(): string {
  const entries = variables().map(({ name, description, fallback, rule, isSecret }) => {
    const value = /[\s'"$#]/.test(fallback) ? `"${fallback}"` : fallback
    return [
      `# ${description}${rule === '' ? '' : ` (${rule})`}${isSecret ? `. Or ${name}_FILE` : ''}`,
      `#${name}=${value}`,
    ].join('\n')
  })
  return [
    '# Every setting with its default. Copy this to .env, change what you need, and start with:\n#   set -a; . ./.env; set +a; npm start',
    ...entries,
    '',
  ].join('\n\n')
}

function errorsPage(): string {
  const problems = Object.entries(PROBLEMS).map(([code, { status, title, help }]) =>
    [`## ${code}`, '', `**${status}**: ${title}.`, '', help, ''].join('\n'),
  )
  return [
    '# Errors',
    '',
    'Every refusal is a problem document (RFC 9457) of the type `application/problem+json`. The last part of its',
    '`type` is one of these codes, and GET on the `type` answers what is said here.',
    '',
    ...problems,
  ].join('\n')
}
