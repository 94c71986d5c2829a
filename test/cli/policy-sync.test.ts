import t from 'tap'
import { SECRET_KEY } from '../helpers/config.ts'
import { runPostern } from '../helpers/processes.ts'
import { buildPermit, buildUserOf } from '../policy/permit-double.ts'

t.test('policy sync takes everything over, and says what could not be', async (t) => {
  const permit = await buildPermit(t)
  const service = await buildUserOf(t, permit)
  const env = {
    DATABASE_URL: service.databaseUrl,
    SECRET_KEY,
    POLICY_ENGINE: 'permit',
    PERMIT_API_KEY: permit.key,
    PERMIT_PDP_URL: permit.url,
    PERMIT_API_URL: permit.url,
  }
  const sync = async (...args: string[]) => await runPostern(t, ['policy', 'sync', ...args], { env })
  await service.person('SUPER_ADMIN', { email: 'anna@postern.test' })
  const known = async () =>
    (await permit.postern.services.database.pool.query("select from users where email = 'anna@postern.test'"))
      .rowCount

  t.match(await sync('--status'), { code: 0, stdout: /^1 waiting, of which 0 failed before/ })
  t.equal(await known(), 0)

  permit.set({ status: 401 })
  t.match(await sync(), {
    code: 1,
    stdout: /Permit is not available: unauthorized/,
    stderr: /could not be taken over/,
  })

  permit.set('open')
  t.match(await sync(), { code: 0, stdout: 'Permit has everything.\n' })
  t.match(await sync(), { code: 0, stdout: 'Permit has everything.\n' })
  t.equal(await known(), 1)

  t.match(
    await runPostern(t, ['policy', 'sync'], { env: { DATABASE_URL: service.databaseUrl, SECRET_KEY } }),
    {
      code: 1,
      stderr: /Permit is not used/,
    },
  )
})
