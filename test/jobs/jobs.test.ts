import t from 'tap'
import { transact } from '../../src/db/client.ts'
import { createServices } from '../../src/services.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { eventually } from '../helpers/processes.ts'

t.test('what is done later, by a process that serves', async (t) => {
  const warnings: string[] = []
  const warn = (_details: object, message: string) => void warnings.push(message)
  const { services, config, databaseUrl } = await buildTestApp(t, { warn })
  const other = createServices(config, { databaseUrl, secretKey: SECRET_KEY, warn })
  t.teardown(async () => await other.close())
  const { jobs, database } = services
  const done: string[] = []
  let underWay = 0
  let mostAtOnce = 0
  let ticks = 0
  let failures = 1
  const tick = async (): Promise<void> => {
    mostAtOnce = Math.max(mostAtOnce, ++underWay)
    await new Promise((resolve) => setTimeout(resolve, 20))
    underWay--
    ticks++
    if (failures-- > 0) throw new Error('not this time')
  }
  let isOpen = false
  let hanging = 0
  for (const one of [jobs, other.jobs]) {
    one.handle('hang', {
      async run() {
        hanging++
        await eventually(async () => isOpen)
        hanging--
      },
    })
    one.handle('urgent', { run: async () => void done.push('urgent'), isUrgent: true })
    one.handle('note', {
      async run(payload, { number, isLast }) {
        const { name, fails = 0 } = payload as { name: string; fails?: number }
        if (number <= fails) throw new Error(`try ${number}`)
        done.push(isLast ? `${name}, at the last moment` : name)
      },
      retriesWithinMs: 0,
    })
    one.schedule('tick', 1, tick)
  }
  services.start()
  other.start()

  await t.test('a job is done when its transaction commits, and never without', async (t) => {
    await t.rejects(
      transact(database.db, async (tx) => {
        await jobs.add('note', { payload: { name: 'lost' } }, tx)
        throw new Error('no')
      }),
    )
    await transact(database.db, async (tx) => await jobs.add('note', { payload: { name: 'kept' } }, tx))

    await eventually(async () => done.length > 0)

    t.same(done, ['kept'])
  })

  await t.test('one that fails is tried again, and knows its last try', async (t) => {
    done.length = 0
    await eventually(async () => !(await jobs.states()).some(({ task }) => task === 'note'))
    await jobs.add('note', { payload: { name: 'late', fails: 1 }, mostAttempts: 2 })
    await eventually(async () =>
      (await jobs.states()).some(({ task, failed }) => task === 'note' && failed === 1),
    )
    const [state] = (await jobs.states()).filter(({ task }) => task === 'note')
    t.match(state, { pending: 1, failed: 1, errors: ['try 1'] })
    await database.pool.query('update graphile_worker._private_jobs set run_at = now() where key is null')

    await eventually(async () => done.length > 0)

    t.same(done, ['late, at the last moment'])
  })

  await t.test('what somebody waits for is done while everything else hangs', async (t) => {
    done.length = 0
    for (let n = 0; n < 30; n++) await jobs.add('hang', { payload: {} })
    await eventually(async () => hanging === 6)

    await jobs.add('urgent', { payload: {} })
    await eventually(async () => done.length > 0)

    t.strictSame([done, hanging], [['urgent'], 6], 'three jobs of each process are under way')
    isOpen = true
    await eventually(async () => !(await jobs.states()).some(({ task }) => task === 'hang'))
  })

  await t.test('scheduled work goes on after it failed, and after the database was away', async (t) => {
    await eventually(async () => ticks > 2)
    t.equal(mostAtOnce, 1, 'by one process at a time')
    t.match(warnings.join('\n'), /scheduled work failed/)
    const { rowCount } = await database.pool.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()`,
    )
    t.ok(rowCount)
    const before = ticks
    done.length = 0

    await eventually(async () => {
      await jobs.add('note', { payload: { name: 'after' }, key: 'after' })
      return true
    })
    await eventually(async () => done.length > 0)
    for (const table of ['_private_jobs', '_private_job_queues']) {
      await database.pool.query(
        `update graphile_worker.${table} set locked_at = locked_at - interval '2 minutes'`,
      )
    }
    await jobs.runDue([])
    await eventually(async () => ticks > before)

    t.equal(done[0], 'after')
  })

  await t.test('scheduled work that is interrupted goes on in another process', async (t) => {
    const third = createServices(config, { databaseUrl, secretKey: SECRET_KEY })
    t.teardown(async () => await third.close())
    let begun = 0
    third.jobs.schedule('long', 3600, async (signal) => {
      begun++
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    })
    third.jobs.start(databaseUrl)
    await eventually(async () => begun > 0)
    await third.jobs.stop()

    const { rows } = await database.pool.query(
      `select run_at <= now() as is_due from graphile_worker.jobs where task_identifier = 'schedule:long'`,
    )
    t.strictSame(rows, [{ is_due: true }])
  })

  await t.test('metrics say how jobs stand', async (t) => {
    await jobs.add('unheard_of', { payload: {} })

    t.match(await services.metrics.registry.metrics(), /postern_jobs\{task="unheard_of",state="pending"\} 1/)
  })
})
