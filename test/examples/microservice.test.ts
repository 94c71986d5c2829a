import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance } from 'fastify'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { createTokenIssuer } from '../../src/auth/tokens.ts'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { isInTime } from '../policy/in-time.ts'

type Options = {
  issuer: string
  audience: string
  jwksUri: string
  feed?: { url: string; apiKey: string }
}

const FOLDER = new URL('../../examples/microservice/', import.meta.url)
// The example is JavaScript, so its types are said here.
const { buildApp: buildMicroservice } = (await import(new URL('app.js', FOLDER).href)) as {
  buildApp: (options: Options) => Promise<FastifyInstance>
}

/** PUBLIC_URL of the Postern in tests. It listens elsewhere, so the example is told where the keys are. */
const ISSUER = 'http://postern.test'

/** Postern that listens, the example beside it, and a role for each scope. */
async function start(t: Test) {
  const postern = await buildTestApp(t)
  const address = await postern.app.listen({ host: '127.0.0.1', port: 0 })
  const microservice = await buildMicroservice({
    issuer: ISSUER,
    audience: ISSUER,
    jwksUri: `${address}/.well-known/jwks.json`,
    feed: { url: `${address}/api/v1/revocations`, apiKey: (await anApiKey(postern, { access: 'read' })).key },
  })
  t.teardown(() => microservice.close())
  const reader = await personWith(postern, 'reader', ['post:read'])
  const writer = await personWith(postern, 'writer', ['post:read', 'post:write'])

  const send = async (method: 'GET' | 'POST', authorization?: string) =>
    await microservice.inject({
      method,
      url: '/posts',
      headers: { ...(authorization && { authorization }) },
      ...(method === 'POST' && { payload: { title: 'Hello' } }),
    })
  return { postern, microservice, reader, writer, send }
}

async function personWith(postern: TestApp, role: string, scopes: string[], accountId = postern.home) {
  await postern.root.post('/api/v1/roles', { name: role, scopes })
  return await postern.person(role, { accountId })
}

t.test('a scope opens the route that asks for it', async (t) => {
  const { reader, writer, send } = await start(t)

  const created = await send('POST', `Bearer ${writer.token}`)
  const list = await send('GET', `bearer ${reader.token}`)

  t.equal(created.statusCode, 201)
  t.equal(list.statusCode, 200)
  matchEach(t, list.json(), [{ title: 'Hello', author: writer.id, account_id: writer.accountId }])
})

t.test('a token without the scope is refused with its name', async (t) => {
  const { reader, send } = await start(t)

  const refused = await send('POST', `Bearer ${reader.token}`)

  t.equal(refused.statusCode, 403)
  t.equal(
    refused.headers['www-authenticate'],
    'Bearer realm="api", error="insufficient_scope", scope="post:write"',
  )
  t.match(refused.json(), { status: 403, detail: 'The token lacks the scope post:write' })
})

t.test('posts stay in the account of the token that wrote them', async (t) => {
  const { postern, writer, send } = await start(t)
  const stranger = await postern.person('reader', { accountId: await postern.account('Elsewhere') })

  await send('POST', `Bearer ${writer.token}`)
  const list = await send('GET', `Bearer ${stranger.token}`)

  t.strictSame(list.json(), [])
})

t.test('an account in the path is compared with the token’s', async (t) => {
  const { postern, microservice, writer, send } = await start(t)
  const elsewhere = await postern.account('Elsewhere')
  const list = async (account: string | null) =>
    await microservice.inject({
      url: `/accounts/${account}/posts`,
      headers: { authorization: `Bearer ${writer.token}` },
    })
  await send('POST', `Bearer ${writer.token}`)

  t.equal((await list(writer.accountId)).statusCode, 200)
  t.equal((await list(writer.accountId)).json<unknown[]>().length, 1)
  t.equal((await list(elsewhere)).statusCode, 403)
})

t.test('who is deactivated is refused with the token that was good a moment ago', async (t) => {
  const { postern, reader, send } = await start(t)
  t.equal((await send('GET', `Bearer ${reader.token}`)).statusCode, 200)

  await postern.root.post(`/api/v1/users/${reader.id}/deactivate`)

  t.ok(await isInTime(async () => (await send('GET', `Bearer ${reader.token}`)).statusCode === 401))
})

