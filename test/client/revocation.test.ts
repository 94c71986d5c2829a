import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import { createVerifier, PosternError, type VerifierOptions } from '../../src/client/index.ts'
import { createRevocationStore, type Revocation, revocationKey } from '../../src/client/revocations.ts'
import { newId } from '../../src/ids.ts'
import { SYSTEM } from '../../src/principal.ts'
import { wireTo } from '../db/cuttable-proxy.ts'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { freePort, startService } from '../helpers/processes.ts'
import { isInTime } from '../policy/in-time.ts'
import { AUDIENCE, type Json, newPair, openIssuer } from './issuer.ts'

const inAnHour = () => Math.floor(Date.now() / 1000) + 3600

async function build(t: Test, options: Partial<VerifierOptions> = {}) {
  const issuer = await openIssuer(t)
  const errors: unknown[] = []
  const verifier = createVerifier({
    issuer: issuer.issuer,
    audience: AUDIENCE,
    feed: { apiKey: 'a key' },
    onError: (error) => errors.push(error),
    ...options,
  })
  t.teardown(async () => await verifier.close())
  const codeOf = async (token: string): Promise<string> =>
    await verifier.verify(token).then(
      () => 'accepted',
      (error: unknown) => (error instanceof PosternError ? error.code : String(error)),
    )
  const connected = async () => {
    t.ok(await isInTime(() => issuer.listeners() === 1), 'the verifier listens')
  }
  /** From now on the verifier knows everything. */
  const current = async () => {
    await connected()
    issuer.say('current', { age_seconds: 0 })
    await verifier.ready()
  }
  return { issuer, verifier, codeOf, connected, current, errors }
}

t.test('each kind of entry ends its tokens, also those that were seen before, and no others', async (t) => {
  const { issuer, codeOf, current } = await build(t)
  await current()
  const [sid, sub, client, jti] = [newId(), newId(), newId(), newId()]
  const ended: [what: string, claims: Json, entry: Revocation][] = [
    ['a session', { sid }, { kind: 'session', ref: sid, ver: null, exp: inAnHour() }],
    ['a token', { jti }, { kind: 'token', ref: jti, exp: inAnHour() }],
    ['a user', { sub, ver: 3 }, { kind: 'user', ref: sub, ver: 4, exp: inAnHour() }],
    [
      'a client',
      { sub: client, client_id: client, sid: undefined, ver: 1 },
      { kind: 'client', ref: client, ver: 2, exp: inAnHour() },
    ],
    ['an actor', { act: { sub: client } }, { kind: 'client', ref: client, ver: 2, exp: inAnHour() }],
    [
      'a name that is no UUID',
      { sid: 'session one' },
      { kind: 'session', ref: 'session one', exp: inAnHour() },
    ],
  ]
  for (const [what, claims, entry] of ended) {
    if (what === 'an actor') continue
    const token = issuer.token(claims)
    t.equal(await codeOf(token), 'accepted', `${what}: before`)
    issuer.say('revoked', [entry])
    t.ok(await isInTime(async () => (await codeOf(token)) === 'token_revoked'), what)
    t.equal(await codeOf(issuer.token(claims)), 'token_revoked', `${what}: a token that was never seen`)
  }
  t.equal(
    await codeOf(issuer.token({ act: { sub: client } })),
    'token_revoked',
    'a client that acts for somebody',
  )
  t.equal(await codeOf(issuer.token({ act: { sub: client, ver: 2 } })), 'accepted')

  t.equal(await codeOf(issuer.token({ sub, ver: 4 })), 'accepted', 'a token of the new version')
  t.equal(await codeOf(issuer.token({ sub, ver: 3 })), 'token_revoked')
  t.equal(await codeOf(issuer.token({ sub, ver: undefined })), 'token_revoked', 'a token without a version')
  t.equal(await codeOf(issuer.token({ sub: sid, jti: sub })), 'accepted', 'an id is of one kind')
  issuer.say('revoked', [{ kind: 'user', ref: sub, ver: 2, exp: inAnHour() }])
  await sleep(50)
  t.equal(
    await codeOf(issuer.token({ sub, ver: 3 })),
    'token_revoked',
    'an entry from the past brings nobody back',
  )
})

