import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { createGuards, type GuardedRequest, type Middleware } from '../../src/client/express.ts'
import { postern } from '../../src/client/fastify.ts'
import { type Claims, createPosternClient, createVerifier, PosternError } from '../../src/client/index.ts'
import { newId } from '../../src/ids.ts'
import { AUDIENCE, newPair, newProof, openIssuer } from './issuer.ts'

const ACCOUNT = newId()
const TWO_FACTORS = 'urn:postern:acr:2'
const STRONG = { acr: TWO_FACTORS, maxAgeSeconds: 300 }
const NEEDED = 'error="insufficient_user_authentication", acr_values="urn:postern:acr:2", max_age="300"'
const LACKING = 'error="insufficient_scope", scope="post:read"'
const BEARER = 'Bearer realm="api"'
const DPOP = 'DPoP realm="api", algs="ES256 RS256 EdDSA"'

/** As another middleware may have put them there. */
const PRESET = { client_id: 'first-party', scope: 'post:read', account_id: ACCOUNT } as Claims

/** What both guards must do, for an application that answers who asked behind those that each path names. */
async function guardContract(t: Test, ask: Ask, token: MakeToken) {
  const good = token({ account_id: ACCOUNT })
  const now = Math.floor(Date.now() / 1000)
  const everywhere = token({ scope: 'post:read:any', account_id: null })
  const cases: [string, string, string | undefined, number, string | undefined][] = [
    ['no token', '/plain', undefined, 401, BEARER],
    ['another scheme', '/plain', 'Basic YTpi', 401, BEARER],
    ['two tokens', '/plain', `Bearer ${good} ${good}`, 401, BEARER],
    ['nonsense', '/plain', 'Bearer nonsense', 401, `${BEARER}, error="invalid_token"`],
    ['a bare token as DPoP', '/plain', `DPoP ${good}`, 401, `${DPOP}, error="invalid_dpop_proof"`],
    [
      'a bound token as Bearer',
      '/plain',
      `Bearer ${token({ cnf: { jkt: 'x' } })}`,
      401,
      `${DPOP}, error="invalid_dpop_proof"`,
    ],
    [
      'a bound token without proof',
      '/plain',
      `DPoP ${token({ cnf: { jkt: 'x' } })}`,
      401,
      `${DPOP}, error="invalid_dpop_proof"`,
    ],
    ['a good token', '/plain', `bEaReR ${good}`, 200, undefined],
    ['a good token once more', '/plain', `Bearer ${good}`, 200, undefined],
    ['no scope', '/plain', `Bearer ${token({ scope: 'post:write' })}`, 403, `${BEARER}, ${LACKING}`],
    ['the own account', `/accounts/${ACCOUNT}`, `Bearer ${good}`, 200, undefined],
    ['another account', `/accounts/${newId()}`, `Bearer ${good}`, 403, `${BEARER}, ${LACKING}`],
    ['every account', `/accounts/${newId()}`, `Bearer ${everywhere}`, 200, undefined],
    ['an account that cannot be found out', '/late', `Bearer ${good}`, 500, undefined],
    ['one that fails with nothing to say', '/silent', `Bearer ${good}`, 500, undefined],
    ['claims that somebody else has put there', '/preset', undefined, 401, BEARER],
    [
      'two factors just now',
      '/strong',
      `Bearer ${token({ auth_time: now - 30, acr: TWO_FACTORS })}`,
      200,
      undefined,
    ],
    [
      'two factors an hour ago',
      '/strong',
      `Bearer ${token({ auth_time: now - 3600, acr: TWO_FACTORS })}`,
      401,
      `${BEARER}, ${NEEDED}`,
    ],
    [
      'one factor just now',
      '/strong',
      `Bearer ${token({ auth_time: now, acr: 'urn:postern:acr:1' })}`,
      401,
      `${BEARER}, ${NEEDED}`,
    ],
    ['a token that says nothing of it', '/strong', `Bearer ${good}`, 401, `${BEARER}, ${NEEDED}`],
    [
      'a claim of the wrong type',
      '/strong',
      `Bearer ${token({ auth_time: 'now' })}`,
      401,
      `${BEARER}, error="invalid_token"`,
    ],
  ]
  for (const [name, url, authorization, status, challenge] of cases) {
    const answer = await ask(url, authorization)
    t.equal(answer.status, status, name)
    t.equal(answer.challenge, challenge, `${name}: challenge`)
    if (status === 200) t.ok(answer.body.includes('first-party'), `${name}: the claims`)
  }

  const holder = newPair()
  const bound = (changes: Record<string, unknown>) => {
    const text = token({ cnf: { jkt: holder.kid }, account_id: ACCOUNT, ...changes })
    return { text, proof: (path: string) => newProof(holder, text, `${AUDIENCE}${path}`) }
  }
  const strong = bound({ auth_time: now, acr: TWO_FACTORS })
  const proof = strong.proof('/all')
  t.equal(
    (await ask('/all', `DPoP ${strong.text}`, proof)).status,
    200,
    'one proof for all guards of a request',
  )
  t.equal((await ask('/all', `DPoP ${strong.text}`, proof)).status, 401, 'and for no other request')
  t.equal((await ask('/all', `DPoP ${strong.text}`, strong.proof('/plain'))).status, 401)
  for (const [path, changes, status, challenge] of [
    ['/plain', { scope: 'post:write' }, 403, LACKING],
    ['/all', {}, 401, NEEDED],
    ['/plain', { exp: now - 60 }, 401, 'error="invalid_token"'],
  ] as const) {
    const { text, proof } = bound(changes)
    const answer = await ask(path, `DPoP ${text}`, proof(path))
    t.same(
      [answer.status, answer.challenge],
      [status, `${DPOP}, ${challenge}`],
      'refused in the scheme it came in',
    )
  }
}

