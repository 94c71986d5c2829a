/**
 * What a user of postern-client does, with the Node that runs it: `node program.js SERVER DATA_DIR` starts that Postern,
 * signs in, and verifies tokens as its services do, until they are revoked and until the feed is cut.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'
import Fastify from 'fastify'
import { createVerifier } from 'postern-client'
import { createGuards } from 'postern-client/express'
import { postern } from 'postern-client/fastify'

const LIMIT_MS = 60_000
const [server, dataDir] = process.argv.slice(2)
const probe = createServer().listen(0, '127.0.0.1')
await once(probe, 'listening')
const { port } = probe.address()
probe.close()
const issuer = `http://127.0.0.1:${port}`
const person = { email: 'admin@example.com', password: 'correct horse battery staple' }

async function eventually(what, isSo) {
  for (const end = Date.now() + LIMIT_MS; !(await isSo()); await sleep(100))
    assert.ok(Date.now() < end, `${what}: not in time`)
}

const post = async (path, body) => {
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(`${issuer}/api/v1${path}`, {
    method: 'POST',
    headers,
    body: JSON.stringify(body),
  })
  assert.ok(response.ok, `${path}: ${response.status}`)
  return response.status === 204 ? undefined : await response.json()
}

const { PUBLIC_URL: _url, DATABASE_URL: _database, ...inherited } = process.env
const child = spawn(process.execPath, [server], {
  env: {
    ...inherited,
    HOST: '127.0.0.1',
    PORT: String(port),
    DATA_DIR: dataDir,
    LOG_LEVEL: 'error',
    FIRST_SUPER_ADMIN_EMAIL: person.email,
    FIRST_SUPER_ADMIN_PASSWORD: person.password,
  },
  stdio: ['ignore', 'ignore', 'inherit'],
})
const ended = once(child, 'exit')

try {
  await eventually('Postern answers', async () => {
    assert.equal(child.exitCode, null, 'Postern has ended')
    return await fetch(`${issuer}/.well-known/jwks.json`).then(
      ({ ok }) => ok,
      () => false,
    )
  })
  const reader = await post('/auth/login', person)
  const session = await post('/auth/login', person)
  const options = {
    issuer,
    audience: issuer,
    feed: { token: reader.access_token },
    // The feed speaks every ten seconds.
    staleAfterSeconds: 12,
  }
  const verifier = createVerifier(options)
  await verifier.ready()
  const codeOf = async (token) =>
    await verifier.verify(token).then(
      () => 'accepted',
      ({ code }) => code,
    )
  const { access_token: token } = session
  const [head, body, signature] = token.split('.')

  assert.equal(await codeOf(token), 'accepted')
  assert.equal(await codeOf(`${head}.${body}.${signature.slice(4)}AAAA`), 'signature_invalid')
  assert.equal(await codeOf('x'), 'token_malformed')
  const elsewhere = createVerifier({ issuer, audience: 'https://posts.example.com' })
  await assert.rejects(elsewhere.verify(token), { code: 'claim_invalid' })
  await elsewhere.close()

  const app = Fastify()
  await app.register(postern, options)
  app.get('/', { onRequest: app.requireScope('postern.users:read') }, ({ auth }) => auth.sub)
  const guards = createGuards(verifier)
  const web = express().get('/', guards.requireScope('postern.users:read'), (request, response) => {
    response.send(request.auth.sub)
  })
  // Express prints errors everywhere else.
  web.set('env', 'test')
  const listening = web.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  const faces = [
    async (headers) => (await app.inject({ url: '/', headers })).statusCode,
    async (headers) => (await fetch(`http://127.0.0.1:${listening.address().port}/`, { headers })).status,
  ]
  await app.postern.ready()
  for (const ask of faces) {
    assert.equal(await ask({ authorization: `Bearer ${token}` }), 200)
    assert.equal(await ask({ authorization: `Bearer ${token}x` }), 401)
    assert.equal(await ask({}), 401)
  }

  await post('/auth/logout', { refresh_token: session.refresh_token })
  await eventually('the end of the session', async () => (await codeOf(token)) === 'token_revoked')
  assert.equal(await codeOf(reader.access_token), 'accepted')

  child.kill()
  await ended
  await eventually('the cut', async () => (await codeOf(reader.access_token)) === 'revocations_unknown')
  listening.close()
  await app.close()
  await verifier.close()
} finally {
  child.kill()
  await ended
}
process.stdout.write(`postern-client and Postern work with Node ${process.version}\n`)
