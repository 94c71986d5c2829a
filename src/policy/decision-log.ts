import { lt, sql } from 'drizzle-orm'
import type { Config } from '../config.ts'
import type { Database } from '../db/client.ts'
import { isUnavailable } from '../db/errors.ts'
import { prune } from '../db/prune.ts'
import { decisionLog } from '../db/schema.ts'
import { newId } from '../ids.ts'
import type { Decision, Question } from './engine/model.ts'

/** A decision as it is logged. */
export type LoggedDecision = typeof decisionLog.$inferInsert

export type DecisionLog = ReturnType<typeof createDecisionLog>

type Dependencies = {
  database: Database
  config: Config['decisionLog']
  /** Where DECISION_LOG=log goes. */
  write: (decision: LoggedDecision) => void
}

const FLUSH_MS = 1000
const BATCH = 500
/** While the database is away, so many are kept; further ones are counted and let go. */
const MOST_KEPT = 10_000

/** Writes down what was decided, after the answer and in batches: no question waits for it, and none fails by it. */
export function createDecisionLog({ database: { db }, config, write }: Dependencies) {
  let kept: LoggedDecision[] = []
  let timer: NodeJS.Timeout | undefined
  let flushing: Promise<void> | undefined
  let lost = 0

  async function flush(): Promise<void> {
    while (kept.length > 0) {
      const batch = kept.slice(0, BATCH)
      try {
        await insert(batch)
      } catch {
        if (kept.length > MOST_KEPT) lost += kept.splice(MOST_KEPT).length
        return
      }
      kept = kept.slice(batch.length)
    }
  }

  /** One that cannot be written, as of an environment that is gone, is let go, and does not hold up the others. */
  async function insert(batch: LoggedDecision[]): Promise<void> {
    try {
      await db.insert(decisionLog).values(batch)
    } catch (error) {
      if (!(error instanceof Error) || isUnavailable(error)) throw error
      if (batch.length === 1) {
        lost++
        return
      }
      const middle = batch.length >> 1
      await insert(batch.slice(0, middle))
      await insert(batch.slice(middle))
    }
  }

  function flushLater(): void {
    timer ??= setTimeout(() => {
      timer = undefined
      flushing ??= flush().finally(() => {
        flushing = undefined
        if (kept.length > 0) flushLater()
      })
    }, FLUSH_MS).unref()
  }

  return {
    isOn: config.target !== 'off',

    record(
      environmentId: string,
      { user, action, resource }: Question,
      decision: Decision,
      { decidedAt, requestId }: { decidedAt: Date; requestId: string | undefined },
    ): void {
      if (config.sample < 1 && Math.random() >= config.sample) return
      const logged: LoggedDecision = {
        id: newId(),
        environmentId,
        decidedAt,
        userKey: storable(user.key),
        action: storable(action.name),
        resource: storable(resource.key === undefined ? resource.type : `${resource.type}:${resource.key}`),
        tenant: resource.tenant === undefined ? null : storable(resource.tenant),
        isAllowed: decision.allowed,
        reason: decision.source ?? decision.refusal ?? 'not_allowed',
        requestId: requestId ?? null,
      }
      if (config.target === 'log') {
        write(logged)
        return
      }
      if (kept.length >= MOST_KEPT) {
        lost++
        return
      }
      kept.push(logged)
      flushLater()
    },

    /** How many could not be written. */
    lost: (): number => lost,

    /** Removes decisions older than DECISION_LOG_RETENTION_DAYS. */
    async prune(signal?: AbortSignal): Promise<void> {
      await prune(
        db,
        decisionLog,
        lt(decisionLog.decidedAt, sql`now() - make_interval(days => ${config.retentionDays})`),
        signal,
      )
    },

    /** Writes what is still kept. */
    async close(): Promise<void> {
      clearTimeout(timer)
      await flushing
      await flush()
    },
  }
}

const LONGEST = 1024

/** As much of a text from a request as a row can hold. */
const storable = (text: string): string => text.slice(0, LONGEST).replaceAll('\0', '').toWellFormed()