t.test('a key that was withdrawn verifies nothing from then on, whatever the key set says', async (t) => {
  const { issuer, codeOf, current } = await build(t)
  await current()
  const [old = newPair(), successor] = [issuer.keys.published[0], newPair()]
  const seen = issuer.token()
  t.equal(await codeOf(seen), 'accepted')
  const readsBefore = issuer.jwks.reads

  // An answer that somebody between has kept: it still has the old key.
  issuer.keys.published = [successor, old]
  issuer.say('revoked', [{ kind: 'key', ref: old.kid, ver: null, exp: inAnHour() }])

  t.ok(await isInTime(async () => (await codeOf(seen)) === 'token_revoked'))
  t.equal(await codeOf(issuer.token({}, {}, old)), 'token_revoked', 'a token that was never seen')
  t.ok(await isInTime(() => issuer.jwks.reads > readsBefore), 'the key set is read again')
  t.equal(await codeOf(issuer.token({}, {}, successor)), 'accepted')

  issuer.jwks.isDown = true
  const last = newPair()
  issuer.say('revoked', [{ kind: 'key', ref: successor.kid, exp: inAnHour() }])
  const refused = async () => (await codeOf(issuer.token({}, {}, successor))) === 'token_revoked'
  t.ok(await isInTime(refused), 'also while the key set is away')
  t.not(await codeOf(issuer.token({}, {}, last)), 'accepted')
})

t.test('a feed that is cut is resumed where it was, whatever was sent twice', async (t) => {
  const { issuer, codeOf, current, connected, errors } = await build(t)
  await current()
  const [first, second] = [newId(), newId()]
  issuer.say('revoked', [{ kind: 'session', ref: first, exp: inAnHour() }])
  t.ok(await isInTime(async () => (await codeOf(issuer.token({ sid: first }))) === 'token_revoked'))

  issuer.cut()
  t.ok(await isInTime(() => errors.length > 0), 'somebody hears of it')
  t.equal(await codeOf(issuer.token({ sid: first })), 'token_revoked', 'what is known stays known')
  issuer.mend()
  await connected()

  t.match(issuer.feed.connections.at(-1)?.lastId, /^0123456789ab-2$/)
  const entries = [first, second].map((ref) => ({ kind: 'session', ref, exp: inAnHour() }))
  for (let time = 0; time < 3; time++) issuer.say('revoked', entries)
  t.ok(await isInTime(async () => (await codeOf(issuer.token({ sid: second }))) === 'token_revoked'))

  const before = issuer.feed.connections.length
  for (const nonsense of [
    'data: {"kind":"x"}',
    'event: revoked\ndata: [{"kind":"all","ref":"x","exp":1}]',
    'x'.repeat(1.2e6),
  ]) {
    issuer.sayRaw(`id: lost\nevent: revoked\n${nonsense}\n\n`)
    t.ok(
      await isInTime(() => issuer.listeners() === 0 || issuer.feed.connections.length > before),
      nonsense.slice(0, 30),
    )
    await connected()
  }
  t.notMatch(issuer.feed.connections.at(-1)?.lastId, 'lost', 'what cannot be read is asked for again')
})

t.test('what is done when it is not known what was revoked is for the user to say', async (t) => {
  await t.test('closed: nothing is let in before the first word, and not after silence', async (t) => {
    const { issuer, codeOf, current, connected, verifier } = await build(t, { staleAfterSeconds: 0.5 })
    const token = issuer.token()
    await connected()
    t.equal(await codeOf(token), 'revocations_unknown')
    t.equal(verifier.knowledgeAgeSeconds(), Number.POSITIVE_INFINITY)

    await current()
    t.equal(await codeOf(token), 'accepted')
    issuer.cut()
    t.ok(await isInTime(async () => (await codeOf(token)) === 'revocations_unknown'))
    t.ok(verifier.knowledgeAgeSeconds() >= 0.5)
    issuer.mend()
    await connected()
    t.equal(await codeOf(token), 'revocations_unknown', 'a connection alone is no knowledge')
    issuer.say('current', { age_seconds: 60 })
    await sleep(50)
    t.equal(await codeOf(token), 'revocations_unknown', 'nor is that of a server that knows nothing new')
    issuer.say('current', { age_seconds: 0 })
    t.ok(await isInTime(async () => (await codeOf(token)) === 'accepted'))
  })

  await t.test('open: it goes on with what is known, as long as that is not too old', async (t) => {
    const options = { onStale: 'open', staleAfterSeconds: 0.2, maxStalenessSeconds: 2 } as const
    const { issuer, codeOf, current } = await build(t, options)
    const sid = newId()
    await current()
    issuer.say('revoked', [{ kind: 'session', ref: sid, exp: inAnHour() }])
    t.ok(await isInTime(async () => (await codeOf(issuer.token({ sid }))) === 'token_revoked'))
    issuer.cut()
    await sleep(400)

    t.equal(await codeOf(issuer.token()), 'accepted')
    t.equal(await codeOf(issuer.token({ sid })), 'token_revoked')
    t.ok(await isInTime(async () => (await codeOf(issuer.token())) === 'revocations_unknown'))
  })

  await t.test('open, before the first word: as long as the verifier is young', async (t) => {
    const { issuer, codeOf } = await build(t, {
      onStale: 'open',
      staleAfterSeconds: 0.1,
      maxStalenessSeconds: 1.5,
    })

    t.equal(await codeOf(issuer.token()), 'accepted')
    t.ok(await isInTime(async () => (await codeOf(issuer.token())) === 'revocations_unknown'))
  })
})

