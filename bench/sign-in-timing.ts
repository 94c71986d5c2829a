import pg from 'pg'
import { newId } from '../src/ids.ts'
import { adminToken, type Bench, placeProcesses, post, startPostern } from './harness.ts'

const SAMPLES = Number(process.env['BENCH_SAMPLES'] ?? 200)
const WARM_UP = 20
const PASSWORD = 'a password for the benchmark'
const WRONG = 'a password that is not the right one'
/** Before the fifth failure of an email, with which its waits would begin. */
const FORGOTTEN_EVERY = 3

type Refusal = { name: string; email: string; password: string; status: number }

/**
 * How long a refusal takes for each reason, in turns and in random order: what a stranger could tell them apart by.
 * Against the same refusal of an email that nobody has: the medians, the share of pairs in which it takes longer
 * (Mann-Whitney U; 0.5 is no difference), and how far that is from chance, in standard deviations.
 */
export async function signInTiming({ databaseUrl, ...bench }: Bench): Promise<void> {
  placeProcesses({ databaseUrl, ...bench }, true)
  const postern = await startPostern({
    databaseUrl,
    env: { LOGIN_MAX_FAILURES_PER_ADDRESS: '100000' },
  })
  const database = new pg.Client({ connectionString: databaseUrl })
  await database.connect()
  try {
    const refusals = await prepare(postern.url, database)
    const taken = new Map<Refusal, number[]>(refusals.map((one) => [one, []]))
    for (let round = -WARM_UP; round < SAMPLES; round++) {
      if (round % FORGOTTEN_EVERY === 0) await forget(database)
      for (const one of shuffled(refusals)) {
        const ms = await timeOf(postern.url, one)
        if (round >= 0) taken.get(one)?.push(ms)
      }
    }
    for (const [one, times] of taken) print(one, times, taken)
  } finally {
    await database.end()
    await postern.stop()
  }
}

/** People who are refused for different reasons, two of whom wait. */
async function prepare(url: string, database: pg.Client): Promise<Refusal[]> {
  const token = await adminToken(url)
  const create = async (name: string): Promise<{ id: string; email: string }> => {
    const email = `timing-${name}-${newId()}@postern.test`
    const made = await post(`${url}/api/v1/users`, { email, password: PASSWORD, full_name: name }, token)
    return { ...((await made.json()) as { id: string }), email }
  }
  const [ada, disabled, withFactor, locked] = [
    await create('ada'),
    await create('disabled'),
    await create('with-factor'),
    await create('locked'),
  ]
  await post(`${url}/api/v1/users/${disabled.id}/deactivate`, {}, token)
  await database.query(
    `insert into totp_factors (id, environment_id, user_id, secret_sealed, confirmed_at)
     select $1, environment_id, id, 'of no use', now() from users where id = $2`,
    [newId(), withFactor.id],
  )
  const nobody = `timing-nobody-${newId()}@postern.test`
  const lockedNobody = `timing-locked-${newId()}@postern.test`
  for (const email of [locked.email, lockedNobody])
    for (let n = 0; n < 5; n++) await timeOf(url, { name: 'locking', email, password: WRONG, status: 401 })
  await database.query(
    "update login_attempts set blocked_until = now() + interval '1 day' where kind = 'email_and_address' and failures >= 5",
  )
  const refusal = (name: string, email: string, password = WRONG, status = 401): Refusal => ({
    name,
    email,
    password,
    status,
  })
  return [
    refusal('unknown', nobody),
    refusal('wrong password', ada.email),
    refusal('disabled, right password', disabled.email, PASSWORD),
    refusal('disabled, wrong password', disabled.email),
    refusal('second factor, wrong password', withFactor.email),
    refusal('unknown and waiting', lockedNobody, WRONG, 429),
    refusal('waiting, right password', locked.email, PASSWORD, 429),
  ]
}

/** Lets all failures be forgotten but those that have led to the waits of above. */
async function forget(database: pg.Client): Promise<void> {
  await database.query(
    "delete from login_attempts where coalesce(blocked_until < now() + interval '2 hours', true)",
  )
}

async function timeOf(url: string, { name, email, password, status }: Refusal): Promise<number> {
  const began = performance.now()
  const response = await fetch(`${url}/api/v1/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password }),
  })
  await response.arrayBuffer()
  if (response.status !== status) throw new Error(`${name}: ${response.status}`)
  return performance.now() - began
}

function print(one: Refusal, times: readonly number[], all: ReadonlyMap<Refusal, number[]>): void {
  const [baseline = []] = [...all].flatMap(([other, taken]) =>
    other.status === one.status && other.name.startsWith('unknown') ? [taken] : [],
  )
  const { share, deviations } = mannWhitney(times, baseline)
  const figures = `${median(times).toFixed(2).padStart(8)} ms   slower in ${(share * 100).toFixed(1)} % of pairs, z = ${deviations.toFixed(1)}`
  console.log(`  ${`${one.status} ${one.name}`.padEnd(40)} ${figures}`)
}

/** Whether values of one kind tend to be above those of another, with ties as halves. */
function mannWhitney(values: readonly number[], others: readonly number[]) {
  let above = 0
  for (const value of values)
    for (const other of others) above += value > other ? 1 : value === other ? 0.5 : 0
  const pairs = values.length * others.length
  const deviation = Math.sqrt((pairs * (values.length + others.length + 1)) / 12)
  return { share: above / pairs, deviations: (above - pairs / 2) / deviation }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

const shuffled = <T>(values: readonly T[]): T[] =>
  values
    .map((value) => ({ value, at: Math.random() }))
    .sort((one, other) => one.at - other.at)
    .map(({ value }) => value)
