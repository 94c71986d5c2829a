import type { PasswordHasher } from '../auth/passwords.ts'
import { normalizeEmail } from '../case-folding.ts'
import { AppError, StartupError } from '../errors.ts'
import type { UsersService } from '../users/service.ts'
import {
  type Credentials,
  type Item,
  idOf,
  type Newcomer,
  type Newcomers,
  namesOf,
  reasonOf,
} from './newcomers.ts'
import {
  type ImportOptions,
  type ImportProgress,
  type ImportRun,
  newImportRun,
  type Refusal,
} from './progress.ts'
import type { ImportLine } from './records.ts'
import type { Namesake, UserImportRepository } from './repository.ts'
import type { Updates } from './updates.ts'

type Dependencies = {
  repository: UserImportRepository
  newcomers: Newcomers
  updates: Updates
  usersService: UsersService
  passwords: PasswordHasher
  /** How many passwords are hashed at a time. */
  hashLanes: number
  /** Whether a password that an import sets must be changed at the first sign-in, where a line does not say. */
  mustChangeWhenSetByAdmin: boolean
}

/** How many lines are written in one transaction. */
const LINES_AT_ONCE = 1000
/** How many transactions there are at a time: Postgres works through each on one core. */
const TRANSACTIONS_AT_ONCE = 2

/** People of another system, part by part; one part is read while the one before is written. */
export function createUserImport(dependencies: Dependencies) {
  const { repository, newcomers, updates, usersService, passwords, hashLanes } = dependencies

  /** Who each of them is, when they are there already. */
  async function findKnown(items: readonly Item[]): Promise<(item: Item) => Namesake | undefined> {
    const namesakes = await repository.listNamesakes(
      items.flatMap(({ record: { key } }) => (key === undefined ? [] : [key])),
      items.flatMap(({ record: { email } }) => (email === undefined ? [] : [normalizeEmail(email)])),
    )
    const living = namesakes.filter(({ isDeleted }) => !isDeleted)
    const byKey = new Map(living.map((one) => [one.key, one]))
    const byEmail = new Map(living.map((one) => [one.emailNormalized, one]))
    const ids = new Set(namesakes.map(({ id }) => id))
    return ({ record: { key, email } }) => {
      const ofKey = key === undefined ? undefined : byKey.get(key)
      const ofEmail = email === undefined ? undefined : byEmail.get(normalizeEmail(email))
      if (ofKey && ofEmail && ofKey.id !== ofEmail.id)
        throw new AppError('conflict', { detail: 'has the key of one user and the email of another' })
      if (!ofKey && key !== undefined && ids.has(key.toLowerCase()))
        throw new AppError('conflict', { detail: 'has a key that is the id of another user' })
      return ofKey ?? ofEmail
    }
  }

  /** @throws AppError for a hash that cannot be verified, or a password that nobody may have */
  async function credentialsOf({ record }: Item, { isDryRun }: ImportOptions): Promise<Credentials> {
    const { password, password_hash: foreign, must_change: mustChange = false } = record
    if (foreign !== undefined) {
      const adopted = passwords.adopt(foreign)
      if ('fault' in adopted)
        throw new AppError('validation_failed', { detail: `password_hash ${adopted.fault}` })
      return { passwordHash: adopted.hash, mustChange }
    }
    if (password === undefined) return { passwordHash: null, mustChange }
    await usersService.assertPasswordFits(password, { ...record, ...namesOf(record) })
    return {
      passwordHash: isDryRun ? null : await passwords.hash(password),
      mustChange: record.must_change ?? dependencies.mustChangeWhenSetByAdmin,
    }
  }

  /** Those of this run whom no process before this one has made. */
  async function notYetMade(items: readonly Item[], { run }: PartOptions): Promise<Item[]> {
    const made = new Set(await repository.listKnownIds(items.map((item) => idOf(item, run))))
    return items.filter((item) => !made.has(idOf(item, run)))
  }

  async function importPart(lines: readonly ImportLine[], options: PartOptions): Promise<Outcome> {
    const outcome: Outcome = { created: 0, updated: 0, unchanged: 0, refusals: [] }
    const refuse = (line: number, error: unknown): void => {
      outcome.refusals.push({ line, reason: reasonOf(error) })
    }
    if (lines.length === 0) return outcome
    const people: Item[] = []
    for (const read of lines) {
      if ('record' in read) people.push(read)
      else outcome.refusals.push({ line: read.line, reason: read.fault })
    }
    const items = options.mayBeMade ? await notYetMade(people, options) : people
    outcome.created = people.length - items.length
    const knownAs = await findKnown(items)
    const strangers: Newcomer[] = []
    await inLanes(hashLanes, items, async (item) => {
      try {
        const known = knownAs(item)
        if (!known) strangers.push({ ...item, ...(await credentialsOf(item, options)) })
        else if (options.onConflict === 'fail') throw new Collision(item.line)
        else if (options.onConflict === 'skip') outcome.unchanged++
        else {
          const hasChanged = await updates.update(item, await credentialsOf(item, options), known.id, options)
          if (hasChanged) outcome.updated++
          else outcome.unchanged++
        }
      } catch (error) {
        refuse(item.line, error)
      }
    })
    const { created, refusals } = await newcomers.insert(strangers, options)
    outcome.created += created
    outcome.refusals.push(...refusals)
    return outcome
  }

  return {
    /**
     * Imports the lines after `options.from.line`. What is wrong with a line is told and stands against that line only.
     * @returns where it stands at the end
     * @throws StartupError when somebody is there already and that is to be a failure; parts before that one stay
     */
    async run(lines: AsyncIterable<ImportLine>, options: ImportOptions): Promise<ImportProgress> {
      const { run = newImportRun(), from } = options
      let progress = from
      let parts = 0
      // A failure of one must not come while another is under way.
      const lanes = options.onConflict === 'fail' ? 1 : TRANSACTIONS_AT_ONCE
      for await (const part of ahead(partsOf(lines, progress.line, LINES_AT_ONCE * lanes))) {
        const shares = Array.from({ length: lanes }, (_, lane) =>
          part.slice(lane * LINES_AT_ONCE, (lane + 1) * LINES_AT_ONCE),
        )
        // What was under way when a process was killed is no more than there is at a time, in parts of any size.
        const partOptions = { ...options, run, mayBeMade: parts++ < TRANSACTIONS_AT_ONCE }
        const outcomes = await Promise.all(shares.map(async (share) => await importPart(share, partOptions)))
        const refusals = outcomes.flatMap((outcome) => outcome.refusals).sort((a, b) => a.line - b.line)
        await options.onRefused(refusals)
        const summed = (count: 'created' | 'updated' | 'unchanged'): number =>
          outcomes.reduce((sum, outcome) => sum + outcome[count], progress[count])
        progress = {
          line: part.at(-1)?.line ?? progress.line,
          created: summed('created'),
          updated: summed('updated'),
          unchanged: summed('unchanged'),
          refused: progress.refused + refusals.length,
        }
        await options.onProgress(progress)
      }
      return progress
    },
  }
}

