import { chmod, stat } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { emptyDatabase, freshDatabase } from '../helpers/database.ts'
import {
  aDataDir,
  freePort,
  isServerRunning,
  refusedInOneSentence,
  runCurl,
  runPostern,
  signIn,
  spawnPostern,
  startService,
  stopService,
} from '../helpers/processes.ts'

const modeOf = async (path: string) => (await stat(path)).mode & 0o777

t.test('Ctrl-C during the first start leaves nothing running', async (t) => {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const dataDir = await aDataDir(t)
    const process = spawnPostern(t, ['serve'], {
      env: { DATA_DIR: dataDir, PORT: String(await freePort()) },
    })
    await process.until(/Creating the database/)

    process.child.kill(signal)

    t.match(await process.ended, { code, signal: null, stderr: '' })
    t.equal(await isServerRunning(dataDir), false)
  }
})

t.test('a DATA_DIR in a folder that only its owner may enter', async (t) => {
  const dataDir = await aDataDir(t, 0o700)
  const service = await startService(t, { DATA_DIR: dataDir })
  t.equal(await modeOf(join(dataDir, '..')), 0o700)
  t.match(await stopService(service), { code: 0 })

  const again = await startService(t, { DATA_DIR: dataDir })
  t.notMatch(again.said().stdout, /Admin password/)
  t.match(await stopService(again), { code: 0 })
  t.equal(await isServerRunning(dataDir), false)
})

t.test('what is given for the first admin is used, and its password never printed', async (t) => {
  const { url } = await emptyDatabase(t)
  const env = { DATABASE_URL: url, SECRET_KEY }
  const first = {
    FIRST_SUPER_ADMIN_EMAIL: "o'neil@postern.test",
    FIRST_SUPER_ADMIN_PASSWORD: PASSWORD,
    FIRST_SUPER_ADMIN_ACCOUNT_NAME: 'Head Office',
  }
  const short = await runPostern(t, ['serve'], {
    env: { ...env, ...first, FIRST_SUPER_ADMIN_PASSWORD: 'short', PORT: String(await freePort()) },
  })
  refusedInOneSentence(t, short, /^FIRST_SUPER_ADMIN_PASSWORD must have at least 15 characters/)

  const service = await startService(t, { ...env, ...first })
  const { stdout } = service.said()
  const command = /curl [\s\S]*?'\n/.exec(stdout)?.[0] ?? ''

  await service.until(/There is no SMTP_URL: mails, with their links, are printed to this log/)
  t.match(stdout, /Admin email +o'neil@postern\.test\n/)
  t.notMatch(stdout, /Admin password/)
  t.notMatch(stdout, PASSWORD)
  t.equal((await runCurl(command.replace('YOUR PASSWORD', PASSWORD))).status, 200)
})

t.test('two first starts at once on one empty database both come up, with one admin', async (t) => {
  const { url } = await emptyDatabase(t)
  const env = { DATABASE_URL: url, SECRET_KEY }

  const services = await Promise.all([startService(t, env), startService(t, env)])

  const passwords = services.flatMap(({ said }) => /Admin password {2}(\S+)/.exec(said().stdout)?.[1] ?? [])
  t.equal(passwords.length, 1)
  for (const service of services) {
    t.equal((await signIn(service, 'admin@example.com', passwords[0] ?? '')).status, 200)
    t.equal((await fetch(`${service.url}/health/ready`)).status, 200)
  }
})

t.test('secrets come from files', async (t) => {
  const { url } = await freshDatabase(t)
  const folder = t.testdir({ url: `${url}\n`, key: `${SECRET_KEY}\n` })
  await chmod(join(folder, 'key'), 0o600)
  const service = await startService(t, {
    DATABASE_URL_FILE: join(folder, 'url'),
    SECRET_KEY_FILE: join(folder, 'key'),
  })

  t.equal((await signIn(service, SUPER_ADMIN_EMAIL, PASSWORD)).status, 200)
})