t.test('a request without a token is asked for one, and no error is named', async (t) => {
  const { send } = await start(t)

  for (const authorization of [undefined, 'Basic YTpi', 'Bearer', 'Bearer two parts']) {
    const refused = await send('GET', authorization)
    t.equal(refused.statusCode, 401, String(authorization))
    t.equal(refused.headers['www-authenticate'], 'Bearer realm="api"', String(authorization))
  }
})

t.test('forged and foreign tokens are invalid_token', async (t) => {
  const { reader, send } = await start(t)
  const [header = '', payload = '', signature = ''] = reader.token.split('.')
  const { kid } = JSON.parse(Buffer.from(header, 'base64url').toString()) as { kid: string }
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>
  const { privateKey, publicKey } = await generateKeyPair('ES256')
  const own = await exportJWK(publicKey)
  const sign = async (changes: Record<string, unknown>, head: Record<string, unknown> = {}) =>
    await new SignJWT({ ...claims, ...changes })
      .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid, ...head })
      .sign(privateKey)
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const widened = part({ ...claims, scope: 'post:read post:write' })

  const forged = {
    'no signature': `${part({ alg: 'none', typ: 'at+jwt' })}.${payload}.`,
    'another signature': await sign({}),
    'a key of the attacker in the header': await sign({}, { jwk: own }),
    'an unknown kid': await sign({}, { kid: 'unknown' }),
    'a payload that was changed': `${header}.${widened}.${signature}`,
    'a public key used as an HMAC secret': await new SignJWT(claims)
      .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt', kid })
      .sign(Buffer.from(JSON.stringify(own))),
    'no JWT at all': 'abc',
  }

  for (const [name, token] of Object.entries(forged)) {
    const refused = await send('GET', `Bearer ${token}`)
    t.equal(refused.statusCode, 401, name)
    t.equal(refused.headers['www-authenticate'], 'Bearer realm="api", error="invalid_token"', name)
  }
})

t.test('a token of another issuer, audience or time is invalid_token', async (t) => {
  const { postern, send } = await start(t)
  const anHourAgo = { now: () => new Date(Date.now() - 3_600_000) }
  const issue = async (changes: { issuer?: string; audience?: string; clock?: typeof anHourAgo }) => {
    const { keys, clock } = postern.services
    const expected = { keys, clock, issuer: ISSUER, audience: ISSUER, ttlSeconds: 900 }
    return await createTokenIssuer({ ...expected, ...changes }).issueAccessToken({
      sub: postern.rootId,
      client_id: 'first-party',
      scope: 'post:read',
      role: 'reader',
      roles: ['reader'],
      account_id: postern.home,
      sid: postern.rootId,
      ver: 1,
    })
  }

  const good = await send('GET', `Bearer ${await issue({})}`)
  const refused = {
    'another issuer': await issue({ issuer: 'http://other.test' }),
    'another audience': await issue({ audience: 'http://other.test' }),
    'an expired token': await issue({ clock: anHourAgo }),
  }

  t.equal(good.statusCode, 200)
  for (const [name, token] of Object.entries(refused)) {
    t.equal((await send('GET', `Bearer ${token}`)).statusCode, 401, name)
  }
})

t.test('keys that cannot be read are 503, not a refusal of the token', async (t) => {
  const postern = await buildTestApp(t)
  const microservice = await buildMicroservice({
    issuer: ISSUER,
    audience: ISSUER,
    jwksUri: 'http://127.0.0.1:1/jwks.json',
  })
  t.teardown(() => microservice.close())

  const response = await microservice.inject({
    url: '/posts',
    headers: { authorization: `Bearer ${postern.rootToken}` },
  })

  t.equal(response.statusCode, 503)
  t.equal(response.headers['retry-after'], '1')
})

t.test('it runs with nothing but plain node', async (t) => {
  const { postern, writer } = await start(t)
  const { port } = postern.app.server.address() as { port: number }
  const child = spawn(process.execPath, [fileURLToPath(new URL('server.js', FOLDER))], {
    // The options of the test runner are not for it.
    env: {
      PATH: process.env['PATH'],
      ISSUER,
      POSTERN_URL: `http://127.0.0.1:${port}`,
      POSTERN_API_KEY: (await anApiKey(postern, { access: 'read' })).key,
      PORT: '0',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill())

  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const url = /http:\S+posts/.exec(String(line))?.[0] ?? ''
  const list = await fetch(url, { headers: { authorization: `Bearer ${writer.token}` } })

  t.equal(list.status, 200)
})