/** `mayBeMade`: another process of this run may have written these lines. */
type PartOptions = ImportOptions & { run: ImportRun; mayBeMade: boolean }
type Outcome = { created: number; updated: number; unchanged: number; refusals: Refusal[] }

class Collision extends StartupError {
  constructor(line: number) {
    super(
      `Line ${line} is about a user who is there already; what came before it was imported in parts of ${LINES_AT_ONCE}.`,
    )
  }
}

/** Parts of the lines after `from`, in none of which a key or an email is there twice: the later line meets the first. */
async function* partsOf(
  lines: AsyncIterable<ImportLine>,
  from: number,
  size: number,
): AsyncGenerator<ImportLine[]> {
  let part: ImportLine[] = []
  let names = new Set<string>()
  for await (const line of lines) {
    if (line.line <= from) continue
    const own = 'record' in line ? namesIn(line.record) : []
    if (part.length === size || own.some((name) => names.has(name))) {
      yield part
      part = []
      names = new Set()
    }
    part.push(line)
    for (const name of own) names.add(name)
  }
  if (part.length > 0) yield part
}

const namesIn = ({ key, email }: Item['record']): string[] => [
  ...(key === undefined ? [] : [`key ${key}`]),
  ...(email === undefined ? [] : [`email ${normalizeEmail(email)}`]),
]

/** The same, the next one already begun while one is worked on. */
async function* ahead<T>(source: AsyncGenerator<T>): AsyncGenerator<T> {
  let next = source.next()
  for (;;) {
    const { done, value } = await next
    if (done) return
    next = source.next()
    // Told when it is awaited; until then, its failure is nobody's.
    next.catch(() => {})
    yield value
  }
}

/** Works on each, so many at a time. */
async function inLanes<T>(
  count: number,
  items: readonly T[],
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0
  const lane = async (): Promise<void> => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) await work(item)
  }
  await Promise.all(Array.from({ length: count }, lane))
}
