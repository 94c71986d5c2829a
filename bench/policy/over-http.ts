import autocannon from 'autocannon'
import pg from 'pg'
import {
  adminToken,
  type Bench,
  placeProcesses,
  post,
  ROUNDS,
  report,
  type Server,
  startPostern,
} from '../harness.ts'
import { casbinInProcess } from './casbin.ts'
import { cerbosBody, startCerbos } from './cerbos.ts'
import { policyInProcess } from './engine.ts'
import { seenByAnotherProcess } from './other-process.ts'
import { installPeers, peerVersions } from './peers.ts'
import { type Asked, POLICY_FILE, questionsOf, roleOf, userKey } from './rules.ts'

const SECONDS = Number(process.env['BENCH_SECONDS'] ?? 4)
const USERS = 1000
const QUESTIONS = 500
const BATCH = 100

/**
 * Decisions in process beside casbin; single and batched checks over HTTP beside Cerbos with the same rules, and a
 * relationship check over three hops; how soon another process knows of a write.
 */
export async function policy(bench: Bench): Promise<void> {
  console.log(`  beside ${peerVersions}`)
  const peers = await installPeers()
  policyInProcess()
  await casbinInProcess(peers)
  placeProcesses(bench, true)
  const postern = await startPostern(bench)
  const cerbos = await startCerbos(peers)
  try {
    const key = await loadPolicy(postern, bench.databaseUrl)
    const questions = questionsOf(QUESTIONS, USERS)
    const single = { ours: [] as Round[], theirs: [] as Round[] }
    const batch = { ours: [] as Round[], theirs: [] as Round[] }
    const hops: Round[] = []
    const ours = (path: string, bodies: Body[]) => ({ url: `${postern.url}${path}`, key, bodies })
    const theirs = (bodies: Body[]) => ({ url: `${cerbos.url}/api/check/resources`, bodies })
    const batches = batchesOf(questions)
    for (let round = -1; round < ROUNDS; round++) {
      const of = {
        cerbos: await fire(theirs(questions.map((asked) => cerbosQuestion([asked])))),
        postern: await fire(ours('/allowed', questions.map(singleQuestion))),
        cerbosBatch: await fire(theirs(batches.map(cerbosQuestion))),
        posternBatch: await fire(ours('/allowed/bulk', batches.map(batchQuestion))),
        hops: await fire(ours('/allowed', [hopsQuestion('reader', true), hopsQuestion('stranger', false)])),
      }
      if (round < 0) continue // warm-up
      single.theirs.push(of.cerbos)
      single.ours.push(of.postern)
      batch.theirs.push(of.cerbosBatch)
      batch.ours.push(of.posternBatch)
      hops.push(of.hops)
    }
    const rate = (rounds: Round[], times = 1) => rounds.map(({ perSecond }) => perSecond * times)
    const p99 = (rounds: Round[]) => rounds.map((one) => one.p99)
    report('Cerbos, single checks', rate(single.theirs), '/s')
    report('Postern, POST /allowed', rate(single.ours), '/s', rate(single.theirs))
    report('Cerbos, p99', p99(single.theirs), 'ms')
    report('Postern, p99', p99(single.ours), 'ms')
    report(`Cerbos, decisions in batches of ${BATCH}`, rate(batch.theirs, BATCH), '/s')
    report(
      `Postern, decisions in batches of ${BATCH}`,
      rate(batch.ours, BATCH),
      '/s',
      rate(batch.theirs, BATCH),
    )
    report('Postern, relationship check over three hops', rate(hops), '/s')
  } finally {
    await cerbos.stop()
    await postern.stop()
  }
  await seenByAnotherProcess(bench)
}

type Body = { body: string; isRight: (answer: string) => boolean }
type Round = { perSecond: number; p99: number }

/** One round of requests, of which every answer is compared with what it must be. */
async function fire({ url, key, bodies }: { url: string; key?: string; bodies: Body[] }): Promise<Round> {
  let wrong = 0
  const result = await autocannon({
    url,
    connections: 50,
    duration: SECONDS,
    requests: bodies.map(({ body, isRight }) => ({
      method: 'POST' as const,
      headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
      body,
      onResponse: (status: number, answer: string) => {
        if (status !== 200 || !isRight(answer)) wrong++
      },
    })),
  })
  if (wrong + result.errors + result.timeouts > 0)
    throw new Error(`${url}: ${wrong} wrong answers, ${result.errors} errors`)
  return { perSecond: result.requests.total / result.duration, p99: result.latency.p99 }
}

