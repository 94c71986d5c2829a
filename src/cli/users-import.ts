import { createReadStream, ReadStream } from 'node:fs'
import { access, constants, stat } from 'node:fs/promises'
import { extname } from 'node:path'
import { StartupError } from '../errors.ts'
import { createProgressBar, print, report } from '../terminal.ts'
import {
  CONFLICT_RULES,
  type ImportProgress,
  NOTHING_DONE,
  newImportRun,
  type Refusal,
} from '../user-import/progress.ts'
import { IMPORT_FIELDS, ImportedUserSchema, readPeople } from '../user-import/records.ts'
import { openRefusals, readResumeFile, writeResumeFile } from '../user-import/resume.ts'
import { type ColumnNames, readCsv, readJsonLines } from '../user-import/source.ts'
import { defineCommand, UsageError } from './command.ts'
import { faultFinder } from './input.ts'
import { withSetUpServices } from './runtime.ts'

const FORMATS = ['csv', 'jsonl'] as const
type Format = (typeof FORMATS)[number]

export const importUsers = defineCommand({
  path: 'users import',
  summary: 'Take people over from another system, with their passwords',
  details: [
    'FILE is CSV with a header, or has a JSON object in each line; "-" is standard input. The fields are',
    `${IMPORT_FIELDS.slice(0, 8).join(', ')},`,
    `${IMPORT_FIELDS.slice(8).join(', ')}.`,
    'A line needs an email or a key. `role` is the primary role, `roles` are further ones, separated by semicolons.',
    '`password_hash` is one of bcrypt, scrypt, PBKDF2 or argon2, and is replaced by ours at the first sign-in;',
    '`password` is a plain one, which is hashed here, and takes its time.',
    '',
    'A thousand lines are one transaction. What is wrong with a line stands against that line only. Running it again',
    'leaves out who is there already; with --resume, also a million lines that are done take no time.',
  ],
  positionals: ['FILE'],
  flags: {
    format: { value: FORMATS.join('|'), description: 'Default: by the end of the name' },
    columns: {
      value: 'NAME=FIELD,…',
      description: 'Names in the file that are other ones here; without a field, left out',
    },
    'on-conflict': {
      value: CONFLICT_RULES.join('|'),
      description: 'What becomes of a line about somebody who is there; default: skip',
    },
    'create-accounts': { description: 'Make the accounts that are named and not there' },
    'dry-run': { description: 'Read, check and count, who is twice in the file twice; write nothing' },
    resume: { value: 'FILE', description: 'Note there how far it is, and go on from there' },
    report: { value: 'FILE', description: 'Write refused lines there, with the reason, as JSON lines' },
  },
  examples: [
    'postern users import people.csv --dry-run --report refused.jsonl',
    "postern users import users.csv --columns 'id=key,hashed_password=password_hash,updated_at='",
  ],
  async run(flags, [file = '']) {
    const format = formatOf(file, flags.format)
    const columns = columnsOf(flags.columns)
    const onConflict = oneOf('on-conflict', CONFLICT_RULES, flags['on-conflict'] ?? 'skip')
    const { resume, 'dry-run': isDryRun = false, 'create-accounts': createsAccounts = false } = flags
    if (resume !== undefined && isDryRun) throw new UsageError('Give --resume or --dry-run, not both')
    const bytes = file === '-' ? undefined : await sizeOf(file)

    await withSetUpServices(async ({ userImport }) => {
      const { run, from } =
        resume === undefined
          ? { run: newImportRun(), from: NOTHING_DONE }
          : await readResumeFile(resume, bytes)
      const note = async (progress: ImportProgress): Promise<void> => {
        if (resume !== undefined) await writeResumeFile(resume, bytes, { run, from: progress })
      }
      const write = flags.report === undefined ? undefined : await openRefusals(flags.report, from)
      const told: Refusal[] = []
      const input = file === '-' ? process.stdin : createReadStream(file)
      const source = (format === 'csv' ? readCsv : readJsonLines)(input, columns)
      const bar = createProgressBar()
      try {
        const people = readPeople(source, faultFinder(ImportedUserSchema))
        const done = await userImport.run(
          before(people, async () => await note(from)),
          {
            run,
            onConflict,
            isDryRun,
            createsAccounts,
            from,
            async onRefused(refusals) {
              told.push(...refusals.slice(0, MOST_TOLD - told.length))
              await write?.(refusals)
            },
            async onProgress(progress) {
              await note(progress)
              const share = bytes && input instanceof ReadStream ? input.bytesRead / bytes : undefined
              bar.show(share, `line ${progress.line.toLocaleString('en')}`)
            },
          },
        )
        bar.end()
        for (const { line, reason } of told) report(`Line ${line} ${reason}.`)
        printSummary(done, isDryRun, told.length)
      } finally {
        bar.end()
        input.destroy()
      }
    })
  },
})

/** The same, `work` being done when the first is there. */
async function* before<T>(source: AsyncIterable<T>, work: () => Promise<void>): AsyncGenerator<T> {
  let isFirst = true
  for await (const one of source) {
    if (isFirst) await work()
    isFirst = false
    yield one
  }
}

/** How many refusals are told where nobody asked for a report. */
const MOST_TOLD = 10

function printSummary(done: ImportProgress, isDryRun: boolean, told: number): void {
  const [created, updated] = isDryRun ? ['to create', 'to update'] : ['created', 'updated']
  print(
    `${done.created} ${created}, ${done.updated} ${updated}, ${done.unchanged} there already, ${done.refused} refused.`,
  )
  if (done.refused > told)
    report(`${done.refused - told} more lines were refused: --report FILE has all of them.`)
}

/** @throws UsageError */
function formatOf(file: string, given: string | undefined): Format {
  if (given !== undefined) return oneOf('format', FORMATS, given)
  const ending = extname(file).slice(1).toLowerCase()
  if (ending === 'csv') return 'csv'
  if (['jsonl', 'ndjson', 'json'].includes(ending)) return 'jsonl'
  throw new UsageError('The name of the file does not say what is in it: give --format csv or --format jsonl')
}

/** @throws UsageError */
function columnsOf(given = ''): ColumnNames {
  const pairs = given.split(',').filter((pair) => pair.trim() !== '')
  return new Map(
    pairs.map((pair) => {
      const [name = '', field] = pair.split('=').map((part) => part.trim())
      if (name === '' || field === undefined) throw new UsageError('--columns must be pairs such as id=key')
      if (field !== '' && !IMPORT_FIELDS.includes(field))
        throw new UsageError(
          `--columns names the field ${field}, which is none of ${IMPORT_FIELDS.join(', ')}`,
        )
      return [name, field === '' ? null : field] as const
    }),
  )
}

/** @throws UsageError */
function oneOf<const T extends string>(name: string, values: readonly T[], given: string): T {
  const value = values.find((one) => one === given)
  if (value === undefined) throw new UsageError(`--${name} must be one of ${values.join(', ')}`)
  return value
}

/** @throws StartupError */
async function sizeOf(file: string): Promise<number> {
  try {
    const found = await stat(file)
    await access(file, constants.R_OK)
    if (!found.isDirectory()) return found.size
  } catch (cause) {
    throw new StartupError(
      `Cannot read ${file}: ${cause instanceof Error ? cause.message : String(cause)}.`,
      {
        cause,
      },
    )
  }
  throw new StartupError(`Cannot read ${file}: it is a folder.`)
}