type Answer = { status: number; challenge: string | undefined; body: string }
type Ask = (url: string, authorization?: string, dpop?: string) => Promise<Answer>
type MakeToken = (changes: Record<string, unknown>) => string

t.test('the guard of Fastify', async (t) => {
  const issuer = await openIssuer(t)
  const app = Fastify()
  t.teardown(async () => await app.close())
  await app.register(postern, { issuer: issuer.issuer, audience: AUDIENCE, publicUrl: AUDIENCE })
  const scope = (account?: (url: string) => string) =>
    app.requireScope('post:read', account && { account: ({ url }) => account(url) })
  app.get('/plain', { onRequest: scope() }, ({ auth }) => auth)
  const preset = async (request: FastifyRequest) => {
    request.auth = PRESET
  }
  app.get('/strong', { onRequest: app.requireAuthentication(STRONG) }, ({ auth }) => auth)
  app.get(
    '/all',
    { onRequest: [app.requireToken, scope()], preHandler: app.requireAuthentication(STRONG) },
    ({ auth }) => auth,
  )
  app.get(
    '/preset',
    {
      onRequest: [preset, app.requireToken, scope()],
    },
    ({ auth }) => auth,
  )
  app.get(
    '/silent',
    { onRequest: app.requireScope('post:read', { account: async () => await Promise.reject() }) },
    ({ auth }) => auth,
  )
  app.get('/accounts/:id', { onRequest: scope((url) => url.split('/')[2] ?? '') }, ({ auth }) => auth)
  app.get(
    '/late',
    {
      onRequest: scope(() => {
        throw new Error('no such thing')
      }),
    },
    ({ auth }) => auth,
  )

  await guardContract(
    t,
    async (url, authorization, dpop) => {
      const response = await app.inject({
        url,
        headers: { ...(authorization && { authorization }), ...(dpop && { dpop }) },
      })
      const challenge = response.headers['www-authenticate']
      return { status: response.statusCode, challenge: challenge?.toString(), body: response.body }
    },
    issuer.token,
  )
})