t.test('a flood of entries is held, forgotten in time, and bounded', async (t) => {
  await t.test('a hundred thousand through the feed', async (t) => {
    const { issuer, codeOf, current, verifier } = await build(t)
    await current()
    const refs = Array.from({ length: 100_000 }, () => newId())
    for (let first = 0; first < refs.length; first += 1000)
      issuer.say(
        'revoked',
        refs.slice(first, first + 1000).map((ref) => ({ kind: 'session', ref, exp: inAnHour() })),
      )

    t.ok(await isInTime(() => verifier.revocations() === refs.length))
    for (const sid of [refs[0], refs[50_000], refs.at(-1)])
      t.equal(await codeOf(issuer.token({ sid })), 'token_revoked')
    t.equal(await codeOf(issuer.token()), 'accepted')
  })

  // The fetch of Node 20 and 22 loses signals when garbage is collected.
  await t.test('what listens can be ended, also after garbage was collected', async (t) => {
    const { issuer, current, verifier } = await build(t)
    await current()
    issuer.say('revoked', [{ kind: 'session', ref: newId(), exp: inAnHour() }])
    t.ok(await isInTime(() => verifier.revocations() === 1))
    setFlagsFromString('--expose-gc')
    const collectGarbage = runInNewContext('gc') as () => void
    for (let times = 0; times < 2; times++) {
      collectGarbage()
      await sleep(50)
    }

    let isClosed = false
    void verifier.close().then(() => {
      isClosed = true
    })
    t.ok(await isInTime(() => isClosed))
    t.ok(await isInTime(() => issuer.listeners() === 0), 'and Postern is told')
  })

  await t.test('the store agrees with a plain map, whatever comes, expires and comes again', async (t) => {
    let now = 1000
    const store = createRevocationStore({ nowSeconds: () => now, limit: 1_000_000 })
    t.teardown(store.close)
    const model = new Map<string, Revocation & { ver: number }>()
    const ids = Array.from({ length: 5000 }, () => newId())
    const kinds = ['session', 'token', 'user', 'client'] as const
    const pick = <T>(values: readonly T[]): T => values[Math.floor(Math.random() * values.length)] as T
    let wrong = 0

    for (let step = 0; step < 60_000; step++) {
      const entry = {
        kind: pick(kinds),
        ref: pick(ids),
        ver: Math.floor(Math.random() * 5),
        exp: now + 1 + Math.floor(Math.random() * 50),
      }
      store.add(entry)
      const id = `${entry.kind} ${entry.ref}`
      const known = model.get(id)
      const isLive = known !== undefined && known.exp > now
      model.set(
        id,
        isLive
          ? { ...entry, ver: Math.max(known.ver, entry.ver), exp: Math.max(known.exp, entry.exp) }
          : entry,
      )
      if (step % 500 === 0) now++
      const [kind, ref] = [pick(kinds), pick(ids)]
      const asked = model.get(`${kind} ${ref}`)
      const ends = store.ends(revocationKey(kind, ref), 2)
      // What has expired may be known a little longer: no token that it names is alive.
      if (
        asked && asked.exp > now
          ? ends !== asked.ver > 2 && !(ends && asked.ver <= 2)
          : asked === undefined && ends
      )
        wrong++
    }

    t.equal(wrong, 0)
    now += 1000
    t.ok((await isInTime(() => store.size() < model.size / 10)) || store.size() < model.size, 'it forgets')
  })

  await t.test('more than may be held is not knowledge', async (t) => {
    const { issuer, codeOf, current, connected } = await build(t, {
      maxRevocations: 10,
      staleAfterSeconds: 0.5,
    })
    await current()
    const entries = Array.from({ length: 20 }, () => ({ kind: 'session', ref: newId(), exp: inAnHour() }))
    issuer.say('revoked', entries)
    await connected()

    t.ok(await isInTime(async () => (await codeOf(issuer.token())) === 'revocations_unknown'))
  })
})

