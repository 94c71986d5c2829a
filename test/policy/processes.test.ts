import t, { type Test } from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { apiKey } from '../helpers/permit.ts'
import { type Service, startService } from '../helpers/processes.ts'
import { isInTime } from './in-time.ts'
import { storeFacts, storePolicy } from './loading.ts'

const HEADER = 'x-postern-consistency'
const PEOPLE = Array.from({ length: 410 }, (_, n) => `person-${n}`)

type Answer = { status: number; body: unknown; token: string }

/** Two processes of their own on one database, in which nobody of `PEOPLE` holds a role yet. */
async function buildPair(t: Test) {
  const prepared = await buildTestApp(t)
  await storePolicy(prepared.services, DEFAULT_ENVIRONMENT, {
    resources: [{ key: 'doc', actions: ['read'], roles: [], relations: [] }],
    roles: [{ key: 'reader', permissions: ['doc:read'], extends: [] }],
  })
  await storeFacts(prepared.services, DEFAULT_ENVIRONMENT, {
    users: PEOPLE.map((key) => ({ key, tenants: ['default'] })),
  })
  const { key } = await apiKey(prepared)
  const env = { DATABASE_URL: prepared.databaseUrl, SECRET_KEY }
  const [first, second] = await Promise.all([startService(t, env), startService(t, env)])

  async function post(
    { url }: Service,
    path: string,
    body: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const response = await fetch(`${url}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}`, ...headers },
      body: JSON.stringify(body),
    })
    return {
      status: response.status,
      body: await response.json(),
      token: response.headers.get(HEADER) ?? '',
    }
  }
  return {
    first,
    second,
    assign: async (service: Service, user: string) =>
      await post(service, '/v2/facts/default/default/role_assignments', {
        user,
        role: 'reader',
        tenant: 'default',
      }),
    /** Which of them may read, as of the version of `token` if there is one. */
    async readers(service: Service, users: readonly string[], token?: string): Promise<string[]> {
      const questions = users.map((user) => ({
        user: { key: user },
        action: 'read',
        resource: { type: 'doc', tenant: 'default' },
      }))
      const answer = await post(service, '/allowed/bulk', questions, token ? { [HEADER]: token } : {})
      if (answer.status !== 200) throw new Error(JSON.stringify(answer))
      const { allow } = answer.body as { allow: { allow: boolean }[] }
      return users.filter((_, place) => allow[place]?.allow)
    },
  }
}

t.test('two processes on one database', async (t) => {
  const { first, second, assign, readers } = await buildPair(t)

  await t.test('what one writes the other knows: at once with its token, without it soon', async (t) => {
    t.same(await readers(second, PEOPLE), [], 'it has them all at hand')

    for (const user of PEOPLE.slice(0, 10)) {
      const { status, token } = await assign(first, user)
      t.equal(status, 200)
      t.same(await readers(second, [user], token), [user])
    }
    for (const user of PEOPLE.slice(10, 14)) {
      await assign(first, user)
      t.ok(await isInTime(async () => (await readers(second, [user])).length === 1))
      t.same(await readers(first, [user]), [user])
    }
  })

  await t.test('what is written is heard of, and not only found by asking once a second', async (t) => {
    const waiting = PEOPLE.slice(400)
    t.same(await readers(second, waiting), [], 'it has them at hand')
    const isOver = async (): Promise<boolean> => {
      const [user] = waiting
      if (user === undefined) return true
      if ((await readers(second, [user])).length === 0) return false
      waiting.shift()
      if (waiting[0] !== undefined) await assign(first, waiting[0])
      return waiting.length === 0
    }
    await assign(first, waiting[0] ?? '')

    t.ok(await isInTime(isOver), `of ten, ${waiting.length} were not seen`)
  })

  await t.test('one that is killed while it writes loses nothing that it has answered', async (t) => {
    const waiting = PEOPLE.slice(20, 400)
    const answered: string[] = []
    let newest = ''
    const versionOf = (token: string): number => Number(token.split('.')[1])

    const write = async (): Promise<void> => {
      for (let user = waiting.pop(); user !== undefined; user = waiting.pop()) {
        const { status, token } = await assign(first, user)
        if (status !== 200) throw new Error(`${status}`)
        answered.push(user)
        if (newest === '' || versionOf(token) > versionOf(newest)) newest = token
        if (answered.length === 40) first.child.kill('SIGKILL')
      }
    }
    const ends = await Promise.allSettled(Array.from({ length: 8 }, write))

    t.match(await first.ended, { signal: 'SIGKILL' })
    t.ok(
      ends.some(({ status }) => status === 'rejected'),
      'it was killed while it wrote',
    )
    t.same(await readers(second, answered, newest), answered)
    t.equal((await assign(second, PEOPLE[19] ?? '')).status, 200, 'and the other goes on')
  })
})