const questionOf = ({ user, action, type }: Asked) => ({
  user: { key: user },
  action,
  resource: { type, tenant: 'default' },
  context: {},
})

const singleQuestion = (asked: Asked): Body => ({
  body: JSON.stringify(questionOf(asked)),
  isRight: (answer) => answer.includes(`"allow":${asked.isAllowed}`),
})

const batchQuestion = (batch: readonly Asked[]): Body => ({
  body: JSON.stringify(batch.map(questionOf)),
  isRight: (answer) =>
    (JSON.parse(answer) as { allow: { allow: boolean }[] }).allow.every(
      ({ allow }, index) => allow === batch[index]?.isAllowed,
    ),
})

const cerbosQuestion = (batch: readonly Asked[]): Body => ({
  body: cerbosBody(batch),
  isRight: (answer) => {
    const { results } = JSON.parse(answer) as { results: { actions: Record<string, string> }[] }
    return results.every(({ actions }, index) => {
      const asked = batch[index]
      return asked !== undefined && (actions[asked.action] === 'EFFECT_ALLOW') === asked.isAllowed
    })
  },
})

const hopsQuestion = (user: string, isAllowed: boolean): Body => ({
  body: JSON.stringify({
    user: { key: user },
    action: 'read',
    resource: { type: 'page', key: 'one', tenant: 'default' },
  }),
  isRight: (answer) => answer.includes(`"allow":${isAllowed}`),
})

/** Batches about one user each, because Cerbos takes one principal per request. */
function batchesOf(questions: readonly Asked[]): Asked[][] {
  return questions.slice(0, 50).map(({ user, role }, place) =>
    questions.slice(place, place + BATCH).map((asked) => ({
      ...asked,
      user,
      role,
      isAllowed: isAllowedTo(role, asked),
    })),
  )
}

const isAllowedTo = (role: string, { type, action }: Asked): boolean =>
  POLICY_FILE.roles[role]?.permissions.includes(`${type}:${action}`) ?? false

/** Applies the policy over HTTP, writes the people, and returns an API key. */
async function loadPolicy({ url }: Server, databaseUrl: string): Promise<string> {
  const token = await adminToken(url)
  await post(`${url}/api/v1/policy`, { ...POLICY_FILE, facts: HOPS }, token)
  const client = new pg.Client({ connectionString: databaseUrl })
  await client.connect()
  try {
    for (let place = 0; place < USERS; place++) await insertUser(client, userKey(place), roleOf(place))
  } finally {
    await client.end()
  }
  const made = await post(`${url}/api/v1/api-keys`, { name: 'bench', access: 'read' }, token)
  return ((await made.json()) as { key: string }).key
}

const HOPS = {
  instances: ['folder', 'shelf', 'book', 'page'].map((resource) => ({ resource, key: 'one' })),
  relationships: [
    { subject: 'folder:one', relation: 'parent', object: 'shelf:one' },
    { subject: 'shelf:one', relation: 'parent', object: 'book:one' },
    { subject: 'book:one', relation: 'parent', object: 'page:one' },
  ],
  users: {
    reader: { roles: [{ role: 'reader', instance: 'folder:one' }] },
    stranger: {},
  },
}

async function insertUser(client: pg.Client, key: string, role: string): Promise<void> {
  await client.query(
    `with person as (
       insert into users (id, environment_id, key, search_text)
       select gen_random_uuid(), id, $1, $1 from environments where project = 'default' and key = 'default'
       returning id, environment_id),
     member as (
       insert into account_members (environment_id, account_id, user_id)
       select p.environment_id, a.id, p.id from person p
       join accounts a on a.environment_id = p.environment_id and a.key = 'default' returning account_id, user_id)
     insert into role_assignments (id, environment_id, user_id, role_id, account_id)
     select gen_random_uuid(), p.environment_id, p.id, r.id, m.account_id from person p join member m on m.user_id = p.id
     join roles r on r.environment_id = p.environment_id and r.key = $2 and r.resource_id is null`,
    [key, role],
  )
}
