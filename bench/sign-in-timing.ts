import bcrypt from 'bcrypt'
import pg from 'pg'
import { newId } from '../src/ids.ts'
import { adminToken, type Bench, placeProcesses, post, startPostern } from './harness.ts'

const SAMPLES = Number(process.env['BENCH_SAMPLES'] ?? 200)
const WARM_UP = 20
const PASSWORD = 'a password for the benchmark'
const WRONG = 'a password that is not the right one'
/** Before the fifth failure of an email, with which its waits would begin. */
const FORGOTTEN_EVERY = 2

/** How many people the mixture of those who signed up here and those who were imported has. */
const PEOPLE = 40
const BCRYPT_ROUNDS = 10
const SETTINGS = {
  LOGIN_MAX_FAILURES_PER_ADDRESS: '100000',
  // Mails go to the log, and to no server that would have to be there.
  ENVIRONMENT: 'dev',
  EMAIL_VERIFICATION: 'required',
  MAILS_PER_RECIPIENT: '1000',
}

/** `email`: whose it is in a round. */
type Refusal = { name: string; email: (round: number) => string; password: string; status: number }

/**
 * How long a refusal takes for each reason, in turns and in random order: what a stranger could tell them apart by.
 * Against the same refusal of an email that nobody has: the medians, the share of pairs in which it takes longer
 * (Mann-Whitney U; 0.5 is no difference), and how far that is from chance, in standard deviations.
 */
export async function signInTiming({ databaseUrl, ...bench }: Bench): Promise<void> {
  placeProcesses({ databaseUrl, ...bench }, true)
  let postern = await startPostern({ databaseUrl, env: SETTINGS })
  const database = new pg.Client({ connectionString: databaseUrl })
  await database.connect()
  try {
    await measure(await prepare(postern.url, database), postern.url, database)
    const mixture = await prepareMixture(postern.url, database)
    // Which hashes unknown emails are given is drawn anew.
    await postern.stop()
    postern = await startPostern({ databaseUrl, env: SETTINGS })
    await measure(mixture, postern.url, database)
  } finally {
    await database.end()
    await postern.stop()
  }
}

async function measure(refusals: readonly Refusal[], url: string, database: pg.Client): Promise<void> {
  const taken = new Map<Refusal, number[]>(refusals.map((one) => [one, []]))
  for (let round = -WARM_UP; round < SAMPLES; round++) {
    if (round % FORGOTTEN_EVERY === 0) await forget(database)
    for (const one of shuffled(refusals)) {
      const ms = await timeOf(url, one, round + WARM_UP)
      if (round >= 0) taken.get(one)?.push(ms)
    }
  }
  for (const [one, times] of taken) print(one, times, taken)
}

/** People who are refused for different reasons, two of whom wait. */
async function prepare(url: string, database: pg.Client): Promise<Refusal[]> {
  const token = await adminToken(url)
  const create = async (name: string) => await createPerson(url, token, name)
  const [ada, disabled, withFactor, unverified, locked] = [
    await create('ada'),
    await create('disabled'),
    await create('with-factor'),
    await create('unverified'),
    await create('locked'),
  ]
  await post(`${url}/api/v1/users/${disabled.id}/deactivate`, {}, token)
  await database.query(
    'update user_credentials set email_verified_at = now() where email_verified_at is null and user_id <> $1',
    [unverified.id],
  )
  await database.query(
    `insert into totp_factors (id, environment_id, user_id, secret_sealed, confirmed_at)
     select $1, environment_id, id, 'of no use', now() from users where id = $2`,
    [newId(), withFactor.id],
  )
  const nobody = `timing-nobody-${newId()}@postern.test`
  const lockedNobody = `timing-locked-${newId()}@postern.test`
  for (const email of [locked.email, lockedNobody])
    for (let n = 0; n < 5; n++) await timeOf(url, refusal('locking', email), 0)
  await database.query(
    "update login_attempts set blocked_until = now() + interval '1 day' where kind = 'email_and_address' and failures >= 5",
  )
  return [
    refusal('unknown', nobody),
    refusal('wrong password', ada.email),
    refusal('disabled, right password', disabled.email, PASSWORD),
    refusal('disabled, wrong password', disabled.email),
    refusal('second factor, wrong password', withFactor.email),
    refusal('unverified, right password', unverified.email, PASSWORD),
    refusal('unverified, wrong password', unverified.email),
    refusal('unknown and waiting', lockedNobody, WRONG, 429),
    refusal('waiting, right password', locked.email, PASSWORD, 429),
  ]
}

/** Everybody, half of them with a bcrypt hash as of an import, and as many unknown emails as there are rounds. */
async function prepareMixture(url: string, database: pg.Client): Promise<Refusal[]> {
  const token = await adminToken(url)
  for (let n = 0; n < PEOPLE; n++) await createPerson(url, token, `mixed-${n}`)
  await database.query(
    `update user_credentials set password_hash = $1 where user_id in (
       select user_id from user_credentials where password_hash is not null and user_id not in (
         select user_id from role_assignments)
       order by user_id limit (select count(*) / 2 from user_credentials where password_hash is not null))`,
    [await bcrypt.hash(PASSWORD, BCRYPT_ROUNDS)],
  )
  const { rows } = await database.query<{ email: string }>(
    `select email from users join user_credentials on user_id = id
     where password_hash is not null and email not like 'timing-locked-%'`,
  )
  const run = newId()
  const ofMany = (name: string, email: Refusal['email']): Refusal => ({ ...refusal(name, ''), email })
  return [
    ofMany('unknown, each time another', (round) => `timing-${round}-${run}@postern.test`),
    ofMany('wrong password, half imported (bcrypt)', (round) => rows[round % rows.length]?.email ?? ''),
  ]
}

const refusal = (name: string, email: string, password = WRONG, status = 401): Refusal => ({
  name,
  email: () => email,
  password,
  status,
})

async function createPerson(
  url: string,
  token: string,
  name: string,
): Promise<{ id: string; email: string }> {
  const email = `timing-${name}-${newId()}@postern.test`
  const made = await post(`${url}/api/v1/users`, { email, password: PASSWORD, full_name: name }, token)
  return { ...((await made.json()) as { id: string }), email }
}

/** Lets all failures be forgotten but those that have led to the waits of above. */
async function forget(database: pg.Client): Promise<void> {
  await database.query(
    "delete from login_attempts where coalesce(blocked_until < now() + interval '2 hours', true)",
  )
}

async function timeOf(
  url: string,
  { name, email, password, status }: Refusal,
  round: number,
): Promise<number> {
  const began = performance.now()
  const response = await fetch(`${url}/api/v1/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email: email(round), password }),
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
