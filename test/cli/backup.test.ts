import { join } from 'node:path'
import t from 'tap'
import { PASSWORD } from '../helpers/config.ts'
import {
  aDataDir,
  isServerRunning,
  runPostern,
  signIn,
  startService,
  stopService,
} from '../helpers/processes.ts'

t.test('backup and restore bring a service back as it was', async (t) => {
  const dataDir = await aDataDir(t)
  const target = join(dataDir, '..', 'backup')
  const env = { DATA_DIR: dataDir, FIRST_SUPER_ADMIN_PASSWORD: PASSWORD }
  t.match(await runPostern(t, ['backup', target], { env }), {
    code: 1,
    stderr: /^There is no embedded database in [^\n]+\n$/,
  })
  const service = await startService(t, env)

  await t.test('while the service runs it is refused', async (t) => {
    t.match(await runPostern(t, ['backup', target], { env }), {
      code: 1,
      stdout: '',
      stderr: /is in use \(postern serve pid=\d+\): stop that process first\.\n$/,
    })
    t.match(await stopService(service), { code: 0 })
  })
  await t.test('what came after the backup is gone, and the rest is there', async (t) => {
    const saved = await runPostern(t, ['backup', target], { env })
    await runPostern(t, ['seed', '--demo'], { env })
    const careful = await runPostern(t, ['restore', target], { env })
    const forced = await runPostern(t, ['restore', target, '--force'], { env })
    const restored = await startService(t, env)

    t.match(saved, { code: 0, stdout: /^Copied \d+ files of \d+ MB to / })
    t.match(careful, { code: 1, stdout: '', stderr: /^[^\n]+\.\n$/ })
    t.match(forced, { code: 0, stdout: /^Restored / })
    t.equal((await signIn(restored, 'admin@example.com', PASSWORD)).status, 200)
    t.equal((await signIn(restored, 'alice@acme.example', 'demo password for postern')).status, 401)
    t.match(await stopService(restored), { code: 0 })
    t.equal(await isServerRunning(dataDir), false)
  })
})

t.test('with DATABASE_URL they name the tool to use', async (t) => {
  const env = { DATABASE_URL: 'postgres://nobody@nowhere.invalid/none' }

  t.match(await runPostern(t, ['backup', '/tmp/x'], { env }), { code: 1, stderr: /pg_dump\.\n$/ })
  t.match(await runPostern(t, ['restore', '/tmp/x'], { env }), { code: 1, stderr: /pg_restore\.\n$/ })
})
