import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { eventually, refusedInOneSentence, runPostern, spawnPostern } from '../helpers/processes.ts'
import { asIntruder, events } from './intruder.ts'

t.test('postern audit', async (t) => {
  const { services, databaseUrl } = await buildTestApp(t)
  const { pool } = services.database
  const env = { DATABASE_URL: databaseUrl, SECRET_KEY }
  const folder = await mkdtemp(join(tmpdir(), 'postern-audit-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const [checkpoints, exported] = [join(folder, 'checkpoints.jsonl'), join(folder, 'audit.jsonl')]
  await pool.query(`insert into audit_events (id, environment_id, action, outcome, actor_type, details)
    select gen_random_uuid(), (select id from environments limit 1), 'user.updated', 'success', 'system', '{}'
    from generate_series(1, 3000)`)
  const sealed = async () => (await pool.query('select from audit_chain')).rowCount ?? 0

  await t.test('a process that is killed while it seals leaves a chain that goes on', async (t) => {
    // So slow that it is in the middle of it when it is killed.
    await pool.query(`create function linger() returns trigger language plpgsql as
      $$ begin perform pg_sleep(0.5); return null; end $$`)
    await pool.query(
      'create trigger linger before insert on audit_chain for each statement execute function linger()',
    )
    const { child, ended } = spawnPostern(t, ['audit', 'checkpoint'], { env })
    await eventually(async () => (await sealed()) > 0)
    child.kill('SIGKILL')
    t.equal((await ended).signal, 'SIGKILL')
    await pool.query('drop trigger linger on audit_chain')
    t.ok((await sealed()) < 3000, 'there was something left to do')

    const { code, stdout } = await runPostern(t, ['audit', 'checkpoint'], { env })
    await writeFile(checkpoints, stdout)

    t.equal(code, 0)
    t.match(JSON.parse(stdout), { position: await sealed(), removed_up_to: 0 })
    t.equal((await services.auditChain.backlog()).count, 0)
  })

  await t.test('verifies the database, and an export of it', async (t) => {
    const { stdout: lines } = await runPostern(t, ['audit', 'export'], { env })
    await writeFile(exported, lines)

    const ofDatabase = await runPostern(t, ['audit', 'verify', '--checkpoint', checkpoints], { env })
    const ofFile = await runPostern(t, ['audit', 'verify', '--file', exported, '--checkpoint', checkpoints], {
      env: { SECRET_KEY },
    })

    for (const { code, stdout } of [ofDatabase, ofFile]) {
      t.equal(code, 0)
      t.match(stdout, `${await sealed()} events are what was sealed`)
    }
    t.match(ofDatabase.stdout, '0 after the last checkpoint, 0 not sealed yet.')
  })

  await t.test('says which event is not what it was', async (t) => {
    const { position, id } = (await events(pool))[17] ?? {}
    await asIntruder(pool, async (client) => {
      await client.query(`update audit_events set actor_type = 'user' where id = $1`, [id])
    })

    refusedInOneSentence(
      t,
      await runPostern(t, ['audit', 'verify'], { env }),
      new RegExp(`^Position ${position} \\(event ${id}\\)`),
    )
  })
})