t.test('three verifiers at two processes', async (t) => {
  const prepared = await buildTestApp(t)
  const { key } = await anApiKey(prepared, { access: 'read' })
  const { client_id: clientId, client_secret: clientSecret } = (
    await prepared.root.post('/api/v1/clients', { name: 'A service, & its feed' })
  ).json<{ client_id: string; client_secret: string }>()
  const wire = await wireTo(t, prepared.databaseUrl)
  const ports = [await freePort(), await freePort()]
  // One issuer for both, as behind a load balancer.
  const PUBLIC_URL = `http://127.0.0.1:${ports[0]}`
  const env = (place: number, databaseUrl: string) => ({
    DATABASE_URL: databaseUrl,
    SECRET_KEY,
    PUBLIC_URL,
    PORT: String(ports[place]),
  })
  const [first, second] = await Promise.all([
    startService(t, env(0, prepared.databaseUrl)),
    startService(t, env(1, wire.url)),
  ])
  const verifiers = [first, first, second].map(({ url }, place) => {
    const clientCredentials = { clientId, clientSecret, tokenUrl: `${url}/oauth2/token` }
    const credentials = place === 1 ? { clientCredentials } : { apiKey: key }
    const verifier = createVerifier({
      issuer: PUBLIC_URL,
      audience: PUBLIC_URL,
      jwksUri: `${url}/.well-known/jwks.json`,
      feed: { url: `${url}/api/v1/revocations`, ...credentials },
      staleAfterSeconds: 15,
    })
    t.teardown(async () => await verifier.close())
    return verifier
  })
  await Promise.all(verifiers.map(async (verifier) => await verifier.ready()))
  const codes = async (token: string): Promise<string[]> =>
    await Promise.all(
      verifiers.map(async (verifier) =>
        verifier.verify(token).then(
          () => 'accepted',
          (error: PosternError) => error.code,
        ),
      ),
    )
  const signIn = async (email: string): Promise<string> => {
    const response = await fetch(`${first.url}/api/v1/auth/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ email, password: 'correct horse battery staple' }),
    })
    return ((await response.json()) as { access_token: string }).access_token
  }
  const everywhere = (code: string) => [code, code, code]

  await t.test('a deactivated user is refused by all of them', async (t) => {
    const person = await prepared.person('GUEST')
    const token = await signIn(person.email)
    t.same(await codes(token), everywhere('accepted'))

    await prepared.root.post(`/api/v1/users/${person.id}/deactivate`)

    t.ok(await isInTime(async () => (await codes(token)).every((code) => code === 'token_revoked')))
  })

  await t.test('so is one whose process lost the database meanwhile, as soon as that is back', async (t) => {
    const person = await prepared.person('GUEST')
    const token = await signIn(person.email)
    t.same(await codes(token), everywhere('accepted'))
    wire.cut()

    await prepared.root.post(`/api/v1/users/${person.id}/deactivate`)
    t.ok(
      await isInTime(async () => (await codes(token)).slice(0, 2).every((code) => code === 'token_revoked')),
    )
    t.equal((await codes(token))[2], 'accepted', 'it cannot know yet')

    wire.mend()
    t.ok(await isInTime(async () => (await codes(token))[2] === 'token_revoked'))
  })

  await t.test('a process that was killed is missed for no longer than it is away', async (t) => {
    const person = await prepared.person('GUEST')
    const token = await signIn(person.email)
    t.same(await codes(token), everywhere('accepted'))
    second.child.kill('SIGKILL')
    await second.ended

    await prepared.root.post(`/api/v1/users/${person.id}/deactivate`)
    const again = await startService(t, env(1, wire.url))

    t.ok(await isInTime(async () => (await codes(token)).every((code) => code === 'token_revoked')))
    again.child.kill('SIGTERM')
    t.match(await again.ended, { code: 0 }, 'an open stream does not hold the end of a process')
  })

  await t.test('so is what a key has signed that was withdrawn by force', async (t) => {
    const { email } = await prepared.person('GUEST')
    const token = await signIn(email)
    const ofFirst = async (given: string) => (await codes(given)).slice(0, 2)
    t.same(await ofFirst(token), ['accepted', 'accepted'])

    await prepared.services.keys.rotate(SYSTEM, { force: true })

    t.ok(await isInTime(async () => (await ofFirst(token)).every((code) => code === 'token_revoked')))
  })
})
