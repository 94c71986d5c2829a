import fc from 'fast-check'
import t from 'tap'
import type { Checkpoint } from '../../src/audit/signing.ts'
import { SYSTEM } from '../../src/principal.ts'
import { createServices } from '../../src/services.ts'
import { SECRET_KEY, testConfig } from '../helpers/config.ts'
import { freshDatabase } from '../helpers/database.ts'
import { asIntruder, events, inAnotherProcess, putInBelow, rememberTrail, rewriteFrom } from './intruder.ts'

const DAY = 86_400_000
const RETENTION_DAYS = 30

/** What happens to a trail in the course of its life. */
type Step =
  | { kind: 'append'; people: number[] }
  | { kind: 'erase'; person: number }
  | { kind: 'pass'; days: number }
  | { kind: 'checkpoint' }

const person = fc.integer({ min: 0, max: 4 })
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('append' as const),
        people: fc.array(person, { minLength: 1, maxLength: 6 }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('erase' as const), person }) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('pass' as const), days: fc.integer({ min: 1, max: 25 }) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('checkpoint' as const) }) },
  ),
  { minLength: 2, maxLength: 12 },
)

/** One thing that somebody with SQL does to the sealed part; `at` says where in it. */
const KINDS = [
  'none',
  'edit',
  'remove',
  'cut',
  'swap',
  'insert',
  'below',
  'rewrite',
  'personal',
  'end',
] as const
const tampering = fc.record({
  kind: fc.constantFrom(...KINDS),
  at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
})

/** The trail as it is read by somebody who knows nothing of hashes: what an honest history may lose is left out. */
const NAIVE = `
  select c.position, e.*, coalesce(p.data::text, 'erased') as personal
  from audit_chain c left join audit_events e on e.id = c.audit_event_id
  left join audit_personal_data p on p.audit_event_id = e.id order by c.position`