t.test('the guard of Express', async (t) => {
  const issuer = await openIssuer(t)
  const verifier = createVerifier({ issuer: issuer.issuer, audience: AUDIENCE })
  t.teardown(async () => await verifier.close())
  const { requireToken, requireScope, requireAuthentication } = createGuards(verifier, {
    publicUrl: AUDIENCE,
  })
  const strong = requireAuthentication(STRONG)
  const plain = requireScope('post:read')
  const middleware: Record<string, Middleware[]> = {
    strong: [strong],
    plain: [plain],
    all: [requireToken, plain, strong],
    preset: [
      (request, _response, next) => {
        request.auth = PRESET
        next()
      },
      requireToken,
      plain,
    ],
    accounts: [requireScope('post:read', { account: async ({ url = '' }) => url.split('/')[2] ?? '' })],
    late: [
      requireScope('post:read', {
        account: () => {
          throw new Error('no such thing')
        },
      }),
    ],
    silent: [requireScope('post:read', { account: async () => await Promise.reject() })],
  }
  // What Express does with middleware, one after the other, and with what they pass on.
  const server = createServer((request: IncomingMessage & GuardedRequest, response: ServerResponse) => {
    const goOn = ([first, ...rest]: Middleware[]): void => {
      if (!first) return void response.end(JSON.stringify(request.auth))
      first(request, response, (error) => {
        if (!error) return goOn(rest)
        const { status = 500, headers = {} } = error as { status?: number; headers?: Record<string, string> }
        response.writeHead(status, headers).end()
      })
    }
    goOn(middleware[request.url?.split('/')[1] ?? ''] ?? [])
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  await guardContract(
    t,
    async (url, authorization, dpop) => {
      const response = await fetch(`${base}${url}`, {
        headers: {
          connection: 'close',
          ...(authorization && { authorization }),
          ...(dpop && { dpop }),
        },
      })
      const challenge = response.headers.get('www-authenticate') ?? undefined
      return { status: response.status, challenge, body: await response.text() }
    },
    issuer.token,
  )
})

t.test('questions go together, are asked once, and are never a yes without an answer', async (t) => {
  const asked: { user: string }[][] = []
  let answer = (questions: { user: string }[]): unknown => ({
    allow: questions.map(({ user }) => ({ allow: user === 'ada', result: true })),
  })
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const questions = JSON.parse(Buffer.concat(chunks).toString()) as { user: string }[]
    asked.push(questions)
    response.setHeader('connection', 'close')
    response.end(JSON.stringify(answer(questions)))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const client = createPosternClient({ url, apiKey: 'key' })
  const question = (user: string) => ({ user, action: 'read', resource: 'post' })

  t.same(await client.checkMany(['ada', 'bob', 'ada'].map(question)), [true, false, true])
  t.equal(await client.check(question('ada')), true)
  t.same(
    asked.map((batch) => batch.map(({ user }) => user)),
    [['ada', 'bob']],
    'one request, and then the cache',
  )

  const forgetful = createPosternClient({ url, apiKey: 'key', cacheMs: 0 })
  await forgetful.check(question('ada'))
  await forgetful.check(question('ada'))
  t.equal(asked.length, 3, 'without a cache each is asked')
  asked.length = 0
  await forgetful.checkMany(Array.from({ length: 2500 }, (_, n) => question(`user-${n}`)))
  t.same(asked.map((batch) => batch.length).sort(), [1000, 1000, 500], 'no request is too large')

  for (const nonsense of [{}, { allow: [] }, { allow: [true, true] }, null, []]) {
    answer = () => nonsense
    await t.rejects(forgetful.check(question('ada')), { code: 'decision_unavailable', statusCode: 503 })
  }
  answer = () => ({ allow: [{ allow: 'yes' }] })
  t.equal(await forgetful.check(question('ada')), false)
  const away = { url: 'http://127.0.0.1:1', apiKey: 'key' }
  await t.rejects(createPosternClient(away).check(question('ada')), PosternError)
  t.equal(await createPosternClient({ ...away, onError: 'deny' }).check(question('ada')), false)
})
