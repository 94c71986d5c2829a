import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createServices } from '../../src/services.ts'
import { setUp } from '../../src/setup.ts'
import { createAddresses } from '../../src/webhooks/addresses.ts'
import { CLAIM, createOutbox } from '../../src/webhooks/outbox.ts'
import { anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { NO_SUCH_ID } from '../helpers/hostile.ts'
import { matchEach } from '../helpers/matching.ts'
import { eventually } from '../helpers/processes.ts'

type Webhook = { id: string; secret: string; is_active: boolean; disabled_reason: string | null }
type Delivery = { id: string; event: string; status: string; attempts: number; last_status: number | null }
type Message = {
  id: string
  type: string
  subject: { type: string; id: string } | null
  account_id: string | null
  data: Record<string, unknown>
}
type Received = { path: string | undefined; headers: IncomingHttpHeaders; body: string; message: Message }

const PATH = '/api/v1/webhooks'
const postern = await buildTestApp(t, { env: { WEBHOOKS_ALLOWED_NETWORKS: '127.0.0.0/8' } })
const { root, services } = postern
const { pool } = services.database
const sendDue = services.webhookSender.sendDue

/** A receiver that keeps what it is sent, and answers what `answer` says. */
async function aReceiver(t: Test, answer: (message: Message, nth: number) => number = () => 204) {
  const received: Received[] = []
  const server = createServer(async (request, response) => {
    const body = (await request.toArray()).join('')
    const message = JSON.parse(body) as Message
    received.push({ path: request.url, headers: request.headers, body, message })
    response
      .writeHead(answer(message, received.length), { location: 'http://127.0.0.1:1/' })
      .end('x'.repeat(5000))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  return { received, url: `http://127.0.0.1:${port}/hook` }
}

async function aWebhook(url: string, events: string[], more: object = {}): Promise<Webhook> {
  const created = await root.post(PATH, { url, events, ...more })
  if (created.statusCode !== 201) throw new Error(created.body)
  return created.json<Webhook>()
}

const aUser = async (): Promise<string> =>
  (
    await root.post('/api/v1/users', {
      email: `${crypto.randomUUID()}@example.com`,
      password: 'correct horse battery',
    })
  ).json<{ id: string }>().id

const anAccount = async (): Promise<string> =>
  (await root.post('/api/v1/accounts', { name: `A ${crypto.randomUUID()}` })).json<{ id: string }>().id

/** The columns round to milliseconds: `now()` may be stored as a moment that is still to come. */
const DUE_NOW = `date_trunc('milliseconds', now())`

/** What waits may be tried now. */
const hurry = async (): Promise<void> => {
  await pool.query('update webhooks set paused_until = null')
  await pool.query(`update webhook_deliveries set next_attempt_at = ${DUE_NOW} where status = 'pending'`)
  await sendDue()
}

/** By the text of Standard Webhooks 1.0, and with nothing of ours. */
const isSignedBy = ({ headers, body }: Received, secret: string): boolean => {
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64')
  const expected = createHmac('sha256', key)
    .update(`${String(headers['webhook-id'])}.${String(headers['webhook-timestamp'])}.${body}`)
    .digest('base64')
  return String(headers['webhook-signature']).split(' ').includes(`v1,${expected}`)
}

t.afterEach(async () => {
  await pool.query('delete from webhooks')
})

t.test('a change reaches the receiver, signed, with ids and nothing personal', async (t) => {
  const { received, url } = await aReceiver(t)
  const webhook = await aWebhook(url, ['user.created'])
  const user = await aUser()
  await sendDue()

  const [first] = received
  t.equal(received.length, 1)
  t.match(first?.message, { type: 'user.created', subject: { type: 'user', id: user } })
  t.equal(first?.headers['webhook-id'], first?.message.id)
  t.ok(Math.abs(Number(first?.headers['webhook-timestamp']) - Date.now() / 1000) < 60)
  t.ok(first && isSignedBy(first, webhook.secret))
  t.notMatch(first?.body, /example\.com/)
  const deliveries = (await root.get(`${PATH}/${webhook.id}/deliveries`)).json<Delivery[]>()
  matchEach(t, deliveries, [{ event: 'user.created', status: 'delivered', attempts: 1, last_status: 204 }])
  const stored = await pool.query('select * from webhooks')
  t.notMatch(JSON.stringify(stored.rows), webhook.secret.slice(6))
})

t.test(
  'a change that is rolled back is not told, nor what was refused, nor what was not asked for',
  async (t) => {
    const { received, url } = await aReceiver(t)
    await aWebhook(url, ['*'])
    await aWebhook(url, ['account.created'])
    const taken = await root.post('/api/v1/users', {
      email: SUPER_ADMIN_EMAIL,
      password: 'correct horse battery',
    })
    t.equal(taken.statusCode, 409)
    await postern.anonymous.post('/api/v1/auth/login', {
      email: SUPER_ADMIN_EMAIL,
      password: 'wrong wrong wrong',
    })
    await aUser()
    await sendDue()

    t.same(
      received.map(({ message }) => message.type).filter((type) => !type.startsWith('webhook.')),
      ['user.created'],
    )
  },
)

t.test(
  'what is about one subject arrives in order, through failures, and holds up nothing else',
  async (t) => {
    const [user, other] = [await aUser(), await aUser()]
    let isDown = true
    const { received, url } = await aReceiver(t, ({ subject }) =>
      isDown && subject?.id === user ? 500 : 200,
    )
    const webhook = await aWebhook(url, ['user.deactivated', 'user.activated', 'user.updated'])
    await root.post(`/api/v1/users/${user}/deactivate`)
    await root.post(`/api/v1/users/${user}/reactivate`)
    await root.patch(`/api/v1/users/${user}`, { full_name: 'Ada' })
    await root.patch(`/api/v1/users/${other}`, { full_name: 'Ada' })
    await sendDue()
    await sendDue()

    t.same(
      received.map(({ message }) => [message.type, message.subject?.id]).sort(),
      [
        ['user.deactivated', user],
        ['user.updated', other],
      ].sort(),
    )
    isDown = false
    await hurry()
    const about = received.filter(({ message }) => message.subject?.id === user)
    t.same(
      about.map(({ message }) => message.type),
      ['user.deactivated', 'user.deactivated', 'user.activated', 'user.updated'],
    )
    t.equal(about[0]?.message.id, about[1]?.message.id, 'a receiver can tell that it is the same')
    const deliveries = (await root.get(`${PATH}/${webhook.id}/deliveries?sort=created_at`)).json<Delivery[]>()
    t.match(deliveries[0], { status: 'delivered', attempts: 2 })
  },
)

t.test(
  'after the last try a message is given up, the next goes on, and a dead webhook is switched off',
  async (t) => {
    const user = await aUser()
    const { received, url } = await aReceiver(t, ({ type }) => (type === 'user.created' ? 204 : 503))
    const webhook = await aWebhook(url, ['user.created', 'user.updated'])
    await aUser()
    await sendDue()
    received.length = 0
    await root.patch(`/api/v1/users/${user}`, { full_name: 'A' })
    await root.patch(`/api/v1/users/${user}`, { full_name: 'B' })
    for (let tries = 0; tries < 10; tries++) await hurry()

    t.equal(received.length, 10)
    t.equal(new Set(received.map(({ message }) => message.id)).size, 1, 'ten times the first')
    const failed = (await root.get(`${PATH}/${webhook.id}/deliveries?status=failed`)).json<Delivery[]>()
    matchEach(t, failed, [{ attempts: 10, last_status: 503 }])
    t.equal((await root.get(`${PATH}/${webhook.id}`)).json<Webhook>().is_active, true)

    await pool.query(`update webhooks set failing_since = failing_since - interval '4 days'`)
    await hurry()
    t.equal(new Set(received.map(({ message }) => message.id)).size, 2, 'and then the second')
    const now = (await root.get(`${PATH}/${webhook.id}`)).json<Webhook>()
    t.match(now, { is_active: false, disabled_reason: /three days/ })
    const audit = await root.get(`/api/v1/audit-events?target_id=${webhook.id}&action=webhook.disabled`)
    t.equal(audit.json<unknown[]>().length, 1)
    t.match((await root.patch(`${PATH}/${webhook.id}`, { is_active: true })).json(), {
      is_active: true,
      disabled_reason: null,
      paused_until: null,
    })
  },
)

/** A receiver that answers nothing before it is let. */
async function aSilentReceiver(t: Test) {
  const asked: string[] = []
  let answer = (): void => {}
  const isLet = new Promise<void>((resolve) => {
    answer = resolve
  })
  const server = createServer(async (request, response) => {
    asked.push(request.url ?? '')
    await request.resume().toArray()
    await isLet
    response.writeHead(204).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  return { asked, answer, url: `http://127.0.0.1:${port}/hook` }
}

/** Further webhooks like this one, each with a path of its own. */
const copies = async ({ id }: Webhook, count: number): Promise<{ id: string }[]> =>
  (
    await pool.query<{ id: string }>(
      `insert into webhooks (id, environment_id, url, events, secret_sealed, account_id)
       select gen_random_uuid(), environment_id, url || '/' || n, events, secret_sealed, account_id
       from webhooks, generate_series(1, $2::int) n where id = $1 returning id`,
      [id, count],
    )
  ).rows

/** Messages that wait, the `n`-th of them about the subject `n % subjects`. */
const backlog = async (webhook: { id: string }, count: number, subjects: number, status = 'pending') =>
  await pool.query(
    `insert into webhook_deliveries (id, webhook_id, audit_event_id, event, subject, status, next_attempt_at)
     select gen_random_uuid(), $1, gen_random_uuid(), 'webhook.test', 's' || n % $3::int, $4, ${DUE_NOW}
     from generate_series(1, $2::int) n`,
    [webhook.id, count, subjects, status],
  )

t.test('a webhook that does not answer is tried less and less often, and holds up no other', async (t) => {
  let isDown = true
  const dead = await aReceiver(t, () => (isDown ? 500 : 204))
  const alive = await aReceiver(t)
  const webhook = await aWebhook(dead.url, ['user.created'])
  await backlog(webhook, 300, 300)
  await backlog(await aWebhook(alive.url, ['user.created']), 60, 60)
  await sendDue()

  t.ok(dead.received.length < 10, `${dead.received.length} tries`)
  t.equal(alive.received.length, 60)
  const pauseOf = async () => {
    const shown = (await root.get(`${PATH}/${webhook.id}`)).json<{ paused_until: string | null }>()
    return shown.paused_until === null ? 0 : Date.parse(shown.paused_until) - Date.now()
  }
  const before = dead.received.length
  const pause = await pauseOf()
  await hurry()
  t.equal(dead.received.length, before + 1, 'one try after the pause')
  t.ok((await pauseOf()) > 1.5 * pause, 'and a longer one follows')
  isDown = false
  await hurry()
  t.equal(await pauseOf(), 0)
  const { rows } = await pool.query(`select from webhook_deliveries where status <> 'delivered'`)
  t.equal(rows.length, 0)
})

t.test('slow webhooks that answer in the end leave places to others', async (t) => {
  const { config, databaseUrl } = postern
  const [slow, fast] = [await aSilentReceiver(t), await aReceiver(t)]
  const first = await aWebhook(slow.url, ['user.deleted'])
  for (const webhook of [first, ...(await copies(first, 9))]) await backlog(webhook, 40, 40)
  const other = createServices(config, { databaseUrl, secretKey: SECRET_KEY })
  t.teardown(async () => await other.close())
  other.webhookSender.start()
  await eventually(async () => slow.asked.length >= 24)
  await aWebhook(fast.url, ['user.created'])
  await aUser()
  await eventually(async () => fast.received.length === 1)

  const { rows } = await pool.query(
    'select from webhook_deliveries where attempts > 0 and last_status is null',
  )
  t.equal(rows.length, 0, 'before any of the slow ones came to an end')
  await other.webhookSender.stop()
})

t.test('two accounts with many slow webhooks leave places to a third', async (t) => {
  const { config, databaseUrl } = postern
  const [slow, fast] = [await aSilentReceiver(t), await aReceiver(t)]
  for (let nth = 0; nth < 2; nth++) {
    const first = await aWebhook(`${slow.url}/${nth}`, ['user.deleted'], { account_id: await anAccount() })
    for (const webhook of [first, ...(await copies(first, 19))]) await backlog(webhook, 10, 10)
  }
  const other = createServices(config, { databaseUrl, secretKey: SECRET_KEY })
  t.teardown(async () => await other.close())
  other.webhookSender.start()
  await eventually(async () => slow.asked.length >= 16)
  await backlog(await aWebhook(fast.url, ['user.deleted'], { account_id: await anAccount() }), 5, 5)
  await eventually(async () => fast.received.length === 5)

  t.equal(slow.asked.length, 16, 'before any of the slow ones came to an end')
  t.equal(new Set(slow.asked).size, 16, 'each of a webhook of its own')
  await other.webhookSender.stop()
})

t.test('each webhook has its turn, whatever waits for the others', async (t) => {
  const outbox = createOutbox(services.database)
  const { received, url } = await aReceiver(t)
  const first = await aWebhook(url, ['user.deleted'])
  const webhooks = [first, ...(await copies(first, 39))]
  for (const webhook of webhooks) await backlog(webhook, 3, 3)

  const taken = await outbox.claim([], { perWebhook: 50, inAll: 40, leaseSeconds: 60 })
  t.equal(taken.length, 40)
  t.equal(new Set(taken.map(({ webhookId }) => webhookId)).size, 40, 'of what is taken at a time')
  await outbox.release(taken)
  await sendDue()
  t.equal(received.length, 120)
  const early = received.slice(0, 60).map(({ path }) => path)
  t.equal(new Set(early).size, 40, 'of what is sent')
})

t.test('what was taken is sent to where the webhook is by then, and not when it is off', async (t) => {
  const [before, after, off] = [await aSilentReceiver(t), await aReceiver(t), await aSilentReceiver(t)]
  const [moved, ended] = [
    await aWebhook(before.url, ['user.deleted']),
    await aWebhook(off.url, ['user.deleted']),
  ]
  for (const webhook of [moved, ended]) await backlog(webhook, 8, 8)
  const sent = sendDue()
  await eventually(async () => before.asked.length === 4 && off.asked.length === 4)
  await root.patch(`${PATH}/${moved.id}`, { url: after.url })
  await root.patch(`${PATH}/${ended.id}`, { is_active: false })
  const { secret } = (await root.post(`${PATH}/${moved.id}/rotate-secret`)).json<Webhook>()
  // What was held for less than that is sent as it was taken.
  await sleep(1000)
  before.answer()
  off.answer()
  await sent

  t.equal(before.asked.length, 4)
  t.equal(after.received.length, 4)
  t.ok(after.received.every((one) => isSignedBy(one, secret)))
  t.equal(off.asked.length, 4)
  const left = await pool.query(`select attempts from webhook_deliveries where status = 'pending'`)
  t.strictSame(left.rows, Array(4).fill({ attempts: 0 }))
})

t.test('the next message of a subject is not kept waiting by who looked at it too early', async (t) => {
  const outbox = createOutbox(services.database)
  const webhook = await aWebhook('https://example.com/hook', ['user.created'])
  await backlog(webhook, 2, 1)
  const [taken] = await outbox.claim([], { perWebhook: 1, inAll: 1, leaseSeconds: 60 })
  if (!taken) throw new Error('nothing was taken')
  const other = await pool.connect()
  await other.query('begin')
  await other.query(
    "update webhook_deliveries set next_attempt_at = now() + interval '1 minute' where id <> $1",
    [taken.id],
  )
  const ended = outbox.markDelivered(taken, 204)
  await eventually(async () => await isWaitedFor())
  await other.query('commit')
  other.release()
  await ended

  const { rows } = await pool.query(
    `select from webhook_deliveries where status = 'pending' and next_attempt_at <= now()`,
  )
  t.equal(rows.length, 1)
})

/** Whether a statement waits for a lock of another. */
const isWaitedFor = async (): Promise<boolean> =>
  (
    await pool.query(
      `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
    )
  ).rows.length > 0

t.test('a webhook that is being deleted holds up and fails nothing that is written meanwhile', async (t) => {
  const { url } = await aReceiver(t)
  const [removed, webhook] = [await aWebhook(url, ['*']), await aWebhook(url, ['user.created'])]
  await backlog(webhook, 3, 3)
  const path = `${PATH}/${webhook.id}`
  const other = await pool.connect()
  await other.query('begin')
  await other.query('delete from webhooks where id = $1', [removed.id])
  const user = aUser()
  await eventually(async () => await isWaitedFor())
  await other.query('commit')
  t.ok(await user, 'what waited for its end is done')

  await other.query('begin')
  await other.query('select from webhooks where id = $1 for key share', [webhook.id])
  t.equal((await root.patch(path, { description: 'CRM' })).statusCode, 200)
  await other.query('commit')

  other.release()

  const end = await heldUp(t)
  const deleted = root.delete(path)
  await eventually(async () => await isWaitedFor())
  t.ok(await aUser(), 'nothing waits while its messages are removed')
  t.match((await root.get(path)).json(), { is_active: false, disabled_reason: 'It is being deleted' })
  await end()
  t.equal((await deleted).statusCode, 204)
  t.equal((await root.get(path)).statusCode, 404)
})

/** Has whoever removes messages wait until what is returned is called. */
const heldUp = async (t: Test): Promise<() => Promise<unknown>> => {
  const holder = await pool.connect()
  await holder.query('select pg_advisory_lock(7)')
  await beforeRemoval(t, 'perform pg_advisory_xact_lock(7)')
  t.teardown(() => holder.release())
  return async () => await holder.query('select pg_advisory_unlock(7)')
}

/** Runs this before each statement that removes messages. */
const beforeRemoval = async (t: Test, statement: string): Promise<() => Promise<unknown>> => {
  await pool.query(`create or replace function removing() returns trigger language plpgsql as
    $$ begin ${statement}; return null; end $$`)
  await pool.query(`create trigger removing before delete on webhook_deliveries execute function removing()`)
  const end = async () => await pool.query('drop trigger if exists removing on webhook_deliveries')
  t.teardown(end)
  return end
}

t.test('who deletes a webhook at the same time as another removes its messages in parts too', async (t) => {
  const webhook = await aWebhook('https://example.com/hook', ['user.created'])
  await backlog(webhook, 20_000, 1000)
  await pool.query('create table removals (size int)')
  await pool.query(`create function note_removal() returns trigger language plpgsql as
    $$ begin insert into removals select count(*) from gone; return null; end $$`)
  await pool.query(`create trigger noted after delete on webhook_deliveries referencing old table as gone
    for each statement execute function note_removal()`)
  t.teardown(async () => await pool.query('drop function note_removal cascade; drop table removals'))

  const answers = await Promise.all([1, 2, 3].map(async () => await root.delete(`${PATH}/${webhook.id}`)))

  t.same(answers.map(({ statusCode }) => statusCode).sort(), [204, 404, 404])
  const { rows } = await pool.query('select max(size), sum(size)::int from removals')
  t.match(rows, [{ max: 5000, sum: 20_000 }])
})

t.test('a webhook that is switched on again while it is deleted stays', async (t) => {
  const webhook = await aWebhook('https://example.com/hook', ['user.created'])
  const path = `${PATH}/${webhook.id}`
  await backlog(webhook, 3, 3)
  const end = await heldUp(t)
  const deleted = root.delete(path)
  await eventually(async () => await isWaitedFor())
  t.equal((await root.patch(path, { is_active: true })).statusCode, 200)
  await end()

  t.match(
    [(await deleted).statusCode, (await deleted).json()],
    [412, { type: '/problems/precondition_failed' }],
  )
  t.match((await root.get(path)).json(), { is_active: true, disabled_reason: null })
})

t.test('a webhook that could not be deleted whole is deleted by the same request', async (t) => {
  const created = await root.post(PATH, { url: 'https://example.com/hook', events: ['user.created'] })
  const webhook = created.json<Webhook>()
  const path = `${PATH}/${webhook.id}`
  const ifMatch = { 'if-match': String(created.headers.etag) }
  await backlog(webhook, 3, 3)
  const end = await beforeRemoval(t, `raise 'the database is stopping' using errcode = '57P01'`)
  t.equal((await root.delete(path, ifMatch)).statusCode, 503)
  t.match((await root.get(path)).json(), { is_active: false, disabled_reason: 'It is being deleted' })
  await end()

  t.equal((await root.delete(path, ifMatch)).statusCode, 204)
  t.equal((await root.get(path)).statusCode, 404)
})

t.test('what a claim costs does not depend on what waits or was sent', async (t) => {
  const webhook = await aWebhook('https://example.com/hook', ['user.created'])
  await backlog(webhook, 100_000, 1000, 'delivered')
  await backlog(webhook, 5000, 1)
  await backlog(webhook, 95_000, 1000)
  await pool.query('analyze webhook_deliveries')
  const outbox = createOutbox(services.database)
  const bounds = { perWebhook: 50, inAll: 500, leaseSeconds: 60 }

  type Plan = { 'Shared Hit Blocks': number; 'Shared Read Blocks': number }
  const explained = await pool.query<{ 'QUERY PLAN': { Plan: Plan }[] }>(
    `explain (analyze, buffers, format json) ${CLAIM}`,
    [[], ...Object.values(bounds)],
  )
  const plan = explained.rows[0]?.['QUERY PLAN'][0]?.Plan
  const read = (plan?.['Shared Hit Blocks'] ?? 0) + (plan?.['Shared Read Blocks'] ?? 0)
  t.ok(read > 0 && read < 2000, `${read} buffers`)

  const taken = await outbox.claim([], bounds)
  t.ok(taken.length > 0, 'thousands about one subject hold up no other')
  t.equal(new Set(taken.map(({ subject }) => subject)).size, taken.length, 'one of each subject')
  t.notOk(taken.some(({ subject }) => subject === 's0'))
})

t.test('what a process has taken when it ends is sent by the next one at once', async (t) => {
  const { config, databaseUrl } = postern
  const asked: unknown[] = []
  const silent = createServer((request) => void asked.push(request.resume())).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  t.teardown(() => silent.close())
  const { port } = silent.address() as AddressInfo
  await backlog(await aWebhook(`http://127.0.0.1:${port}/`, ['user.created']), 20, 20)
  const other = createServices(config, { databaseUrl, secretKey: SECRET_KEY })
  t.teardown(async () => await other.close())
  other.webhookSender.start()
  await eventually(async () => asked.length === 4)
  await other.webhookSender.stop()

  const { rows } = await pool.query(
    `select count(*)::int from webhook_deliveries where status = 'pending' and attempts = 0 and next_attempt_at <= now()`,
  )
  t.strictSame(rows, [{ count: 20 }])
})

t.test('what was taken for too long is left to who has taken it since', async (t) => {
  const outbox = createOutbox(services.database)
  await backlog(await aWebhook('https://example.com/hook', ['user.created']), 3, 3)
  const bounds = { perWebhook: 50, inAll: 500 }
  const late = await outbox.claim([], { ...bounds, leaseSeconds: 0 })
  const [first, ...others] = await outbox.claim([], { ...bounds, leaseSeconds: 60 })
  t.equal(others.length, 2)

  await outbox.release(late)
  for (const delivery of late) {
    await outbox.putOff(delivery, { error: 'the secret cannot be opened', seconds: -10 })
    await outbox.postpone(delivery, { status: 500, error: 'the receiver answered 500', seconds: -10 })
  }
  t.same(await outbox.claim([], { ...bounds, leaseSeconds: 60 }), [], 'nobody else sends it meanwhile')
  if (first) await outbox.release([first])
  t.match(await outbox.claim([], { ...bounds, leaseSeconds: 60 }), [{ id: first?.id, attempts: 0 }])
})

t.test('who cannot open a secret leaves it to others, and holds nothing against the receiver', async (t) => {
  const { received, url } = await aReceiver(t)
  const webhook = await aWebhook(url, ['user.created'])
  const sealed = await pool.query<{ sealed: string }>('select secret_sealed as sealed from webhooks')
  await pool.query(`update webhooks set secret_sealed = 'v1.of.another.key', failures = 4`)
  await aUser()
  await sendDue()

  const { rows } = await pool.query(`select attempts, failures, paused_until, last_error,
    next_attempt_at between now() + interval '50 seconds' and now() + interval '60 seconds' as is_put_off
    from webhook_deliveries d join webhooks w on w.id = d.webhook_id`)
  t.match(rows, [
    { attempts: 0, failures: 4, paused_until: null, last_error: /cannot be opened/, is_put_off: true },
  ])
  t.same(received, [])
  await pool.query('update webhooks set secret_sealed = $1', [sealed.rows[0]?.sealed])
  await hurry()
  t.ok(received[0] && isSignedBy(received[0], webhook.secret))
})

t.test('what waits for a webhook that is switched off is kept for 30 days', async (t) => {
  const { url } = await aReceiver(t)
  const [on, off] = [await aWebhook(url, ['user.created']), await aWebhook(url, ['user.created'])]
  await root.patch(`${PATH}/${off.id}`, { is_active: false })
  for (const webhook of [on, off]) {
    await backlog(webhook, 2, 2)
    await pool.query(`update webhook_deliveries set created_at = now() - interval '31 days'`)
    await backlog(webhook, 1, 1, 'delivered')
  }
  await createOutbox(services.database).prune()

  const { rows } = await pool.query<{ webhook_id: string; status: string }>(
    'select webhook_id, status from webhook_deliveries order by status',
  )
  t.strictSame(
    rows.map(({ webhook_id, status }) => [webhook_id === on.id, status]),
    [[false, 'delivered'], ...[0, 0].map(() => [true, 'pending'])],
  )
})

t.test('410 Gone switches a webhook off at once; a redirect leads nowhere', async (t) => {
  const gone = await aReceiver(t, () => 410)
  const moved = await aReceiver(t, () => 302)
  const [a, b] = [await aWebhook(gone.url, ['user.created']), await aWebhook(moved.url, ['user.created'])]
  await aUser()
  await sendDue()

  t.equal((await root.get(`${PATH}/${a.id}`)).json<Webhook>().is_active, false)
  const deliveries = (await root.get(`${PATH}/${b.id}/deliveries`)).json<Delivery[]>()
  matchEach(t, deliveries, [{ status: 'pending', last_status: 302 }])
})

t.test('during a rotation both secrets sign; after a day the new one alone', async (t) => {
  const { received, url } = await aReceiver(t)
  const before = await aWebhook(url, ['user.created'])
  const after = (await root.post(`${PATH}/${before.id}/rotate-secret`)).json<Webhook>()
  await aUser()
  await sendDue()
  t.ok(received[0] && isSignedBy(received[0], before.secret) && isSignedBy(received[0], after.secret))

  await pool.query(`update webhooks set previous_secret_expires_at = now() - interval '1 second'`)
  await aUser()
  await sendDue()
  t.ok(received[1] && isSignedBy(received[1], after.secret))
  t.notOk(received[1] && isSignedBy(received[1], before.secret))
})

t.test(
  'two processes send each message once; one that was killed while it sent is stood in for',
  async (t) => {
    const { received, url } = await aReceiver(t)
    await aWebhook(url, ['user.created'])
    for (let users = 0; users < 5; users++) await aUser()
    await Promise.all([sendDue(), sendDue(), sendDue()])
    t.equal(new Set(received.map(({ message }) => message.id)).size, 5)
    t.equal(received.length, 5)

    await aUser()
    // What a process leaves that took it and ended: pending, and not due before its lease has.
    await pool.query(`update webhook_deliveries set attempts = 1, next_attempt_at = now() + interval '30 seconds'
    where status = 'pending'`)
    await sendDue()
    t.equal(received.length, 5)
    await hurry()
    t.equal(received.length, 6)
  },
)

t.test('a test message and a redelivery can be asked for', async (t) => {
  const { received, url } = await aReceiver(t)
  const webhook = await aWebhook(url, ['user.created'])
  const asked = await root.post(`${PATH}/${webhook.id}/test`)
  t.equal(asked.statusCode, 202)
  await sendDue()
  t.match(received[0]?.message, { type: 'webhook.test' })
  t.same(received[0]?.message.data, {})
  t.ok(received[0] && isSignedBy(received[0], webhook.secret))

  const again = await root.post(`${PATH}/${webhook.id}/deliveries/${asked.json<Delivery>().id}/redeliver`)
  t.match([again.statusCode, again.json()], [202, { status: 'pending', attempts: 0 }])
  await sendDue()
  t.equal(received[1]?.message.id, received[0]?.message.id)
  const unknown = await root.post(`${PATH}/${webhook.id}/deliveries/${NO_SUCH_ID}/redeliver`)
  t.match([unknown.statusCode, unknown.json()], [404, { type: '/problems/delivery_not_found' }])
})

t.test('an account administrator has webhooks of the own account, which hear of nothing else', async (t) => {
  const { received, url } = await aReceiver(t)
  const account = { id: await anAccount() }
  const { client: admin } = await postern.person('ACCOUNT_ADMIN', { accountId: account.id })
  const elsewhere = await aWebhook(url, ['user.created'])

  t.equal((await admin.post(PATH, { url, events: ['*'] })).statusCode, 404, 'of every account')
  const created = await admin.post(PATH, { url, events: ['member.added'], account_id: account.id })
  t.equal(created.statusCode, 201, created.body)
  const own = created.json<Webhook>()
  t.same(
    (await admin.get(PATH)).json<Webhook[]>().map(({ id }) => id),
    [own.id],
  )
  for (const request of [
    admin.get(`${PATH}/${elsewhere.id}`),
    admin.patch(`${PATH}/${elsewhere.id}`, { is_active: false }),
    admin.delete(`${PATH}/${elsewhere.id}`),
    admin.post(`${PATH}/${elsewhere.id}/rotate-secret`),
    admin.get(`${PATH}/${elsewhere.id}/deliveries`),
    admin.post(`${PATH}/${elsewhere.id}/test`),
  ])
    t.equal((await request).statusCode, 404)

  const user = await aUser()
  await root.put(`/api/v1/accounts/${account.id}/members/${user}`)
  await sendDue()
  t.same(received.map(({ message }) => message.type).sort(), ['member.added', 'user.created'])

  await copies(own, 18)
  const another = async (account_id?: string) => await root.post(PATH, { url, events: ['*'], account_id })
  const atOnce = await Promise.all(Array.from({ length: 6 }, async () => await another(account.id)))
  t.same(atOnce.map(({ statusCode }) => statusCode).sort(), [201, ...Array(5).fill(409)])
  t.match((await another(account.id)).json(), {
    type: '/problems/limit_reached',
    detail: /20 webhooks of an/,
  })
  t.equal((await another()).statusCode, 201, 'of one account, and no other')
})

t.test('a private network cannot be reached through a webhook', async (t) => {
  const closed = createAddresses([])
  const open = createAddresses(['127.0.0.1', '10.1.0.0/16'])
  const refused = [
    'http://example.com/',
    'https://127.0.0.1/',
    'https://127.1/',
    'https://2130706433/',
    'https://0x7f.0.0.1/',
    'https://10.0.0.1/',
    'https://169.254.169.254/latest/meta-data',
    'https://[::1]/',
    'https://[::ffff:127.0.0.1]/',
    'https://[::ffff:7f00:1]/',
    'https://[fd00::1]/',
    'https://[fe80::1]/',
    'https://[64:ff9b::7f00:1]/',
    'https://user:secret@example.com/',
    'https://example.com/#a',
    'ftp://example.com/',
    'file:///etc/passwd',
    'not a url',
  ]
  t.same(
    refused.filter((url) => closed.faultOf(url) === undefined),
    [],
  )
  const accepted = ['https://example.com/hook', 'https://1.1.1.1/', 'https://[2606:4700::1111]/']
  t.same(
    accepted.filter((url) => closed.faultOf(url) !== undefined),
    [],
  )
  const named = ['http://127.0.0.1:8080/', 'https://10.1.2.3/', 'http://[::ffff:127.0.0.1]/']
  t.same(
    named.filter((url) => open.faultOf(url) !== undefined),
    [],
  )
  t.ok(open.faultOf('https://10.2.0.1/') && open.faultOf('http://example.com/'))

  t.match(
    await resolve(closed, 'localhost'),
    /private network/,
    'a name that leads there, when it is connected to',
  )

  const created = await root.post(PATH, { url: 'https://192.168.1.1/', events: ['*'] })
  t.match([created.statusCode, created.json()], [422, { errors: [{ pointer: '/body/url' }] }])
})

t.test('a webhook is read, changed with If-Match and deleted with what waits', async (t) => {
  const { received, url } = await aReceiver(t)
  const created = await root.post(PATH, { url, events: ['user.created'], description: 'CRM' })
  const { secret, ...shown } = created.json<Webhook>()
  const path = `${PATH}/${shown.id}`
  const etag = String(created.headers.etag)

  t.equal(created.headers['cache-control'], 'no-store')
  t.same((await root.get(path)).json(), shown)
  t.same((await root.get(`${PATH}?total=true`)).headers['x-total-count'], '1')
  const changed = await root.patch(path, { events: ['*'], is_active: false }, { 'if-match': etag })
  t.match(changed.json(), { events: ['*'], is_active: false })
  t.equal((await root.patch(path, { is_active: true }, { 'if-match': etag })).statusCode, 412)
  t.equal((await root.patch(path, { events: ['user.exploded'] })).statusCode, 422)
  await aUser()
  await root.patch(path, { is_active: true })
  await aUser()
  t.equal((await root.delete(path)).statusCode, 204)
  await sendDue()
  t.same(received, [], 'what happened while it was off, and what waited when it was deleted')
  t.equal((await root.get(path)).statusCode, 404)
  t.equal((await root.get(`${path}/deliveries`)).statusCode, 404)
  t.equal((await root.post(PATH, { url, events: ['*'], account_id: NO_SUCH_ID })).statusCode, 404)
})

/** What a socket would be given: an address, or why it gets none. */
async function resolve({ lookup }: ReturnType<typeof createAddresses>, name: string): Promise<string> {
  return await new Promise((done) =>
    lookup(name, { all: false }, (error, address) => done(error ? error.message : String(address))),
  )
}

t.test('somebody is created before they get a role, also where the first try fails', async (t) => {
  const { received, url } = await aReceiver(t, (_message, nth) => (nth === 1 ? 500 : 204))
  await aWebhook(url, ['user.created', 'role.assigned'])
  const user = await aUser()
  const given = await root.post('/api/v1/user-roles', {
    user_id: user,
    role_id: await postern.roleId('ADMIN'),
  })
  t.equal(given.statusCode, 201, given.body)
  await sendDue()
  await hurry()
  await hurry()

  t.same(
    received.map(({ message }) => [message.type, message.subject?.id]),
    ['user.created', 'user.created', 'role.assigned'].map((type) => [type, user]),
  )
})

// The last one: the other tests' service has the SECRET_KEY before from here on.
t.test('after a change of SECRET_KEY the secrets of every environment sign on', async (t) => {
  const { config, databaseUrl } = postern
  const { received, url } = await aReceiver(t)
  const there = inEnvironment((await anEnvironment(postern)).name)
  const before = await aWebhook(url, ['user.created'])
  const after = (await root.post(`${PATH}/${before.id}/rotate-secret`)).json<Webhook>()
  const other = (await root.post(PATH, { url, events: ['user.created'] }, there)).json<Webhook>()
  const rotated = await aWebhook(url, ['user.created'])
  for (const [id, headers] of [
    [before.id, {}],
    [rotated.id, {}],
    [other.id, there],
  ] as [string, Record<string, string>][])
    t.equal((await root.post(`${PATH}/${id}/test`, {}, headers)).statusCode, 202)
  const options = { databaseUrl, secretKey: 'another secret key that only this test has' }
  const changed = createServices({ ...config, previousSecretKey: SECRET_KEY }, options)
  const later = createServices(config, options)
  t.teardown(async () => await Promise.all([changed.close(), later.close()]))

  // By a process that still has the key before, while another seals anew.
  const newest = { secret: `whsec_${Buffer.alloc(24, 7).toString('base64')}` }
  const old = await pool.connect()
  await old.query('begin')
  await old.query('update webhooks set secret_sealed = $1 where id = $2', [
    services.vault.seal('webhooks', newest.secret),
    rotated.id,
  ])
  const isSetUp = setUp(changed, databaseUrl)
  await eventually(async () => await isWaitedFor())
  await old.query('commit')
  old.release()
  await isSetUp

  await setUp(changed, databaseUrl)
  await later.webhookSender.sendDue()

  const signed = [before, after, newest, other].map(
    ({ secret }) => received.filter((one) => isSignedBy(one, secret)).length,
  )
  t.same(signed, [1, 1, 1, 1])
})