t.test('a trail is not right if and only if somebody has changed it', async (t) => {
  let now = Date.now()
  const { url } = await freshDatabase(t)
  const services = createServices(testConfig({ AUDIT_RETENTION_DAYS: String(RETENTION_DAYS) }), {
    databaseUrl: url,
    secretKey: SECRET_KEY,
    clock: { now: () => new Date(now) },
  })
  t.teardown(async () => await services.close())
  const { audit, database } = services
  const { pool } = database
  let auditChain = inAnotherProcess(services)
  const ids = Array.from({ length: 5 }, (_, index) => `00000000-0000-7000-8000-00000000010${index}`)

  async function live(step: Step, kept: Checkpoint[]): Promise<void> {
    if (step.kind === 'append') {
      for (const index of step.people)
        await audit.append({
          action: 'user.updated',
          caller: { ...SYSTEM, address: '192.0.2.7' },
          target: { type: 'user', id: ids[index] ?? '' },
          details: { fields: ['email'], nested: { b: [1, null], a: 'ä' } },
          personal: { email: `${index}@postern.test` },
        })
      // The database has its own clock; the events are as old as the test wants them.
      await asIntruder(pool, async (client) => {
        await client.query(
          `update audit_events e set occurred_at = to_timestamp($1 / 1000.0) from audit_unsealed u
          where u.audit_event_id = e.id`,
          [now],
        )
      })
      await auditChain.seal()
    } else if (step.kind === 'erase')
      await pool.query('delete from audit_personal_data where subject_id = $1', [ids[step.person]])
    else if (step.kind === 'checkpoint') {
      const checkpoint = await auditChain.checkpoint()
      if (checkpoint) kept.push(checkpoint)
    } else {
      now += step.days * DAY
      await auditChain.applyRetention()
    }
  }

  async function removedUpTo(): Promise<number> {
    const { rows } = await pool.query<{ position: string | null }>(
      'select max(removed_up_to) as position from audit_checkpoints',
    )
    return Number(rows[0]?.position ?? 0)
  }

  /** Does nothing where there is nothing to do it to. */
  async function tamper(kind: (typeof KINDS)[number], at: number): Promise<void> {
    const sealed = await events(pool)
    const index = Math.floor(at * sealed.length)
    const [one, next] = sealed.slice(index)
    if (!one) return
    const { position, id } = one
    if (kind === 'rewrite') return await rewriteFrom(pool, position, `details = '{"fields": []}'`)
    await asIntruder(pool, async (client) => {
      switch (kind) {
        case 'edit':
          await client.query(`update audit_events set details = '{"fields": []}' where id = $1`, [id])
          break
        case 'remove':
          await client.query('delete from audit_events where id = $1', [id])
          break
        case 'cut':
          await client.query('delete from audit_events where id = $1', [id])
          await client.query('delete from audit_chain where position = $1', [position])
          await client.query('update audit_chain set position = position + 1000000 where position > $1', [
            position,
          ])
          await client.query('update audit_chain set position = position - 1000001 where position > 1000000')
          break
        case 'swap':
          if (!next) break
          await client.query(
            'update audit_chain set audit_event_id = gen_random_uuid() where position = $1',
            [position],
          )
          await client.query('update audit_chain set audit_event_id = $1 where position = $2', [
            id,
            next.position,
          ])
          await client.query('update audit_chain set audit_event_id = $1 where position = $2', [
            next.id,
            position,
          ])
          break
        case 'insert':
          await client.query('update audit_chain set position = position + 1000000 where position >= $1', [
            position,
          ])
          await client.query('update audit_chain set position = position - 999999 where position > 1000000')
          await client.query(
            `insert into audit_events (id, environment_id, occurred_at, action, outcome, actor_type, details)
            select '00000000-0000-7000-8000-000000000200', environment_id, occurred_at, action, outcome, actor_type, details
            from audit_events where id = $1`,
            [id],
          )
          await client.query(
            `delete from audit_unsealed where audit_event_id = '00000000-0000-7000-8000-000000000200'`,
          )
          await client.query(
            `insert into audit_chain (position, audit_event_id, hash) values
            ($1, '00000000-0000-7000-8000-000000000200', 'forged')`,
            [position],
          )
          break
        case 'below':
          await putInBelow(client, [-1, 0, (await removedUpTo()) - 1][Math.floor(at * 3)] ?? 0)
          break
        case 'personal':
          await client.query(
            `update audit_personal_data set data = data || '{"email": "x@y.test"}' where audit_event_id = $1`,
            [id],
          )
          break
        case 'end':
          await client.query(
            'delete from audit_events where id in (select audit_event_id from audit_chain where position >= $1)',
            [position],
          )
          await client.query('delete from audit_chain where position >= $1', [position])
          await client.query('delete from audit_checkpoints where position >= $1', [position])
          break
      }
    })
  }

  /** Nothing has ever happened, and no process has seen anything. */
  async function beginAnew(): Promise<void> {
    auditChain = inAnotherProcess(services)
    await asIntruder(pool, async (client) => {
      for (const table of [
        'audit_chain',
        'audit_checkpoints',
        'audit_personal_data',
        'audit_events',
        'audit_unsealed',
      ])
        await client.query(`delete from ${table}`)
    })
  }

  await t.test('what is put in before its beginning is found, and not cleared away', async (t) => {
    await beginAnew()
    await live({ kind: 'append', people: [0, 1, 2, 3] }, [])
    await live({ kind: 'pass', days: RETENTION_DAYS + 1 }, [])
    await live({ kind: 'append', people: [4] }, [])
    const removed = await removedUpTo()
    t.equal(removed, 4)

    for (const position of [-1, 0, removed - 1, removed]) {
      const restore = await rememberTrail(pool)
      await asIntruder(pool, async (client) => await putInBelow(client, position))
      now += (RETENTION_DAYS + 1) * DAY

      t.match((await auditChain.verify()).fault, { position, reason: /before the beginning/ })
      await t.rejects(auditChain.applyRetention(), { message: /before the beginning/ })
      t.equal((await events(pool))[0]?.position, position, 'it stays')

      now -= (RETENTION_DAYS + 1) * DAY
      await restore()
    }
    t.equal((await auditChain.verify()).fault, undefined)
  })

  await fc.assert(
    fc.asyncProperty(steps, tampering, async (history, { kind, at }) => {
      await beginAnew()
      const kept: Checkpoint[] = []
      for (const step of history) await live(step, kept)
      const last = await auditChain.checkpoint()
      if (last) kept.push(last)
      const honest = await auditChain.verify({ kept })
      const before = JSON.stringify((await pool.query(NAIVE)).rows)

      await tamper(kind, at)
      const after = JSON.stringify((await pool.query(NAIVE)).rows)
      const { fault } = await auditChain.verify({ kept })

      t.equal(honest.fault, undefined, JSON.stringify(history))
      t.equal(fault !== undefined, before !== after, JSON.stringify({ history, kind, at, fault }))
    }),
    { numRuns: 40 },
  )
})
