import t, { type Test } from 'tap'
import { SYSTEM } from '../../src/principal.ts'
import type { TestApp } from '../helpers/app.ts'
import { PASSWORD, SECRET_KEY } from '../helpers/config.ts'
import { apiKey } from '../helpers/permit.ts'
import { eventually, type Service, startService } from '../helpers/processes.ts'
import { buildPermit, buildUserOf } from '../policy/permit-double.ts'

const PEOPLE = ['anna', 'bert', 'cyd', 'dora'] as const
const ASSIGNMENTS = '/v2/facts/default/default/role_assignments'

/** Permit, and a database whose jobs are run by processes of their own; the application in this one runs none. */
async function buildPair(t: Test) {
  const permit = await buildPermit(t)
  const postern = await buildUserOf(t, permit)
  const { services } = postern
  const { id: north } = await services.accounts.createAccount(SYSTEM, { name: 'north', key: 'north' })
  for (const key of PEOPLE) {
    const person = { key, email: `${key}@postern.test`, password: PASSWORD, accountId: north }
    await services.users.createUser(SYSTEM, person)
  }
  const { key } = await apiKey(postern)
  const env = {
    DATABASE_URL: postern.databaseUrl,
    SECRET_KEY,
    POLICY_ENGINE: 'permit',
    PERMIT_API_KEY: permit.key,
    PERMIT_PDP_URL: permit.url,
    PERMIT_API_URL: permit.url,
    PERMIT_TIMEOUT_MS: '60000',
  }
  const change = async ({ url }: Service, method: 'POST' | 'DELETE', user: string, role: string) => {
    const { status } = await fetch(`${url}${ASSIGNMENTS}`, {
      method,
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
      body: JSON.stringify({ user, role, tenant: 'north' }),
    })
    t.equal(status, method === 'POST' ? 200 : 204, `${method} ${user} ${role}`)
  }
  return { permit, postern, change, start: async () => await startService(t, env) }
}

/** By person, the roles that a Postern has of them; `null` for somebody it does not have. */
async function rolesIn({ services }: TestApp): Promise<Record<string, string[] | null>> {
  const rolesOf = async (key: string) => {
    const { rows } = await services.database.pool.query<{ id: string }>(
      'select id from users where key = $1 and is_active and deleted_at is null',
      [key],
    )
    const [user] = rows
    if (!user) return null
    return (await services.roles.listAssignments(user.id)).map(({ role }) => role.key).sort()
  }
  return Object.fromEntries(await Promise.all(PEOPLE.map(async (key) => [key, await rolesOf(key)] as const)))
}

t.test('a process that is killed while it mirrors loses nothing: another one goes on', async (t) => {
  const { permit, postern, change, start } = await buildPair(t)
  const { pool } = postern.services.database
  const underWay = async () =>
    (await pool.query('select from graphile_worker._private_jobs where locked_at is not null')).rowCount ?? 0

  // Before anything is done, between two steps of one person, and when some are done.
  for (const [round, answers] of [0, 3, 9].entries()) {
    const before = permit.requests.length
    const [given, taken] = round % 2 === 0 ? ['reader', 'editor'] : ['editor', 'reader']
    permit.set({ answers })
    const service = await start()
    for (const user of PEOPLE) await change(service, 'POST', user, given)
    if (round > 0) for (const user of PEOPLE) await change(service, 'DELETE', user, taken)
    await eventually(async () => permit.requests.length > before + answers && (await underWay()) > 0)

    service.child.kill('SIGKILL')

    t.equal((await service.ended).signal, 'SIGKILL')
    t.ok(await underWay(), 'a job was under way')
    await passTwoMinutes(postern)
  }
  const dora = await postern.services.users.findByEmailOrId('dora@postern.test')
  await postern.services.users.setActive(SYSTEM, dora?.id ?? '', false)
  permit.set('open')
  const last = await start()
  await change(last, 'POST', 'anna', 'editor')
  await eventually(async () => (await postern.permit.jobs.queueState()).pending === 0)

  const stored = await rolesIn(postern)
  t.same(stored, { anna: ['editor', 'reader'], bert: ['reader'], cyd: ['reader'], dora: null })
  t.same(await rolesIn(permit.postern), stored, 'Permit has what is stored')
  t.equal(await underWay(), 0)
})

/** What the worker of another process waits for before it takes a job from one that says no more. */
async function passTwoMinutes({ services }: TestApp): Promise<void> {
  for (const table of ['_private_jobs', '_private_job_queues']) {
    await services.database.pool.query(
      `update graphile_worker.${table} set locked_at = locked_at - interval '2 minutes' where locked_at is not null`,
    )
  }
}
