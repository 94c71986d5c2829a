import { isUnavailable } from '../db/errors.ts'
import { AppError, StartupError } from '../errors.ts'
import { Interruption, outliveReaders, print, report } from '../terminal.ts'
import { VERSION } from '../version.ts'
import { createApiKey, listApiKeys, revokeApiKey } from './api-keys.ts'
import { backupCommand, restoreCommand } from './backup.ts'
import { type Command, columns, EXIT_CODES, helpOf, UsageError, usageOf } from './command.ts'
import { migrateCommand } from './migrate.ts'
import { openapiCommand } from './openapi.ts'
import {
  check,
  policyApply,
  policyDiff,
  policyExport,
  policyTest,
  templateApply,
  templateList,
} from './policy.ts'
import { policySync } from './policy-sync.ts'
import { seedCommand } from './seed.ts'
import { serveCommand } from './serve.ts'
import { createUser, grantRole, setPassword } from './users.ts'

/** Every command, in the order of the help. */
export const COMMANDS: readonly Command[] = [
  serveCommand,
  migrateCommand,
  seedCommand,
  createUser,
  setPassword,
  grantRole,
  createApiKey,
  listApiKeys,
  revokeApiKey,
  check,
  policyExport,
  policyDiff,
  policyApply,
  policyTest,
  policySync,
  templateList,
  templateApply,
  openapiCommand,
  backupCommand,
  restoreCommand,
]

/** Runs one command line and returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  outliveReaders()
  if (args[0] === '--version') {
    print(VERSION)
    return 0
  }
  const command = COMMANDS.find(({ path }) => path.split(' ').every((word, index) => args[index] === word))
  if (args.includes('--help') || args.includes('-h') || args[0] === 'help') {
    print(command ? helpOf(command) : overview())
    return 0
  }
  if (!command) {
    report(args.length === 0 ? overview() : unknownCommand(args))
    return 2
  }
  return await run(command, args.slice(command.path.split(' ').length))
}

async function run(command: Command, args: readonly string[]): Promise<number> {
  try {
    await command.run(args)
    return 0
  } catch (error) {
    if (error instanceof Interruption) return error.exitCode
    if (error instanceof UsageError) {
      report(`${error.message}.\nUsage: ${usageOf(command)}`)
      return 2
    }
    report(sentenceOf(error))
    return 1
  }
}

/** One sentence for what the operator can mend; the whole error for what only we can. */
function sentenceOf(error: unknown): string {
  if (error instanceof StartupError) return error.message
  if (error instanceof AppError) {
    const faults = error.errors?.map(
      ({ pointer, detail }) => `the ${pointer.replace('/body/', '')} ${detail}`,
    )
    const sentence = faults?.join(', and ') ?? error.message
    return `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`
  }
  if (isUnavailable(error)) return 'The database went away meanwhile: check that it runs, and try again.'
  return `Postern failed unexpectedly: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
}

function unknownCommand(args: readonly string[]): string {
  const group = COMMANDS.filter(({ path }) => path.startsWith(`${args[0]} `)).map(({ path }) => `"${path}"`)
  const known = group.length > 0 ? `there are ${group.join(', ')}` : '"postern --help" lists them'
  const typed = args.slice(0, 2).filter((word) => !word.startsWith('-'))
  return `There is no command "${typed.join(' ')}": ${known}.\nUsage: postern <command> [options]`
}

function overview(): string {
  return [
    'Postern: sign-in, roles and permission checks, in one process over one Postgres.',
    '',
    'Usage:',
    '  postern <command> [options]',
    '',
    'Commands:',
    ...columns(COMMANDS.map(({ path, summary }) => [path, summary] as const)),
    '',
    'Options:',
    ...columns([
      ['--help', 'Show this; after a command, show its options and an example'],
      ['--version', 'Show the version'],
    ]),
    '',
    'Settings are environment variables, the same for every command: docs/configuration.md lists them.',
    '',
    ...EXIT_CODES,
    '',
    'Example:',
    '  postern seed --demo',
  ].join('\n')
}
