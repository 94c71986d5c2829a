import t from 'tap'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { freshDatabase, onServer } from '../helpers/database.ts'
import { eventually, type Service, signIn, startService, stopService } from '../helpers/processes.ts'

type Tokens = { access_token: string; refresh_token: string }

const refresh = async ({ url }: Service, refresh_token: string): Promise<Response> =>
  await fetch(`${url}/api/v1/auth/refresh`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ refresh_token }),
  })
const tokensOf = async (answer: Response | Promise<Response>): Promise<Tokens> =>
  (await (await answer).json()) as Tokens

t.test('sessions across processes, crashes and restarts', async (t) => {
  const { url: databaseUrl } = await freshDatabase(t)
  // Long enough for a process to start on a busy machine.
  const env = { DATABASE_URL: databaseUrl, SECRET_KEY, REFRESH_REUSE_INTERVAL_SECONDS: '300' }
  const one = await startService(t, env)
  const other = await startService(t, env)
  const begin = async () => await tokensOf(signIn(one, SUPER_ADMIN_EMAIL, PASSWORD))

  // The same token at both: one successor, whoever of them writes it.
  const shared = await begin()
  const answers = await Promise.all(
    [one, other, one, other].map((service) => tokensOf(refresh(service, shared.refresh_token))),
  )
  const [{ refresh_token: successor = '' } = {}] = answers
  t.same(
    answers.map(({ refresh_token }) => refresh_token),
    Array(4).fill(successor),
  )

  // Reuse at one is seen by the other.
  const last = await tokensOf(refresh(other, successor))
  t.equal((await refresh(one, shared.refresh_token)).status, 401)
  t.equal((await refresh(other, last.refresh_token)).status, 401)
  const me = await fetch(`${other.url}/api/v1/users/me`, {
    headers: { authorization: `Bearer ${last.access_token}` },
  })
  t.equal(me.status, 401)

  // Killed while the statement waits, so that nobody knows whether it was carried out.
  const waiting = await begin()
  await onServer(databaseUrl, async (client) => {
    await client.query('begin')
    await client.query('select from sessions where id = $1 for update', [waiting.refresh_token.slice(0, 36)])
    const lost = refresh(one, waiting.refresh_token).catch(() => undefined)
    await eventually(async () => {
      // A transaction goes on seeing what it has seen of this view.
      await client.query('select pg_stat_clear_snapshot()')
      const { rowCount } = await client.query(
        "select from pg_stat_activity where wait_event_type = 'Lock' and query like '%update sessions%'",
      )
      return rowCount === 1
    })
    one.child.kill('SIGKILL')
    await one.ended
    t.equal(await lost, undefined)
    await client.query('commit')
  })
  const goesOn = await tokensOf(refresh(other, waiting.refresh_token))
  t.ok(goesOn.refresh_token, 'the client tries again with the token that it has')
  const further = await tokensOf(refresh(other, goesOn.refresh_token))

  // Killed after the statement and before the client has its answer: as if it had not been read.
  await refresh(other, further.refresh_token)
  other.child.kill('SIGKILL')
  await other.ended
  const restarted = await startService(t, env)
  const again = await tokensOf(refresh(restarted, further.refresh_token))
  t.ok(again.refresh_token)
  t.match(await stopService(restarted), { code: 0 })
  const after = await startService(t, env)
  t.equal((await refresh(after, again.refresh_token)).status, 200, 'sessions outlive a restart')
})
