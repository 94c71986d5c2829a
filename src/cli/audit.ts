import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { Fault, WalkState } from '../audit/chain-walk.ts'
import { parseCheckpoint, verifyFile } from '../audit/export.ts'
import { presentCheckpoint } from '../audit/schemas.ts'
import { type Checkpoint, createCheckpointSigner } from '../audit/signing.ts'
import { loadConfig } from '../config.ts'
import { StartupError } from '../errors.ts'
import { findSecretKey } from '../secret-key.ts'
import { print, report } from '../terminal.ts'
import { createVault } from '../vault.ts'
import { defineCommand, UsageError } from './command.ts'
import { withSetUpServices } from './runtime.ts'

export const auditVerify = defineCommand({
  path: 'audit verify',
  summary: 'Find out whether the audit trail is what was written',
  details: [
    'Goes through the chain of the database, or with --file through an export, and ends with exit code 1 at the first event',
    'that was changed, removed, moved or put in. Checkpoints that you keep elsewhere prove more than those in the database:',
    'whoever can write there can also leave out what came last.',
  ],
  flags: {
    checkpoint: {
      value: 'FILE',
      description:
        'Checkpoints that were kept, and must be reached: JSON, one or a list, or one in each line',
    },
    from: { value: 'POSITION', description: 'Begin at the last checkpoint before this position; default: 1' },
    file: { value: 'FILE', description: 'An export, in place of the database; - is standard input' },
    partial: { description: 'With --file: the export was filtered, so that positions are left out' },
    'unknown-keys': {
      description: 'Checkpoints in the database that were signed with a key that is not at hand are no fault',
    },
  },
  examples: [
    'postern audit verify',
    'postern audit verify --checkpoint checkpoints.jsonl',
    'postern audit verify --file audit.jsonl --checkpoint checkpoints.jsonl',
  ],
  async run({ checkpoint, from, file, partial = false, 'unknown-keys': acceptsUnknownKeys = false }) {
    if (partial && file === undefined) throw new UsageError('--partial goes with --file')
    if (from !== undefined && file !== undefined) throw new UsageError('--from and --file exclude each other')
    if (acceptsUnknownKeys && file !== undefined)
      throw new UsageError('--unknown-keys and --file exclude each other')
    const position = from === undefined ? undefined : positionOf(from)
    const kept = checkpoint === undefined ? [] : await readCheckpoints(checkpoint)
    if (file !== undefined) {
      const signer = await signerAtHand()
      if (!signer)
        report('There is no key at hand (AUDIT_HMAC_KEY, SECRET_KEY): signatures are not verified.')
      const { fault, state, removedUpTo, beginsAt } = await verifyFile(file, {
        signer,
        kept,
        isPartial: partial,
      })
      conclude(fault, state)
      if (removedUpTo > 0) print(`Positions up to ${removedUpTo} were removed by retention.`)
      if (beginsAt !== undefined)
        report(`The file begins at position ${beginsAt}: nothing in it says what was before.`)
      if (kept.length === 0)
        report('No checkpoint was given: whoever wrote the whole file anew is not found out.')
      return
    }
    await withSetUpServices(async ({ auditChain }) => {
      const verification = await auditChain.verify({
        kept,
        acceptsUnknownKeys,
        ...(position !== undefined && { from: position }),
      })
      const { fault, state, removedUpTo, start } = verification
      conclude(fault, state)
      if (removedUpTo > 0) print(`Positions up to ${removedUpTo} were removed by retention.`)
      if (start.position > removedUpTo) print(`It began at the checkpoint of position ${start.position}.`)
      const { count } = await auditChain.backlog()
      print(`${state.last.position - state.coveredUpTo} after the last checkpoint, ${count} not sealed yet.`)
    })
  },
})

export const auditCheckpoint = defineCommand({
  path: 'audit checkpoint',
  summary: 'Seal the audit trail and print a signed checkpoint, to be kept elsewhere',
  flags: {},
  examples: ['postern audit checkpoint >> checkpoints.jsonl'],
  async run() {
    await withSetUpServices(async ({ auditChain }) => {
      const checkpoint = await auditChain.checkpoint()
      if (!checkpoint) throw new StartupError('The audit trail is empty.')
      print(JSON.stringify(presentCheckpoint(checkpoint)))
    })
  },
})

export const auditExport = defineCommand({
  path: 'audit export',
  summary: 'Print every sealed event of all environments as lines of JSON',
  details: [
    'In the order of the chain, so that "postern audit verify --file" can verify it without the database. If retention has',
    'removed the beginning, the first line is the signed checkpoint that it has left there.',
  ],
  flags: {},
  examples: ['postern audit export > audit.jsonl'],
  async run() {
    await withSetUpServices(async ({ auditChain }) => {
      for await (const lines of auditChain.exportLines({})) {
        if (!process.stdout.write(lines) && process.stdout.writable) await once(process.stdout, 'drain')
      }
    })
  },
})

function conclude(
  fault: Fault | undefined,
  { events, personal, erased, checkpoints, unverified }: WalkState,
): void {
  if (fault) {
    const event = fault.eventId === null ? '' : ` (event ${fault.eventId})`
    throw new StartupError(`Position ${fault.position}${event} is not right: ${fault.reason}.`)
  }
  print(
    `${events} events are what was sealed; ${checkpoints} checkpoints fit. What is personal was verified of ${personal}, and erased of ${erased}.`,
  )
  if (unverified > 0)
    report(
      `${unverified} checkpoints fit, but were signed with a key that is not at hand: AUDIT_HMAC_KEY_PREVIOUS names one.`,
    )
}

function positionOf(text: string): number {
  const position = Number(text)
  if (!Number.isSafeInteger(position) || position < 1)
    throw new UsageError('--from must be a position, from 1 on')
  return position
}

async function readCheckpoints(path: string): Promise<Checkpoint[]> {
  const text = await readFile(path, 'utf8').catch((error: Error) => {
    throw new StartupError(`Cannot read ${path}: ${error.message}.`, { cause: error })
  })
  const entries =
    parsed(text) ??
    text
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map(parsed)
  const all = [entries].flat()
  const checkpoints = all.flatMap((entry) => parseCheckpoint(entry) ?? [])
  if (checkpoints.length === 0 || checkpoints.length < all.length)
    throw new StartupError(`${path} holds something else than checkpoints, or nothing.`)
  return checkpoints
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What verifies signatures, as far as this machine has keys; it needs no database. */
async function signerAtHand() {
  const { audit, secretKey, dataDir, previousSecretKey } = loadConfig()
  const found = await findSecretKey({ given: secretKey, dataDir, mayGenerate: false }).catch(() => undefined)
  const vault = found === undefined ? undefined : createVault(found, previousSecretKey)
  const signer = createCheckpointSigner({ vault, ...audit })
  return signer.hasKey ? signer : undefined
}
