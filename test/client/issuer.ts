import { createHash, generateKeyPairSync, type KeyObject, sign as signBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { newId } from '../../src/ids.ts'
import { thumbprint } from '../../src/keys/jwk.ts'

export type Json = Record<string, unknown>
type Algorithm = 'ES256' | 'RS256' | 'EdDSA'
export type Pair = { algorithm: Algorithm; kid: string; jwk: Json; privateKey: KeyObject }

export const AUDIENCE = 'https://posts.test'

export const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** A key pair of the kind that the algorithm signs with. */
export function newPair(algorithm: Algorithm = 'ES256'): Pair {
  const { privateKey, publicKey } =
    algorithm === 'ES256'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : algorithm === 'RS256'
        ? generateKeyPairSync('rsa', { modulusLength: 2048 })
        : generateKeyPairSync('ed25519')
  const jwk = publicKey.export({ format: 'jwk' }) as Json
  const kid = thumbprint(jwk)
  return { algorithm, kid, privateKey, jwk: { ...jwk, kid, alg: algorithm, use: 'sig' } }
}

export function signature(pair: Pair, input: string): string {
  const digest = pair.algorithm === 'EdDSA' ? null : 'sha256'
  return signBytes(digest, Buffer.from(input), { key: pair.privateKey, dsaEncoding: 'ieee-p1363' }).toString(
    'base64url',
  )
}

let proofs = 0

/** A proof that whoever sends `token` in a GET of `htu` holds the key (RFC 9449 §4.2). */
export function newProof(
  holder: Pair,
  token: string,
  htu: string,
  changes: Json = {},
  header: Json = {},
): string {
  const { kid: _kid, alg: _alg, use: _use, ...jwk } = holder.jwk
  const claims = {
    htm: 'GET',
    htu,
    iat: Math.floor(Date.now() / 1000),
    jti: `proof-${++proofs}`,
    ath: createHash('sha256').update(token).digest('base64url'),
    ...changes,
  }
  const input = `${encode({ typ: 'dpop+jwt', alg: holder.algorithm, jwk, ...header })}.${encode(claims)}`
  return `${input}.${signature(holder, input)}`
}

/** Somebody who issues tokens, publishes keys and tells of revocations, in all the ways that a test may ask for. */
export async function openIssuer(t: Test) {
  const keys: { published: Pair[] } = { published: [newPair()] }
  const jwks = { reads: 0, isDown: false, maxAge: 300, delayMs: 0 }
  const feed = { connections: [] as { lastId: string | undefined }[], isDown: false }
  const streams = new Set<ServerResponse>()

  const server = createServer(async (request, response) => {
    if (request.url === '/.well-known/jwks.json') {
      jwks.reads++
      if (jwks.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, jwks.delayMs))
      response.setHeader('cache-control', `public, max-age=${jwks.maxAge}`)
      response.statusCode = jwks.isDown ? 500 : 200
      response.end(JSON.stringify({ keys: keys.published.map(({ jwk }) => jwk) }))
      return
    }
    const lastId = request.headers['last-event-id']
    feed.connections.push({ lastId: typeof lastId === 'string' ? lastId : undefined })
    if (feed.isDown) {
      response.statusCode = 503
      response.end()
      return
    }
    response.setHeader('content-type', 'text/event-stream')
    response.flushHeaders()
    streams.add(response)
    response.on('close', () => streams.delete(response))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })

  const claims = (changes: Json = {}): Json => {
    const iat = Math.floor(Date.now() / 1000)
    return {
      iss: issuer,
      aud: AUDIENCE,
      sub: newId(),
      client_id: 'first-party',
      iat,
      exp: iat + 900,
      jti: newId(),
      scope: 'post:read post:write',
      role: 'writer',
      roles: ['writer'],
      account_id: newId(),
      sid: newId(),
      ver: 1,
      ...changes,
    }
  }

  /** A token with a true signature; `undefined` removes a claim or a header. */
  function token(changes: Json = {}, header: Json = {}, pair: Pair = keys.published[0] ?? newPair()): string {
    const input = `${encode({ alg: pair.algorithm, typ: 'at+jwt', kid: pair.kid, ...header })}.${encode(claims(changes))}`
    return `${input}.${signature(pair, input)}`
  }

  let sent = 0
  /** Tells every verifier that listens. */
  function say(event: 'revoked' | 'current', data: unknown): void {
    for (const stream of streams)
      stream.write(`id: 0123456789ab-${++sent}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  }

  return {
    issuer,
    keys,
    jwks,
    feed,
    claims,
    token,
    say,
    sayRaw: (text: string) => {
      for (const stream of streams) stream.write(text)
    },
    listeners: () => streams.size,
    /** Breaks the connections to the feed; new ones are refused until `mend`. */
    cut(): void {
      feed.isDown = true
      for (const stream of streams) stream.destroy()
    },
    mend(): void {
      feed.isDown = false
    },
  }
}
