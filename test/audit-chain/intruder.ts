import type pg from 'pg'
import { hashOf } from '../../src/audit/canonical.ts'

const TABLES = ['audit_events', 'audit_chain', 'audit_personal_data', 'audit_checkpoints', 'audit_unsealed']

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
