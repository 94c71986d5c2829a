import type pg from 'pg'
import { hashOf } from '../../src/audit/canonical.ts'
import { createAuditChain } from '../../src/audit/chain.ts'
import { createChainRepository } from '../../src/audit/chain-repository.ts'
import { createCheckpointSigner } from '../../src/audit/signing.ts'
import type { Services } from '../../src/services.ts'

const TABLES = ['audit_events', 'audit_chain', 'audit_personal_data', 'audit_checkpoints', 'audit_unsealed']

/** The chain as another process has it, which has seen nothing of it yet. */
export const inAnotherProcess = ({ database, vault, config, clock }: Services) =>
  createAuditChain({
    database,
    chain: createChainRepository(database),
    signer: createCheckpointSigner({ vault, ...config.audit }),
    clock,
    retentionDays: config.audit.retentionDays,
    warn: () => {},
  })

/** Puts in an event of long ago, with a place of its own where nobody looks. */
export async function putInBelow(client: pg.PoolClient, position: number): Promise<void> {
  const id = '00000000-0000-7000-8000-000000000300'
  await client.query('alter table audit_chain drop constraint if exists audit_chain_position_check')
  await client.query(
    `insert into audit_events (id, environment_id, occurred_at, action, outcome, actor_type, details)
    select $1, gen_random_uuid(), now() - interval '300 days', 'user.updated', 'success', 'system', '{}'`,
    [id],
  )
  await client.query('delete from audit_unsealed where audit_event_id = $1', [id])
  await client.query(`insert into audit_chain (position, audit_event_id, hash) values ($1, $2, 'forged')`, [
    position,
    id,
  ])
}

/** Does what whoever has SQL can do: the triggers that guard the trail are told to look away. */
export async function asIntruder(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<unknown>,
): Promise<void> {
  const client = await pool.connect()
  try {
    await client.query('begin')
    await client.query(`select set_config('postern.audit_retention', 'on', true)`)
    await work(client)
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    throw error
  } finally {
    client.release()
  }
}

/** The sealed events, in their order. */
export async function events(pool: pg.Pool): Promise<{ position: number; id: string }[]> {
  const { rows } = await pool.query<{ position: string; id: string }>(
    'select position, audit_event_id as id from audit_chain order by position',
  )
  return rows.map(({ position, id }) => ({ position: Number(position), id }))
}

/** Returns what puts the whole trail back to how it is now. */
export async function rememberTrail(pool: pg.Pool): Promise<() => Promise<void>> {
  for (const table of TABLES) {
    await pool.query(`drop table if exists kept_${table}`)
    await pool.query(`create table kept_${table} as select * from ${table}`)
  }
  return async () =>
    await asIntruder(pool, async (client) => {
      for (const table of TABLES.toReversed()) await client.query(`delete from ${table}`)
      for (const table of TABLES) {
        if (table === 'audit_unsealed') await client.query('delete from audit_unsealed')
        await client.query(`insert into ${table} select * from kept_${table}`)
      }
    })
}

/** Changes the event of one position, and makes the hashes anew from there on, as well as the service itself does. */
export async function rewriteFrom(pool: pg.Pool, position: number, change: string): Promise<void> {
  await asIntruder(pool, async (client) => {
    await client.query(
      `update audit_events set ${change} where id = (select audit_event_id from audit_chain where position = $1)`,
      [position],
    )
    const before = await client.query<{ hash: string }>('select hash from audit_chain where position = $1', [
      position - 1,
    ])
    let previous = before.rows[0]?.hash ?? ''
    const { rows } = await client.query(
      'select * from audit_chain join audit_events on id = audit_event_id where position >= $1 order by position',
      [position],
    )
    for (const row of rows) {
      previous = hashOf(
        Number(row.position),
        {
          id: row.id,
          environmentId: row.environment_id,
          occurredAt: row.occurred_at,
          action: row.action,
          outcome: row.outcome,
          actorType: row.actor_type,
          actorId: row.actor_id,
          targetType: row.target_type,
          targetId: row.target_id,
          accountId: row.account_id,
          requestId: row.request_id,
          details: row.details,
          personalCommitment: row.personal_commitment,
          repeatCount: row.repeat_count,
        },
        previous,
      )
      await client.query('update audit_chain set hash = $1 where position = $2', [previous, row.position])
    }
  })
}
