import { createHash, createHmac } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { verifyFile } from '../../src/audit/export.ts'
import { presentCheckpoint } from '../../src/audit/schemas.ts'
import { type Checkpoint, createCheckpointSigner } from '../../src/audit/signing.ts'
import { createServices } from '../../src/services.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD, SECRET_KEY, testConfig } from '../helpers/config.ts'
import { isProblem } from '../helpers/hostile.ts'
import { walk } from '../helpers/lists.ts'
import { isInTime } from '../policy/in-time.ts'
import { asIntruder, events, inAnotherProcess, rememberTrail, rewriteFrom } from './intruder.ts'

const HMAC_KEY = 'a key for checkpoints that only the tests have'
const DAY = 86_400_000

type Line = Record<'id' | 'action', string> & Record<'target_type' | 'account_id' | 'actor_id', string | null>

/** JSON in the form of RFC 8785. */
function sorted(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(sorted)}]`
  const keys = Object.keys(value).sort()
  return `{${keys.map((key) => `${JSON.stringify(key)}:${sorted((value as Record<string, unknown>)[key])}`)}}`
}

/** Some changes by several people, sealed. */
async function aTrail(postern: TestApp, changes = 12): Promise<void> {
  const { root, rootId } = postern
  for (let index = 0; index < changes; index++)
    await root.patch(`/api/v1/users/${rootId}`, { full_name: `Root ${index}`, phone_number: `${index}` })
  await postern.services.auditChain.seal()
}

/** A statement that makes events of 50 minutes ago; those with a key for their repetitions are open refusals. */
const manyEvents = (count: number, repeatKey = 'null'): string => `
  insert into audit_events (id, environment_id, occurred_at, action, outcome, actor_type, details, repeat_key)
  select gen_random_uuid(), (select id from environments limit 1), now() - interval '50 minutes', 'sign_in.refused',
    'refused', 'anonymous', '{}', ${repeatKey} from generate_series(1, ${count}) n`

const faultOf = async ({ services }: TestApp, kept: Checkpoint[] = []) =>
  (await services.auditChain.verify({ kept })).fault

t.test('the chain of the audit trail', async (t) => {
  const postern = await buildTestApp(t)
  const { services, root, anonymous } = postern
  const { auditChain, database } = services
  const { pool } = database

  await t.test('holds every event once, in an order without gaps', async (t) => {
    await aTrail(postern)

    const { rows } = await pool.query<{ positions: string[]; events: string; sealed: string }>(`
      select array_agg(position order by position) as positions, (select count(*) from audit_events) as events,
        count(distinct audit_event_id) as sealed from audit_chain`)
    const [{ positions = [], events: all, sealed } = { events: '', sealed: '' }] = rows

    t.ok(positions.length > 12)
    t.same(
      positions.map(Number),
      positions.map((_, index) => index + 1),
    )
    t.equal(sealed, all)
    t.equal(await faultOf(postern), undefined)
    t.same(await auditChain.backlog(), { count: 0, oldestAt: null })
  })

  await t.test('is sealed by several processes at once, while others write', async (t) => {
    const writers = Array.from({ length: 3 }, () => aTrail(postern, 10))
    const sealers = Array.from({ length: 5 }, () => auditChain.seal())

    await Promise.all([...writers, ...sealers])
    await auditChain.seal()
    const { fault, state } = await auditChain.verify()

    t.equal(fault, undefined)
    t.equal(state.events, (await events(pool)).length)
  })

  await t.test('is sealed and signed by itself while the service runs, and says how far it is', async (t) => {
    await root.patch(`/api/v1/users/${postern.rootId}`, { full_name: 'Not sealed yet' })
    const waiting = (await anonymous.get('/metrics')).body

    auditChain.start()

    t.match(waiting, /^postern_audit_unsealed_events [1-9]/m)
    t.ok(await isInTime(async () => (await auditChain.backlog()).count === 0))
    t.ok(await isInTime(async () => (await root.get('/api/v1/audit-checkpoints')).body !== '[]'))
    t.match((await anonymous.get('/metrics')).body, /^postern_audit_unsealed_events 0$/m)
    await auditChain.stop()
  })

  await t.test('waits for a transaction that is still under way, and loses nothing of it', async (t) => {
    const client = await pool.connect()
    await client.query('begin')
    await client.query(`insert into audit_events (id, environment_id, action, outcome, actor_type, details)
      select '00000000-0000-7000-8000-00000000000a', id, 'user.updated', 'success', 'system', '{}' from environments limit 1`)
    await aTrail(postern, 3)
    const before = await auditChain.verify()
    await client.query('commit')
    client.release()
    await auditChain.seal()

    const after = await auditChain.verify()

    t.same([before.fault, after.fault], [undefined, undefined])
    t.equal(after.state.events, before.state.events + 1)
  })

  await t.test('refuses changes to what is sealed, and to what is not', async (t) => {
    await root.patch(`/api/v1/users/${postern.rootId}`, { full_name: 'Not sealed yet' })
    for (const statement of [
      `update audit_events set action = 'user.created'`,
      `update audit_events set repeat_count = 2`,
      'delete from audit_events',
      'truncate audit_events cascade',
      `update audit_chain set hash = ''`,
      'delete from audit_chain',
      'truncate audit_chain',
      'truncate audit_checkpoints',
    ])
      await t.rejects(
        pool.query(statement),
        { message: 'the audit trail is kept as it was written' },
        statement,
      )
    await auditChain.seal()
    t.equal(await faultOf(postern), undefined)
  })

  await t.test('takes a refusal when it is counted up no more', async (t) => {
    const refuse = () =>
      anonymous.post('/api/v1/auth/login', { email: 'nobody@postern.test', password: PASSWORD })
    await refuse()
    await auditChain.seal()
    await refuse()
    const open = await auditChain.backlog()
    await asIntruder(pool, async (client) => {
      await client.query(
        `update audit_events set occurred_at = now() - interval '3 minutes' where repeat_key is not null`,
      )
    })
    await auditChain.seal()
    await refuse()

    const { rows } = await pool.query<{ repeat_count: number; position: string | null }>(`
      select repeat_count, position from audit_events left join audit_chain on audit_event_id = id
      where action = 'sign_in.refused' order by id`)

    t.equal(open.count, 1)
    t.same(
      rows.map(({ repeat_count, position }) => [repeat_count, position !== null]),
      [
        [2, true],
        [1, false],
      ],
    )
    t.equal(await faultOf(postern), undefined)
  })

  await t.test('shows whatever an intruder does to it', async (t) => {
    const restore = await rememberTrail(pool)
    const [first, second, third] = (await events(pool)).slice(-6)
    const last = (await events(pool)).at(-1)
    const personal = (
      await pool.query<{ id: string }>(`select audit_event_id as id from audit_personal_data p
      join audit_chain c using (audit_event_id) order by position desc limit 1`)
    ).rows[0]
    const event = (id: string | undefined) => `where id = '${id}'`
    const link = (id: string | undefined) => `where audit_event_id = '${id}'`

    for (const [what, statements, found] of [
      ...[
        `action = 'user.created'`,
        `outcome = 'refused'`,
        `occurred_at = occurred_at + interval '1 millisecond'`,
        `actor_id = gen_random_uuid()::text`,
        `actor_type = 'system'`,
        `target_id = gen_random_uuid()::text`,
        `target_type = null`,
        `account_id = null`,
        `request_id = 'another'`,
        `details = details || '{"fields": []}'`,
        `personal_commitment = null`,
        `repeat_count = 2`,
        `environment_id = gen_random_uuid()`,
      ].map((change) => [
        `an edited event: ${change}`,
        [`update audit_events set ${change} ${event(second?.id)}`],
        second,
      ]),
      ['a removed event', [`delete from audit_events ${event(second?.id)}`], second],
      [
        'an event removed with its place',
        [`delete from audit_chain ${link(second?.id)}`, `delete from audit_events ${event(second?.id)}`],
        { position: second?.position, id: null },
      ],
      [
        'an event removed with its place, and those after it moved up',
        [
          `delete from audit_chain ${link(second?.id)}`,
          `delete from audit_events ${event(second?.id)}`,
          `update audit_chain set position = position + 1000000 where position > ${second?.position}`,
          `update audit_chain set position = position - 1000001 where position > 1000000`,
        ],
        { position: second?.position, id: third?.id },
      ],
      [
        'two events in each other’s place',
        [
          `update audit_chain set audit_event_id = gen_random_uuid() ${link(second?.id)}`,
          `update audit_chain set audit_event_id = '${second?.id}' ${link(third?.id)}`,
          `update audit_chain set audit_event_id = '${third?.id}' where position = ${second?.position}`,
        ],
        { position: second?.position, id: third?.id },
      ],
      [
        'an event put in, with a place',
        [
          `update audit_chain set position = position + 1000000 where position > ${first?.position}`,
          `update audit_chain set position = position - 999999 where position > 1000000`,
          `insert into audit_events select '00000000-0000-7000-8000-000000000001', environment_id, occurred_at, action, outcome,
            actor_type, actor_id, target_type, target_id, account_id, request_id, details, null, null, 1
            from audit_events ${event(first?.id)}`,
          `insert into audit_chain (position, audit_event_id, hash)
            select position + 1, '00000000-0000-7000-8000-000000000001', 'x' from audit_chain ${link(first?.id)}`,
        ],
        { position: second?.position, id: '00000000-0000-7000-8000-000000000001' },
      ],
      [
        'an event put in, without a place',
        [
          `insert into audit_events select '00000000-0000-7000-8000-000000000002', environment_id, occurred_at, action, outcome,
            actor_type, actor_id, target_type, target_id, account_id, request_id, details, null, null, 1
            from audit_events ${event(first?.id)}`,
          `delete from audit_unsealed ${link('00000000-0000-7000-8000-000000000002')}`,
        ],
        { position: Number(last?.position) + 1, id: '00000000-0000-7000-8000-000000000002' },
      ],
      [
        'an event removed before it is sealed',
        [`insert into audit_unsealed values ('00000000-0000-7000-8000-000000000003')`],
        { position: Number(last?.position) + 1, id: '00000000-0000-7000-8000-000000000003' },
      ],
      ['an edited hash', [`update audit_chain set hash = 'x' ${link(second?.id)}`], second],
      [
        'what is personal, edited',
        [`update audit_personal_data set data = data || '{"address": "192.0.2.1"}' ${link(personal?.id)}`],
        { position: undefined, id: personal?.id },
      ],
    ] as [string, string[], { position: number | undefined; id: string | null | undefined }][]) {
      await asIntruder(pool, async (client) => {
        for (const statement of statements) await client.query(statement)
      })

      const fault = await faultOf(postern)

      t.equal(fault?.eventId, found.id, what)
      if (found.position !== undefined) t.equal(fault?.position, found.position, what)
      await restore()
    }
    t.equal(await faultOf(postern), undefined, 'all is as it was')
  })

  await t.test('shows an event that is dated back', async (t) => {
    const restore = await rememberTrail(pool)
    await pool.query(`insert into audit_events (id, environment_id, occurred_at, action, outcome, actor_type, details)
      select '00000000-0000-7000-8000-000000000004', environment_id, now() - interval '3 days', action, outcome, 'system', '{}'
      from audit_events limit 1`)
    await inAnotherProcess(services).seal()

    t.equal((await faultOf(postern))?.eventId, '00000000-0000-7000-8000-000000000004')
    await restore()
  })

  await t.test('is told from one that was written anew by its checkpoints', async (t) => {
    const before = await auditChain.checkpoint()
    await aTrail(postern)
    const kept = await auditChain.checkpoint()
    const restore = await rememberTrail(pool)
    if (!before || !kept) throw new Error('there is no checkpoint')

    await rewriteFrom(pool, before.position + 3, `action = 'user.created'`)
    const byStored = await faultOf(postern)
    await asIntruder(pool, async (client) => {
      await client.query('delete from audit_checkpoints where position > $1', [before.position])
    })
    const unseen = await faultOf(postern)
    const byKept = await faultOf(postern, [kept])
    await t.rejects(auditChain.seal(), { message: /written anew/ }, 'who has seen it adds nothing to it')
    await t.rejects(auditChain.checkpoint(), { message: /written anew/ }, 'and signs nothing')
    await inAnotherProcess(services).checkpoint()
    const afterwards = await faultOf(postern, [kept])

    for (const fault of [byStored, byKept, afterwards]) {
      t.equal(fault?.position, kept.position)
      t.match(fault?.reason, `written anew after position ${before.position}`)
    }
    t.equal(unseen, undefined, 'without a checkpoint nobody can tell')
    await restore()
  })

  await t.test('is not taken for whole when its end is missing', async (t) => {
    await aTrail(postern)
    const kept = await auditChain.checkpoint()
    const restore = await rememberTrail(pool)
    if (!kept) throw new Error('there is no checkpoint')
    const cut = kept.position - 4
    await asIntruder(pool, async (client) => {
      await client.query(
        'delete from audit_events where id in (select audit_event_id from audit_chain where position >= $1)',
        [cut],
      )
      await client.query('delete from audit_chain where position >= $1', [cut])
    })

    const byStored = await faultOf(postern)
    await asIntruder(
      pool,
      async (client) => await client.query('delete from audit_checkpoints where position >= $1', [cut]),
    )
    const byKept = await faultOf(postern, [kept])

    t.match([byStored, byKept], [{ position: cut }, { position: cut }])
    await t.rejects(auditChain.checkpoint(), { message: /written anew/ })
    await restore()
  })

  await t.test('is not covered by a checkpoint under a key that only the intruder has', async (t) => {
    const kept = await auditChain.checkpoint()
    const restore = await rememberTrail(pool)
    if (!kept) throw new Error('there is no checkpoint')
    const intruder = createCheckpointSigner({
      vault: undefined,
      hmacKey: 'a key of the intruder',
      previousHmacKey: undefined,
    })
    await rewriteFrom(pool, kept.position - 2, `action = 'user.created'`)
    await asIntruder(pool, async (client) => {
      const { rows } = await client.query('select hash from audit_chain where position = $1', [kept.position])
      const { signature } = intruder.sign({ ...kept, hash: rows[0].hash })
      await client.query('delete from audit_checkpoints where position > $1', [kept.position - 3])
      await client.query(
        `insert into audit_checkpoints (id, position, hash, created_at, signature)
        values (gen_random_uuid(), $1, $2, $3, $4)`,
        [kept.position, rows[0].hash, kept.createdAt, signature],
      )
    })

    const { state, ...lenient } = await auditChain.verify({ acceptsUnknownKeys: true })

    t.match(await faultOf(postern), { position: kept.position, reason: /a key that is not at hand/ })
    t.match(await faultOf(postern, [kept]), { position: kept.position })
    t.equal(lenient.fault, undefined)
    t.equal(state.unverified, 1)
    t.ok(state.coveredUpTo < kept.position, 'it counts for nothing')
    await restore()
  })

  await t.test('does not take a checkpoint of somebody else', async (t) => {
    const restore = await rememberTrail(pool)
    const kept = await auditChain.checkpoint()
    if (!kept) throw new Error('there is no checkpoint')
    const forged = { ...kept, removedUpTo: 1 }
    t.match(await faultOf(postern, [forged]), { position: kept.position, reason: /not one of ours/ })
    t.equal(await faultOf(postern, [kept]), undefined)

    for (const change of [
      `removed_up_to = ${kept.position}`,
      `created_at = created_at - interval '1 day'`,
      `hash = 'x'`,
    ]) {
      await asIntruder(pool, async (client) => {
        await client.query(`update audit_checkpoints set ${change} where position = $1`, [kept.position])
      })
      t.equal((await faultOf(postern))?.position, kept.position, change)
      await restore()
      await auditChain.checkpoint()
    }
  })

  await t.test('is left as it is when the process ends, and goes on in the next', async (t) => {
    await pool.query(manyEvents(5000))
    // So slow that there is something left to do.
    await pool.query(`create function linger() returns trigger language plpgsql as
      $$ begin perform pg_sleep(0.3); return null; end $$`)
    await pool.query(
      'create trigger linger before insert on audit_chain for each statement execute function linger()',
    )
    const sealed = async () => (await events(pool)).length
    const before = await sealed()
    const process = inAnotherProcess(services)

    process.start()
    t.ok(await isInTime(async () => (await sealed()) > before))
    await process.stop()
    const left = (await auditChain.backlog()).count
    await pool.query('drop trigger linger on audit_chain')
    await auditChain.seal()

    t.ok(left > 1000, 'it did not go on to the end')
    t.ok((await auditChain.backlog()).count < 5, 'but for refusals that are still open')
    t.equal(await faultOf(postern), undefined)
  })

  await t.test('takes any number of refusals that were left open, and signs in between', async (t) => {
    const before = (await events(pool)).length
    await pool.query(manyEvents(11_000, `'open ' || n`))

    await auditChain.seal()

    t.equal((await events(pool)).length, before + 11_000)
    const { state, fault } = await auditChain.verify()
    t.equal(fault, undefined)
    t.ok(state.coveredUpTo >= before + 10_000)
  })
})

t.test('checkpoints', async (t) => {
  const postern = await buildTestApp(t)
  const { services, root, person, anonymous } = postern
  const { auditChain, database } = services
  for (let round = 0; round < 3; round++) {
    await aTrail(postern, 3)
    await auditChain.checkpoint()
  }

  await t.test('are listed, the last one first, for whoever reads the trail everywhere', async (t) => {
    const all = (await root.get('/api/v1/audit-checkpoints')).json<{ position: number }[]>()
    const walked = await walk(root, '/api/v1/audit-checkpoints?limit=1')
    const counted = await root.get('/api/v1/audit-checkpoints?total=true&sort=position&limit=1')
    const admin = await person('ACCOUNT_ADMIN')

    t.equal(all.length, 3)
    t.same(
      all.map(({ position }) => position),
      all.map(({ position }) => position).sort((a, b) => b - a),
    )
    t.same(walked, all)
    t.equal(counted.headers['x-total-count'], '3')
    t.same(counted.json(), all.slice(-1))
    isProblem(t, await admin.client.get('/api/v1/audit-checkpoints'), 'insufficient_scope')
    isProblem(t, await anonymous.get('/api/v1/audit-checkpoints'), 'authentication_required')
    isProblem(t, await root.get('/api/v1/audit-checkpoints?sort=hash'), 'validation_failed')
    isProblem(t, await root.get('/api/v1/audit-checkpoints?after=x'), 'validation_failed')
  })

  await t.test('are where a verification can begin', async (t) => {
    const [last, middle] = (await root.get('/api/v1/audit-checkpoints')).json<{ position: number }[]>()
    const { fault, state, start } = await auditChain.verify({ from: last?.position ?? 0 })

    t.equal(fault, undefined)
    t.equal(start.position, middle?.position)
    t.equal(state.events, (last?.position ?? 0) - (middle?.position ?? 0))
  })

  await t.test('are the same one as long as nothing happens', async (t) => {
    await auditChain.seal()
    t.equal((await auditChain.checkpoint())?.signature, (await auditChain.checkpoint())?.signature)
  })

  await t.test('outlive a change of the key that signs them', async (t) => {
    const served = { databaseUrl: postern.databaseUrl, secretKey: SECRET_KEY }
    const other = { secretKey: 'another secret key that only the tests have' }
    const processes = [
      createServices(testConfig({ AUDIT_HMAC_KEY: HMAC_KEY }), served),
      createServices(
        testConfig({ AUDIT_HMAC_KEY: `${HMAC_KEY}!`, AUDIT_HMAC_KEY_PREVIOUS: HMAC_KEY }),
        served,
      ),
      createServices(testConfig({ AUDIT_HMAC_KEY_PREVIOUS: `${HMAC_KEY}!` }), served),
      createServices(testConfig({ SECRET_KEY_PREVIOUS: SECRET_KEY }), { ...served, ...other }),
    ]
    t.teardown(async () => await Promise.all(processes.map(async (one) => await one.close())))
    const kept = await auditChain.checkpoint()

    for (const { auditChain: next } of processes) {
      await next.resign()
      const { fault, state } = await next.verify({ kept: kept ? [kept] : [] })
      t.equal(fault, undefined)
      t.ok(state.checkpoints >= 3)
      t.ok(state.unverified <= 1, 'no more than the one that was kept')
    }
    const { state, fault } = await auditChain.verify({ acceptsUnknownKeys: true })
    t.equal(fault, undefined)
    t.equal(state.unverified, state.checkpoints, 'whoever has the first key only knows that the hashes fit')
    t.match(await faultOf(postern), { reason: /a key that is not at hand/ }, 'which is not enough')
    await asIntruder(database.pool, async (client) => await client.query('delete from audit_checkpoints'))
  })
})

t.test('what is older than AUDIT_RETENTION_DAYS', async (t) => {
  let now = Date.now()
  const clock = { now: () => new Date(now) }
  const postern = await buildTestApp(t, { clock, env: { AUDIT_RETENTION_DAYS: '30' } })
  const { services, root } = postern
  const { auditChain, database } = services
  const { pool } = database
  await aTrail(postern)
  const kept = await auditChain.checkpoint()
  if (!kept) throw new Error('there is no checkpoint')

  await t.test('stays as long as it is younger', async (t) => {
    now += 29 * DAY
    t.equal(await auditChain.applyRetention(), 0)
  })

  await t.test(
    'is removed with what is personal, and the rest is verified from where it ended',
    async (t) => {
      now += 2 * DAY
      await asIntruder(pool, async (client) => {
        await client.query(
          `insert into audit_events (id, environment_id, occurred_at, action, outcome, actor_type, details)
        select gen_random_uuid(), environment_id, to_timestamp($1 / 1000.0), 'user.updated', 'success', 'system', '{}'
        from audit_events limit 5`,
          [now],
        )
      })
      await auditChain.seal()

      const removed = await auditChain.applyRetention()
      const left = await events(pool)
      let exported = ''
      for await (const lines of auditChain.exportLines({})) exported += lines
      const { fault, removedUpTo } = await auditChain.verify({ kept: [kept] })
      const { rows } = await pool.query('select from audit_personal_data')

      t.equal(removed, kept.position)
      t.equal(removedUpTo, kept.position)
      t.equal(left.length, 5)
      t.equal(left[0]?.position, kept.position + 1)
      t.equal(fault, undefined)
      t.equal(rows.length, 0)
      t.equal(await auditChain.applyRetention(), 0, 'what is young stays')
      const [anchor, next] = exported.split('\n')
      t.match(JSON.parse(anchor ?? ''), { position: kept.position, removed_up_to: kept.position })
      t.match(JSON.parse(next ?? ''), { position: kept.position + 1, previous_hash: kept.hash })
    },
  )

  await t.test('cannot be more than retention has removed', async (t) => {
    const restore = await rememberTrail(pool)
    const [first] = await events(pool)
    await asIntruder(pool, async (client) => {
      await client.query('delete from audit_events where id = $1', [first?.id])
      await client.query('delete from audit_chain where audit_event_id = $1', [first?.id])
    })
    t.equal((await faultOf(postern))?.position, first?.position)
    await asIntruder(pool, async (client) => {
      await client.query(
        'update audit_checkpoints set removed_up_to = removed_up_to + 1, position = position + 1',
      )
    })
    t.match(await faultOf(postern), { position: first?.position, reason: /no checkpoint of ours/ })
    await t.rejects(auditChain.checkpoint(), { message: /not ours/ }, 'nor is it signed anew')
    await restore()
  })

  await t.test('is not removed when it is not what was sealed', async (t) => {
    const restore = await rememberTrail(pool)
    now += 31 * DAY
    await asIntruder(
      pool,
      async (client) => await client.query(`update audit_events set action = 'user.created'`),
    )

    await t.rejects(auditChain.applyRetention(), { message: /not what was sealed/ })
    t.equal((await events(pool)).length, 5)
    await restore()
  })

  await t.test('may be everything there is, and the chain goes on', async (t) => {
    await auditChain.applyRetention()
    t.same(await events(pool), [])
    t.equal(await faultOf(postern), undefined)

    await root.patch(`/api/v1/users/${postern.rootId}`, { full_name: 'After all' })
    await auditChain.seal()
    const [next] = await events(pool)

    t.equal(next?.position, kept.position + 6)
    t.equal(await faultOf(postern), undefined)
  })
})

t.test('an export', async (t) => {
  const postern = await buildTestApp(t, { env: { AUDIT_HMAC_KEY: HMAC_KEY } })
  const { services, root, rootId, person, account, anonymous } = postern
  const { auditChain, database } = services
  const there = await account()
  const admin = await person('ACCOUNT_ADMIN', { accountId: there })
  await admin.client.patch('/api/v1/users/me', { full_name: 'Admin' })
  await aTrail(postern, 3)
  const kept = await auditChain.checkpoint()
  if (!kept) throw new Error('there is no checkpoint')
  const folder = await mkdtemp(join(tmpdir(), 'postern-export-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const linesOf = (body: string) =>
    body
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line))
  const signer = createCheckpointSigner({ vault: services.vault, ...services.config.audit })
  const verification = async (lines: unknown[], checkpoints = [kept], isPartial = false) => {
    const path = join(folder, 'audit.jsonl')
    await writeFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
    return await verifyFile(path, { signer, kept: checkpoints, isPartial })
  }
  const verify = async (lines: unknown[], isPartial = false, checkpoints = [kept]) =>
    (await verification(lines, checkpoints, isPartial)).fault
  const response = await root.get('/api/v1/audit-events/export')
  const lines = linesOf(response.body)

  await t.test('has every sealed event, with its place in the chain', async (t) => {
    t.equal(response.statusCode, 200)
    t.match(response.headers['content-type'], /^application\/jsonl/)
    t.same(
      lines.map(({ position, id }) => ({ position, id })),
      await events(database.pool),
    )
    t.match(lines.at(-1), { action: 'user.updated', actor_id: rootId, personal: { address: '127.0.0.1' } })
  })

  await t.test('is filtered as the list is', async (t) => {
    const exported = async (query: string) =>
      linesOf((await root.get(`/api/v1/audit-events/export?${query}`)).body)
    for (const [query, test] of [
      ['action_prefix=user.', ({ action }: Line) => action.startsWith('user.')],
      ['action_prefix=user.u', ({ action }: Line) => action.startsWith('user.u')],
      ['action=user.updated&action_prefix=role', () => false],
      ['target_type=user', ({ target_type }: Line) => target_type === 'user'],
      [`account_id=${there}`, ({ account_id }: Line) => account_id === there],
      [`actor_id=${admin.id}`, ({ actor_id }: Line) => actor_id === admin.id],
    ] as const) {
      const wanted = lines.filter(test)
      t.same(await exported(query), wanted, query)
      const listed = (await root.get(`/api/v1/audit-events?limit=1000&sort=occurred_at&${query}`)).json<
        Line[]
      >()
      t.same(listed.map(({ id }) => id).sort(), wanted.map(({ id }) => id).sort(), query)
    }
    isProblem(t, await root.get('/api/v1/audit-events/export?limit=1'), 'validation_failed')
    isProblem(t, await root.get('/api/v1/audit-events/export?actor_id=%00'), 'validation_failed')
    isProblem(t, await root.get('/api/v1/audit-events?action_prefix=%25'), 'validation_failed')
  })

  await t.test('reaches as far as the list does', async (t) => {
    const own = linesOf((await admin.client.get('/api/v1/audit-events/export')).body)

    t.ok(own.length > 1)
    t.ok(own.every(({ account_id }) => account_id === there))
    isProblem(
      t,
      await admin.client.get(`/api/v1/audit-events/export?account_id=${postern.home}`),
      'account_not_found',
    )
    isProblem(t, await anonymous.get('/api/v1/audit-events/export'), 'authentication_required')
    t.equal(await verify(own, true, []), undefined)
  })

  await t.test('can be verified by what docs/audit.md says, without this program', (t) => {
    const sha = (text: string) => createHash('sha256').update(text).digest('base64url')
    let before = ''
    for (const { hash, previous_hash, personal, personal_salt, ...event } of lines) {
      t.equal(previous_hash, before)
      t.equal(hash, sha(`postern audit 1\n${before}\n${sorted(event)}`))
      const pairs = Object.keys(personal ?? {})
        .sort()
        .map((key) => [key, personal[key]])
      if (personal) t.equal(event['personal_commitment'], sha(`${personal_salt}.${sorted(pairs)}`))
      before = hash
    }
    const { position, hash, removedUpTo, createdAt, signature } = kept
    const signed = ['postern audit checkpoint', position, hash, removedUpTo, createdAt.toISOString()].join(
      '\n',
    )
    t.equal(signature.split('.')[2], createHmac('sha256', HMAC_KEY).update(signed).digest('base64url'))
    t.end()
  })

  await t.test('can be verified without the database', async (t) => {
    const changed = (index: number, change: object) =>
      lines.map((line, at) => (at === index ? { ...line, ...change } : line))
    const [one, two, three, ...rest] = lines
    const address = { personal: { ...lines[4].personal, address: '192.0.2.1' } }

    t.equal(await verify(lines), undefined)
    t.equal(
      await verify(changed(4, { personal: null, personal_salt: null })),
      undefined,
      'what is personal may be gone',
    )
    for (const [what, forged, position] of [
      ['an edited line', changed(3, { action: 'user.created' }), 4],
      ['an edited hash', changed(3, { hash: lines[4].hash }), 4],
      ['what is personal, edited', changed(4, address), 5],
      ['a removed line', [one, two, ...rest], 3],
      ['lines in another order', [one, three, two, ...rest], 2],
      ['a line that comes twice', [one, two, two, three, ...rest], 2],
      ['a line put in', [one, two, { ...two, position: 3 }, three, ...rest], 3],
      ['the end missing', lines.slice(0, -2), lines.length - 1],
    ] as const)
      t.equal((await verify([...forged]))?.position, position, what)
    t.match(await verify(lines, false, [{ ...kept, hash: 'x' }]), {
      position: kept.position,
      reason: /written anew/,
    })
    t.match(await verify(lines.slice(kept.position), true, [{ ...kept, hash: 'x' }]), undefined)
    await t.rejects(verify([{ position: 1 }]), {
      message: 'Line 1 is not one of an export of the audit trail.',
    })
  })

  await t.test('does not hide where it begins', async (t) => {
    const facts = { position: 5, hash: lines[4].hash, removedUpTo: 0, createdAt: new Date() }
    const middle = signer.sign(facts)
    const early = signer.sign({ ...facts, position: 3, hash: lines[2].hash })
    const removal = signer.sign({ ...facts, removedUpTo: 5 })
    const stranger = createCheckpointSigner({
      vault: undefined,
      hmacKey: 'another key',
      previousHmacKey: undefined,
    })
    const headed = (checkpoint: Checkpoint) => [presentCheckpoint(checkpoint), ...lines.slice(5)]

    t.match(await verification(lines), { fault: undefined, beginsAt: undefined, removedUpTo: 0 })
    t.match(
      await verification(lines.slice(3)),
      { fault: undefined, beginsAt: 4 },
      'said, where nothing is known',
    )
    t.match(await verification(lines.slice(5), [middle, kept]), { fault: undefined, beginsAt: 6 })
    t.match(
      await verification(headed(removal), [early, kept]),
      { fault: undefined, beginsAt: undefined, removedUpTo: 5 },
      'retention has removed the rest',
    )
    for (const [what, forged, checkpoints, position] of [
      ['a beginning that a kept checkpoint speaks of', lines.slice(8), [middle, kept], 9],
      ['another end of it than the kept one', lines.slice(5), [{ ...middle, hash: 'x' }, kept], 6],
      ['a checkpoint that is not of retention', headed(middle), [kept], 5],
      ['a checkpoint that was changed', headed({ ...removal, createdAt: new Date(0) }), [kept], 5],
      ['one of another key', headed(stranger.sign({ ...facts, removedUpTo: 5 })), [early, kept], 6],
      ['lines missing after it', [presentCheckpoint(removal), ...lines.slice(6)], [kept], 6],
    ] as const)
      t.equal((await verification([...forged], [...checkpoints])).fault?.position, position, what)
  })
})
