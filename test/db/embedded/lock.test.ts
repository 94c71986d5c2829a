import { mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { withDataDirLock } from '../../../src/db/embedded/lock.ts'
import { matchEach } from '../../helpers/matching.ts'

t.test('the lock of DATA_DIR', async (t) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'postern-lock-'))
  const file = join(dataDir, 'start.lock')
  t.teardown(() => rm(dataDir, { recursive: true }))
  const own = await withDataDirLock(dataDir, async () => JSON.parse(await readFile(file, 'utf8')))

  await t.test('admits one at a time', async (t) => {
    let inside = 0
    const work = async () => {
      inside += 1
      await sleep(5)
      t.equal(inside, 1)
      inside -= 1
    }

    await Promise.all(Array.from({ length: 5 }, () => withDataDirLock(dataDir, work)))
  })

  await t.test('tells one who waits long whom it waits for', async (t) => {
    const told: string[] = []
    const { waiter } = await withDataDirLock(dataDir, async () => {
      const waiter = withDataDirLock(
        dataDir,
        async () => 'free',
        (message) => told.push(message),
      )
      while (told.length === 0) await sleep(10)
      return { waiter }
    })

    t.equal(await waiter, 'free')
    matchEach(t, told, [`Waiting for process ${process.pid}, which is starting`])
  })

  await t.test('is free again after a failure', async (t) => {
    await t.rejects(
      withDataDirLock(dataDir, () => Promise.reject(new Error('no'))),
      /no/,
    )

    t.equal(await withDataDirLock(dataDir, async () => 'free'), 'free')
  })

  const leftovers = {
    'of a process that is gone': { ...own, pid: 2 ** 22 + 1 },
    'of a process whose id was given to another': { ...own, startedAt: '1' },
  }
  for (const [name, record] of Object.entries(leftovers)) {
    await t.test(`${name} is broken`, async (t) => {
      await writeFile(file, JSON.stringify(record))

      t.equal(await withDataDirLock(dataDir, async () => 'free'), 'free')
    })
  }

  for (const [name, text] of [
    ['from another boot or container', JSON.stringify({ ...own, scene: 'elsewhere' })],
    ['that was never written', ''],
  ] as const) {
    await t.test(`one ${name} is broken when it shows no life`, async (t) => {
      await writeFile(file, text)
      await utimes(file, 0, 0)

      t.equal(await withDataDirLock(dataDir, async () => 'free'), 'free')
    })
  }
})
