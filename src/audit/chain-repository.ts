import { and, asc, desc, eq, gt, isNotNull, isNull, lt, lte, sql } from 'drizzle-orm'
import type { Database, Executor, Tx } from '../db/client.ts'
import { type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { auditChain, auditCheckpoints, auditEvents, auditPersonalData, auditUnsealed } from '../db/schema.ts'
import { newId } from '../ids.ts'
import { GENESIS, type SealedEvent } from './canonical.ts'
import { type AuditFilters, eventClauses, eventColumns } from './repository.ts'
import type { Checkpoint } from './signing.ts'

/** The end of a chain, or of a part of it. */
export type Link = { position: number; hash: string }

/** What lies apart from an event and can be erased. */
export type PersonalData = { data: Record<string, unknown>; salt: string }

/** One position: the event is null when it is gone. */
export type ChainRow = Link & {
  eventId: string
  event: SealedEvent | null
  personal: PersonalData | null
  checkpoint: Checkpoint | null
}

/** A position as it is exported. */
export type ExportedRow = Link & {
  previousHash: string
  event: SealedEvent
  personal: PersonalData | null
}

/** What waits to be sealed. */
export type Backlog = { count: number; oldestAt: Date | null }

/** A number of our own, so that of all processes one at a time adds to the chain or takes from it. */
const CHAIN_LOCK = 7_076_201_452
/** A refusal is counted up within a minute by the clocks of the processes; then it stays as it is. */
const OPEN_FOR = sql`interval '2 minutes'`

const checkpointColumns = {
  id: auditCheckpoints.id,
  position: auditCheckpoints.position,
  hash: auditCheckpoints.hash,
  removedUpTo: auditCheckpoints.removedUpTo,
  createdAt: auditCheckpoints.createdAt,
  signature: auditCheckpoints.signature,
}

/** `id` is for lists only, and not signed. */
type StoredCheckpoint = Checkpoint & { id: string }

const sortKeys: Record<string, SortKey<StoredCheckpoint>> = {
  position: { by: auditCheckpoints.position, cast: 'bigint', value: ({ position }) => String(position) },
}

/** The names that a list of checkpoints can be sorted by. */
export const CHECKPOINT_SORTS = ['position'] as const

export type ChainRepository = ReturnType<typeof createChainRepository>

/** The SQL of the chain, which is one for all environments. */
export function createChainRepository({ db }: Database) {
  return {
    /** Whether this transaction alone may change the chain; with `isPatient` it waits until it may. */
    async lock(isPatient: boolean, tx: Tx): Promise<boolean> {
      if (isPatient) {
        await tx.execute(sql`select pg_advisory_xact_lock(${CHAIN_LOCK})`)
        return true
      }
      const { rows } = await tx.execute<{ got: boolean }>(
        sql`select pg_try_advisory_xact_lock(${CHAIN_LOCK}) as got`,
      )
      return rows[0]?.got ?? false
    },

    /** The last position. When retention has removed it too, its checkpoint is left. */
    async findHead(ex: Executor = db): Promise<Link> {
      const [last] = await ex
        .select({ position: auditChain.position, hash: auditChain.hash })
        .from(auditChain)
        .orderBy(desc(auditChain.position))
        .limit(1)
      return last ?? (await this.findLatestCheckpoint(ex)) ?? { position: 0, hash: GENESIS }
    },

    /** Whether anything waits to be sealed, and how far the last checkpoint is behind. One short statement. */
    async lookAround(): Promise<{ isWaiting: boolean; uncovered: number; checkpointAgeSeconds: number }> {
      const { rows } = await db.execute<{ waiting: boolean; uncovered: string; age: number }>(sql`
        select exists (select from audit_unsealed) as waiting,
          coalesce((select max(position) from audit_chain), 0)
            - coalesce((select max(position) from audit_checkpoints), 0) as uncovered,
          coalesce(extract(epoch from now() - (select created_at from audit_checkpoints order by position desc limit 1)),
            'infinity')::float8 as age`)
      const { waiting = false, uncovered = '0', age = 0 } = rows[0] ?? {}
      return { isWaiting: waiting, uncovered: Number(uncovered), checkpointAgeSeconds: age }
    },

    /** The hash that is stored at a position. */
    async findHash(position: number, ex: Executor = db): Promise<string | undefined> {
      const [found] = await ex
        .select({ hash: auditChain.hash })
        .from(auditChain)
        .where(eq(auditChain.position, position))
      return found?.hash
    },

    /** What lies where nothing may be: at or before the position that the chain begins after. */
    async findUpTo(
      begin: number,
      ex: Executor = db,
    ): Promise<{ position: number; eventId: string } | undefined> {
      const [found] = await ex
        .select({ position: auditChain.position, eventId: auditChain.auditEventId })
        .from(auditChain)
        .where(lte(auditChain.position, begin))
        .orderBy(asc(auditChain.position))
        .limit(1)
      return found
    },

    /** From now on a repetition of those of the events that are refusals, and old enough, is an event of its own. */
    async closeRefusals(ids: readonly string[], tx: Tx): Promise<void> {
      await tx
        .update(auditEvents)
        .set({ repeatKey: null })
        .where(
          and(
            sql`${auditEvents.id} = any(${sql.param([...ids])}::uuid[])`,
            isNotNull(auditEvents.repeatKey),
            lt(auditEvents.occurredAt, sql`now() - ${OPEN_FOR}`),
          ),
        )
    },

    /** The ids of events that wait, after `after`, the oldest first. What is committed is all that can be seen. */
    async listWaiting(after: string, limit: number, tx: Tx): Promise<string[]> {
      const rows = await tx
        .select({ id: auditUnsealed.auditEventId })
        .from(auditUnsealed)
        .where(gt(auditUnsealed.auditEventId, after))
        .orderBy(asc(auditUnsealed.auditEventId))
        .limit(limit)
      return rows.map(({ id }) => id)
    },

    /** Those of the events that change no more, in the order of their ids, and the ids of those that are sealed already. */
    async readDue(ids: readonly string[], tx: Tx): Promise<{ due: SealedEvent[]; sealedIds: string[] }> {
      const rows = await tx
        .select({ ...eventColumns, position: auditChain.position })
        .from(auditEvents)
        .leftJoin(auditChain, eq(auditChain.auditEventId, auditEvents.id))
        .where(
          and(sql`${auditEvents.id} = any(${sql.param([...ids])}::uuid[])`, isNull(auditEvents.repeatKey)),
        )
        .orderBy(asc(auditEvents.id))
      return {
        due: rows.filter(({ position }) => position === null),
        sealedIds: rows.filter(({ position }) => position !== null).map(({ id }) => id),
      }
    },

    async append(links: readonly (Link & { eventId: string })[], tx: Tx): Promise<void> {
      await tx.execute(sql`
        insert into audit_chain (position, audit_event_id, hash)
        select * from unnest(${sql.param(links.map(({ position }) => position))}::bigint[],
          ${sql.param(links.map(({ eventId }) => eventId))}::uuid[], ${sql.param(links.map(({ hash }) => hash))}::text[])`)
    },

    async stopWaiting(ids: readonly string[], tx: Tx): Promise<void> {
      await tx.execute(
        sql`delete from audit_unsealed where audit_event_id = any(${sql.param([...ids])}::uuid[])`,
      )
    },

    async backlog(): Promise<Backlog> {
      const [found] = await db
        .select({
          count: sql<number>`count(*)::int`,
          oldestAt: sql`min(${auditUnsealed.createdAt})`.mapWith(auditUnsealed.createdAt),
        })
        .from(auditUnsealed)
      return { count: found?.count ?? 0, oldestAt: found?.oldestAt ?? null }
    },

    /** At most `limit` positions after `after`, in order. */
    async readPage(after: number, limit: number, ex: Executor = db): Promise<ChainRow[]> {
      const rows = await ex
        .select({
          position: auditChain.position,
          hash: auditChain.hash,
          eventId: auditChain.auditEventId,
          event: eventColumns,
          personal: { data: auditPersonalData.data, salt: auditPersonalData.salt },
          checkpoint: checkpointColumns,
        })
        .from(auditChain)
        .leftJoin(auditEvents, eq(auditEvents.id, auditChain.auditEventId))
        .leftJoin(auditPersonalData, eq(auditPersonalData.auditEventId, auditChain.auditEventId))
        .leftJoin(auditCheckpoints, eq(auditCheckpoints.position, auditChain.position))
        .where(gt(auditChain.position, after))
        .orderBy(asc(auditChain.position))
        .limit(limit)
      return rows
    },

    /**
     * Those of the positions whose events pass, in order, with the hash before each. To be asked for few positions at a
     * time: events that do not pass are read too.
     */
    async readMatching(
      positions: { after: number; upTo: number } | readonly number[],
      filters: AuditFilters,
      environmentId: string | undefined,
    ): Promise<ExportedRow[]> {
      const areMeant =
        'after' in positions
          ? and(gt(auditChain.position, positions.after), lte(auditChain.position, positions.upTo))
          : sql`${auditChain.position} = any(${sql.param([...positions])}::bigint[])`
      return await db
        .select({
          position: auditChain.position,
          hash: auditChain.hash,
          previousHash: sql<string>`coalesce(
            (select p.hash from audit_chain p where p.position = ${auditChain.position} - 1),
            (select k.hash from audit_checkpoints k where k.position = ${auditChain.position} - 1), ${GENESIS})`,
          event: eventColumns,
          personal: { data: auditPersonalData.data, salt: auditPersonalData.salt },
        })
        .from(auditChain)
        .innerJoin(auditEvents, eq(auditEvents.id, auditChain.auditEventId))
        .leftJoin(auditPersonalData, eq(auditPersonalData.auditEventId, auditChain.auditEventId))
        .where(
          and(
            areMeant,
            environmentId === undefined ? undefined : eq(auditEvents.environmentId, environmentId),
            ...eventClauses(filters),
          ),
        )
        .orderBy(asc(auditChain.position))
    },

    /**
     * The positions of at most `limit` events of an environment, or of one account in it, that come after `after` by id;
     * and the id to go on after, `undefined` at the end.
     */
    async listPositions(
      environmentId: string,
      accountId: string | undefined,
      after: string,
      limit: number,
    ): Promise<{ positions: number[]; upTo: string | undefined }> {
      const ids = db
        .select({ id: auditEvents.id })
        .from(auditEvents)
        .where(
          and(
            eq(auditEvents.environmentId, environmentId),
            accountId === undefined ? undefined : eq(auditEvents.accountId, accountId),
            gt(auditEvents.id, after),
          ),
        )
        .orderBy(asc(auditEvents.id))
        .limit(limit)
        .as('ids')
      const rows = await db
        .select({ id: ids.id, position: auditChain.position })
        .from(ids)
        .leftJoin(auditChain, eq(auditChain.auditEventId, ids.id))
        .orderBy(asc(ids.id))
      return {
        positions: rows.flatMap(({ position }) => position ?? []),
        upTo: rows.length === limit ? rows.at(-1)?.id : undefined,
      }
    },

    /** Events after `after` by id that are neither sealed nor waiting, and the id that this looked up to. */
    async findStray(
      after: string,
      limit: number,
    ): Promise<{ strayId: string | null; upTo: string | undefined }> {
      const { rows } = await db.execute<{ id: string; is_stray: boolean }>(sql`
        select e.id, c.position is null and u.audit_event_id is null as is_stray
        from (select id from audit_events where id > ${after} order by id limit ${limit}) e
        left join audit_chain c on c.audit_event_id = e.id
        left join audit_unsealed u on u.audit_event_id = e.id
        order by e.id`)
      return { strayId: rows.find((row) => row.is_stray)?.id ?? null, upTo: rows.at(-1)?.id }
    },

    /** An event that waits to be sealed, and is not there. */
    async findLostId(): Promise<string | undefined> {
      const [lost] = await db
        .select({ id: auditUnsealed.auditEventId })
        .from(auditUnsealed)
        .leftJoin(auditEvents, eq(auditEvents.id, auditUnsealed.auditEventId))
        .where(isNull(auditEvents.id))
        .limit(1)
      return lost?.id
    },

    async findCheckpoint(position: number, ex: Executor = db): Promise<Checkpoint | undefined> {
      const [found] = await selectCheckpoints(ex).where(eq(auditCheckpoints.position, position))
      return found
    },

    /** The last one at or before `position`. */
    async findLatestCheckpoint(ex: Executor = db, position?: number): Promise<Checkpoint | undefined> {
      const [found] = await selectCheckpoints(ex)
        .where(position === undefined ? undefined : lte(auditCheckpoints.position, position))
        .orderBy(desc(auditCheckpoints.position))
        .limit(1)
      return found
    },

    /** The one that says that the most was removed. */
    async findRetentionCheckpoint(ex: Executor = db): Promise<Checkpoint | undefined> {
      const [found] = await selectCheckpoints(ex)
        .where(gt(auditCheckpoints.removedUpTo, 0))
        .orderBy(desc(auditCheckpoints.removedUpTo), asc(auditCheckpoints.position))
        .limit(1)
      return found
    },

    /** A checkpoint beyond the end of the chain: what it stands for is gone. */
    async findCheckpointBeyondEnd(): Promise<Checkpoint | undefined> {
      const [found] = await selectCheckpoints(db)
        .where(
          sql`${auditCheckpoints.position} > coalesce((select max(position) from audit_chain), ${auditCheckpoints.removedUpTo})`,
        )
        .orderBy(asc(auditCheckpoints.position))
        .limit(1)
      return found
    },

    async listCheckpoints(request: PageRequest): Promise<Page<StoredCheckpoint>> {
      const clauses = pageClauses(request, sortKeys, auditCheckpoints.id)
      const page = clauses.toPage(
        await selectCheckpoints(db)
          .where(clauses.where)
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(auditCheckpoints) } : page
    },

    async insertCheckpoint(checkpoint: Checkpoint, tx: Tx): Promise<void> {
      await tx.insert(auditCheckpoints).values({ ...checkpoint, id: newId() })
    },

    /** Those after `after` whose signature does not begin so, in order. */
    async listSignedOtherwise(prefix: string, after: number, limit: number, tx: Tx): Promise<Checkpoint[]> {
      return await selectCheckpoints(tx)
        .where(
          and(
            gt(auditCheckpoints.position, after),
            sql`not starts_with(${auditCheckpoints.signature}, ${prefix})`,
          ),
        )
        .orderBy(asc(auditCheckpoints.position))
        .limit(limit)
    },

    /** What happens in `work` is retention: the database lets it change what is sealed. */
    async asRetention(work: () => Promise<void>, tx: Tx): Promise<void> {
      await tx.execute(sql`select set_config('postern.audit_retention', 'on', true)`)
      await work()
      await tx.execute(sql`select set_config('postern.audit_retention', 'off', true)`)
    },

    async replaceSignature({ position, signature }: Checkpoint, tx: Tx): Promise<void> {
      await tx.update(auditCheckpoints).set({ signature }).where(eq(auditCheckpoints.position, position))
    },

    /** Removes the events, which are those of the positions after `begin` up to `checkpoint`; it stays in their place. */
    async removeUpTo(
      checkpoint: Checkpoint,
      begin: number,
      eventIds: readonly string[],
      tx: Tx,
    ): Promise<void> {
      const { position } = checkpoint
      await tx.execute(sql`delete from audit_events where id = any(${sql.param([...eventIds])}::uuid[])`)
      await tx
        .delete(auditChain)
        .where(and(gt(auditChain.position, begin), lte(auditChain.position, position)))
      await tx.delete(auditCheckpoints).where(lte(auditCheckpoints.position, position))
      await tx.insert(auditCheckpoints).values({ ...checkpoint, id: newId() })
    },
  }

  function selectCheckpoints(ex: Executor) {
    return ex.select(checkpointColumns).from(auditCheckpoints).$dynamic()
  }
}
