import fc from 'fast-check'
import t from 'tap'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { onServer } from '../helpers/database.ts'

/** A session as one would write it down without knowing how it is stored: its tokens in the order of their making. */
type Session = { tokens: string[]; isOver: boolean; isPreviousGood: boolean }
type Model = { sessions: Session[] }
type Real = { app: TestApp; email: string }
type Step = fc.AsyncCommand<Model, Real>

const refresh = async ({ app }: Real, refresh_token: string) =>
  await app.anonymous.post('/api/v1/auth/refresh', { refresh_token })
const sql = async ({ app }: Real, text: string, token: string): Promise<void> => {
  await onServer(app.databaseUrl, async (client) => await client.query(text, [token.slice(0, 36)]))
}
const equal = (actual: unknown, expected: unknown, what: string): void => {
  if (actual !== expected) throw new Error(`${what}: ${String(actual)}, not ${String(expected)}`)
}
const pick = <T>(list: readonly T[], index: number): T | undefined => list[index % list.length]

class SignIn implements Step {
  check = () => true
  async run(model: Model, real: Real): Promise<void> {
    const body = { email: real.email, password: PASSWORD }
    const answer = await real.app.anonymous.post('/api/v1/auth/login', body)
    const { refresh_token } = answer.json<{ refresh_token: string }>()
    model.sessions.push({ tokens: [refresh_token], isOver: false, isPreviousGood: false })
  }
  toString = () => 'sign in'
}

class Present implements Step {
  readonly session: number
  readonly age: number
  constructor(session: number, age: number) {
    this.session = session
    this.age = age
  }
  check = (model: Readonly<Model>) => model.sessions.length > 0
  async run(model: Model, real: Real): Promise<void> {
    const session = pick(model.sessions, this.session)
    const age = this.age % (session?.tokens.length ?? 1)
    const token = session?.tokens.at(-1 - age)
    if (!session || token === undefined) return
    const answer = await refresh(real, token)
    const isGood = !session.isOver && (age === 0 || (age === 1 && session.isPreviousGood))
    equal(answer.statusCode, isGood ? 200 : 401, String(this))
    if (!isGood) {
      session.isOver = true
      return
    }
    const { refresh_token: next, access_token } = answer.json<Record<string, string>>()
    if (age === 1) equal(next, session.tokens.at(-1), 'the same successor')
    else {
      equal(session.tokens.includes(next ?? ''), false, 'a token that was there before')
      session.tokens.push(next ?? '')
      session.isPreviousGood = true
    }
    equal((await real.app.as(access_token ?? '').get('/api/v1/users/me')).statusCode, 200, 'access')
  }
  toString = () => `present token ${this.age} of session ${this.session}`
}

/** Something that happens to one session, by whatever way. */
class Happens implements Step {
  readonly what: keyof typeof HAPPENINGS
  readonly session: number
  constructor(what: keyof typeof HAPPENINGS, session: number) {
    this.what = what
    this.session = session
  }
  check = (model: Readonly<Model>) => model.sessions.length > 0
  async run(model: Model, real: Real): Promise<void> {
    const session = pick(model.sessions, this.session)
    if (session) await HAPPENINGS[this.what](session, real)
  }
  toString = () => `${this.what} (session ${this.session})`
}

const HAPPENINGS = {
  'the interval passes': async (session: Session, real: Real) => {
    await sql(
      real,
      "update sessions set refreshed_at = now() - interval '1 minute' where id = $1",
      first(session),
    )
    session.isPreviousGood = false
  },
  'it is left idle': async (session: Session, real: Real) => {
    await sql(real, 'update sessions set idle_expires_at = now() where id = $1', first(session))
    session.isOver = true
  },
  'its days are over': async (session: Session, real: Real) => {
    await sql(real, 'update sessions set expires_at = now() where id = $1', first(session))
    session.isOver = true
  },
  'it is signed out': async (session: Session, real: Real) => {
    const body = { refresh_token: first(session) }
    equal((await real.app.anonymous.post('/api/v1/auth/logout', body)).statusCode, 204, 'sign-out')
    session.isOver = true
  },
  'a token is made up for it': async (session: Session, real: Real) => {
    const madeUp = `${first(session).slice(0, 36)}.${'x'.repeat(43)}`
    equal((await refresh(real, madeUp)).statusCode, 401, 'made up')
  },
  'old sessions are removed': async (_session: Session, real: Real) => {
    await real.app.services.sessions.prune()
  },
}

const first = ({ tokens }: Session): string => tokens[0] ?? ''

t.test('sessions behave as a list of tokens would, whatever happens in whichever order', async (t) => {
  const app = await buildTestApp(t)
  const { email } = await app.person('GUEST')
  const index = fc.nat(3)
  const steps = [
    fc.constant(new SignIn()),
    fc.tuple(index, fc.nat(3)).map(([session, age]) => new Present(session, age)),
    index.map((session) => new Present(session, 0)),
    fc
      .tuple(fc.constantFrom(...(Object.keys(HAPPENINGS) as (keyof typeof HAPPENINGS)[])), index)
      .map(([what, session]) => new Happens(what, session)),
  ]
  await fc.assert(
    fc.asyncProperty(fc.commands(steps, { maxCommands: 25 }), async (commands) => {
      await fc.asyncModelRun(() => ({ model: { sessions: [] }, real: { app, email } }), commands)
    }),
    { numRuns: 30 },
  )
  t.pass('as the model says')
})
