import { AppError, StartupError } from '../errors.ts'
import { Interruption, outliveReaders, print, report } from '../terminal.ts'
import { VERSION } from '../version.ts'
import { type Command, columns, EXIT_CODES, helpOf, UsageError, usageOf } from './command.ts'

// Loading is most of the time that a command takes, therefore only the group that was typed is loaded.
const GROUPS: Readonly<Record<string, () => Promise<readonly Command[]>>> = {
  serve: async () => [(await import('./serve.ts')).serveCommand],
  migrate: async () => [(await import('./migrate.ts')).migrateCommand],
  seed: async () => [(await import('./seed.ts')).seedCommand],
  users: async () => {
    const { createUser, setPassword, resetMfa, unlock, grantRole } = await import('./users.ts')
    const { importUsers } = await import('./users-import.ts')
    return [createUser, setPassword, resetMfa, unlock, grantRole, importUsers]
  },
  'api-keys': async () => {
    const { createApiKey, listApiKeys, revokeApiKey } = await import('./api-keys.ts')
    return [createApiKey, listApiKeys, revokeApiKey]
  },
  sessions: async () => [(await import('./sessions.ts')).endSessions],
  keys: async () => {
    const { listKeys, rotateKeys } = await import('./keys.ts')
    return [listKeys, rotateKeys]
  },
  clients: async () => {
    const { createClient, listClients, deleteClient, rotateClientSecret } = await import('./clients.ts')
    return [createClient, listClients, deleteClient, rotateClientSecret]
  },
  check: async () => [(await import('./policy.ts')).check],
  policy: async () => {
    const { policyApply, policyDiff, policyExport, policyTest, templateApply, templateList } = await import(
      './policy.ts'
    )
    const { policySync } = await import('./policy-sync.ts')
    const { policyImport } = await import('./policy-import.ts')
    return [
      policyExport,
      policyDiff,
      policyApply,
      policyTest,
      policyImport,
      policySync,
      templateList,
      templateApply,
    ]
  },
  audit: async () => {
    const { auditCheckpoint, auditExport, auditVerify } = await import('./audit.ts')
    return [auditVerify, auditCheckpoint, auditExport]
  },
  mail: async () => [(await import('./mail.ts')).testMail],
  openapi: async () => [(await import('./openapi.ts')).openapiCommand],
  backup: async () => [(await import('./backup.ts')).backupCommand],
  restore: async () => [(await import('./backup.ts')).restoreCommand],
}

/** Every command, in the order of the help. */
export async function allCommands(): Promise<Command[]> {
  return (await Promise.all(Object.values(GROUPS).map(async (load) => await load()))).flat()
}

/** The commands whose first word this is; none if there are no such. */
async function groupOf(word = ''): Promise<readonly Command[]> {
  return Object.hasOwn(GROUPS, word) ? ((await GROUPS[word]?.()) ?? []) : []
}

/** Runs one command line and returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  outliveReaders()
  if (args[0] === '--version') {
    print(VERSION)
    return 0
  }
  const group = await groupOf(args[0])
  const command = group.find(({ path }) => path.split(' ').every((word, index) => args[index] === word))
  if (args.includes('--help') || args.includes('-h') || args[0] === 'help') {
    print(command ? helpOf(command) : await overview())
    return 0
  }
  if (!command) {
    report(args.length === 0 ? await overview() : unknownCommand(args, group))
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
    report(await sentenceOf(error))
    return 1
  }
}

/** One sentence for what the operator can mend; the whole error for what only we can. */
async function sentenceOf(error: unknown): Promise<string> {
  if (error instanceof StartupError) return error.message
  if (error instanceof AppError) {
    const faults = error.errors?.map(
      ({ pointer, detail }) => `the ${pointer.replace('/body/', '')} ${detail}`,
    )
    const sentence = faults?.join(', and ') ?? error.message
    return `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`
  }
  const { isUnavailable } = await import('../db/errors.ts')
  if (isUnavailable(error)) return 'The database went away meanwhile: check that it runs, and try again.'
  return `Postern failed unexpectedly: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
}

function unknownCommand(args: readonly string[], group: readonly Command[]): string {
  const paths = group.map(({ path }) => `"${path}"`)
  const known = paths.length > 0 ? `there are ${paths.join(', ')}` : '"postern --help" lists them'
  const typed = args.slice(0, 2).filter((word) => !word.startsWith('-'))
  return `There is no command "${typed.join(' ')}": ${known}.\nUsage: postern <command> [options]`
}

async function overview(): Promise<string> {
  const commands = await allCommands()
  return [
    'Postern: sign-in, roles and permission checks, in one process over one Postgres.',
    '',
    'Usage:',
    '  postern <command> [options]',
    '',
    'Commands:',
    ...columns(commands.map(({ path, summary }) => [path, summary] as const)),
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
