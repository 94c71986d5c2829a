import { createHmac, generateKeyPairSync } from 'node:crypto'
import fc from 'fast-check'
import { createLocalJWKSet, jwtVerify } from 'jose'
import t, { type Test } from 'tap'
import { assertAuthentication } from '../../src/client/authorization.ts'
import { createProofChecker } from '../../src/client/dpop.ts'
import {
  type Claims,
  createVerifier,
  hasScope,
  PosternError,
  type ProofOfPossession,
  type VerifierOptions,
} from '../../src/client/index.ts'
import { createSeenTokens } from '../../src/client/seen-tokens.ts'
import { isInTime } from '../policy/in-time.ts'
import { AUDIENCE, encode, type Json, newPair, newProof, openIssuer, type Pair, signature } from './issuer.ts'

async function build(t: Test, options: Partial<VerifierOptions> = {}) {
  const issuer = await openIssuer(t)
  const verifier = createVerifier({ issuer: issuer.issuer, audience: AUDIENCE, ...options })
  t.teardown(async () => await verifier.close())
  await verifier.ready().catch(() => {})
  const codeOf = async (token: string, possession?: ProofOfPossession): Promise<string> =>
    await verifier.verify(token, possession).then(
      () => 'accepted',
      (error: unknown) => (error instanceof PosternError ? error.code : `not ours: ${String(error)}`),
    )
  return { issuer, verifier, codeOf }
}

t.test('a good token gives its claims, each algorithm by its own key', async (t) => {
  const { issuer, verifier } = await build(t)
  issuer.keys.published = [newPair('ES256'), newPair('RS256'), newPair('EdDSA')]

  for (const pair of issuer.keys.published) {
    const other = createVerifier({ issuer: issuer.issuer, audience: ['https://other.test', AUDIENCE] })
    const token = issuer.token({ aud: ['https://x.test', AUDIENCE] }, { typ: 'application/at+jwt' }, pair)
    const claims = await other.verify(token)
    t.equal(claims.scope, 'post:read post:write', pair.algorithm)
    t.equal(await other.verify(token), claims, 'the same once more')
    t.throws(() => Object.assign(claims.roles ?? [], ['admin']), 'that nobody can change')
    await other.close()
  }
  await t.rejects(createVerifierAsync({ issuer: '', audience: AUDIENCE }), TypeError)
  await t.rejects(createVerifierAsync({ issuer: issuer.issuer, audience: [] }), TypeError)
  await t.rejects(
    createVerifierAsync({ issuer: issuer.issuer, audience: AUDIENCE, algorithms: [] }),
    TypeError,
  )
  t.equal(verifier.knowledgeAgeSeconds(), Number.POSITIVE_INFINITY)
})

const createVerifierAsync = async (options: VerifierOptions) => createVerifier(options)

t.test('forged, foreign and strange tokens are refused', async (t) => {
  const { issuer, codeOf } = await build(t)
  const pair = issuer.keys.published[0] ?? newPair()
  const good = issuer.token()
  const [header = '', payload = '', sign = ''] = good.split('.')
  const attacker = newPair()
  const spki = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
    type: 'spki',
    format: 'pem',
  })
  const hmac = (secret: string | Buffer): string => {
    const input = `${encode({ alg: 'HS256', typ: 'at+jwt', kid: pair.kid })}.${payload}`
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
  }
  const raw = (head: string, body: string): string => {
    const input = `${Buffer.from(head).toString('base64url')}.${Buffer.from(body, 'latin1').toString('base64url')}`
    return `${input}.${signature(pair, input)}`
  }
  const head = JSON.stringify({ alg: 'ES256', typ: 'at+jwt', kid: pair.kid })
  const body = JSON.stringify(issuer.claims())
  // The last of the 86 characters has four bits of no meaning.
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const twin = `${good.slice(0, -1)}${alphabet[alphabet.indexOf(good.at(-1) ?? 'A') ^ 1]}`
  const now = Math.floor(Date.now() / 1000)

  const refused: Record<string, [code: string, token: string]> = {
    'alg none': ['token_malformed', `${encode({ alg: 'none', typ: 'at+jwt', kid: pair.kid })}.${payload}.`],
    'alg nOnE': [
      'token_unsupported',
      `${encode({ alg: 'nOnE', typ: 'at+jwt', kid: pair.kid })}.${payload}.${sign}`,
    ],
    'HMAC keyed with the public key': ['token_unsupported', hmac(String(spki))],
    'HMAC keyed with the JWK': ['token_unsupported', hmac(JSON.stringify(pair.jwk))],
    'an algorithm that is not the key’s': ['token_unsupported', issuer.token({}, { alg: 'EdDSA' })],
    'an unsupported algorithm': ['token_unsupported', issuer.token({}, { alg: 'ES384' })],
    'a key of the attacker under a known kid': [
      'signature_invalid',
      issuer.token({}, { kid: pair.kid }, attacker),
    ],
    'a key of the attacker under its own kid': ['key_unknown', issuer.token({}, {}, attacker)],
    'the key in the header': ['token_unsupported', issuer.token({}, { jwk: attacker.jwk }, attacker)],
    'a URL of keys in the header': ['token_unsupported', issuer.token({}, { jku: 'https://evil.test/jwks' })],
    'a certificate in the header': ['token_unsupported', issuer.token({}, { x5u: 'https://evil.test/x5u' })],
    'an unknown extension': ['token_unsupported', issuer.token({}, { crit: ['exp'], exp: 1 })],
    'an unencoded payload': ['token_unsupported', issuer.token({}, { b64: false })],
    'no kid': ['token_unsupported', issuer.token({}, { kid: undefined })],
    'a kid that is a path': ['key_unknown', issuer.token({}, { kid: '../../etc/passwd' })],
    'a kid that is a member of every object': ['key_unknown', issuer.token({}, { kid: '__proto__' })],
    'a kid that is a number': ['token_unsupported', issuer.token({}, { kid: 1 })],
    'another kind of JWT': ['token_unsupported', issuer.token({}, { typ: 'JWT' })],
    'an id token': ['token_unsupported', issuer.token({}, { typ: undefined })],
    'a changed payload': [
      'signature_invalid',
      `${header}.${encode(issuer.claims({ scope: 'all' }))}.${sign}`,
    ],
    'a changed header': ['signature_invalid', good.replace(header, encode({ ...JSON.parse(head), x: 1 }))],
    'no signature': ['token_malformed', `${header}.${payload}.`],
    'a signature of zeros': ['signature_invalid', `${header}.${payload}.${'A'.repeat(86)}`],
    'a short signature': ['signature_invalid', `${header}.${payload}.${sign.slice(0, 40)}`],
    'a second spelling of the signature': ['token_malformed', twin],
    'a padded signature': ['token_malformed', `${good}==`],
    'a space': ['token_malformed', `${good} `],
    'a fourth part': ['token_malformed', `${good}.${sign}`],
    'two parts': ['token_malformed', `${header}.${payload}`],
    nothing: ['token_malformed', ''],
    'too much': ['token_malformed', issuer.token({ x: 'x'.repeat(9000) })],
    'a payload that is no object': ['token_malformed', raw(head, '[]')],
    'a payload that is no JSON': ['token_malformed', raw(head, '{')],
    'a payload that is not UTF-8': ['token_malformed', raw(head, body.replace('writer', 'writ\xffer'))],
    'another issuer': ['claim_invalid', issuer.token({ iss: 'https://evil.test' })],
    'a list of issuers': ['claim_invalid', issuer.token({ iss: [issuer.issuer, 'https://evil.test'] })],
    'another audience': ['claim_invalid', issuer.token({ aud: 'https://other.test' })],
    'an audience that begins the same': ['claim_invalid', issuer.token({ aud: `${AUDIENCE}.evil` })],
    'an audience that is no text': ['claim_invalid', issuer.token({ aud: [AUDIENCE, 1] })],
    'an expired token': ['token_expired', issuer.token({ exp: now - 10 })],
    'a token of the future': ['token_not_yet_valid', issuer.token({ iat: now + 60 })],
    'one that is not valid yet': ['token_not_yet_valid', issuer.token({ nbf: now + 60 })],
    'no expiry as a number': ['claim_invalid', issuer.token({ exp: String(now + 900) })],
    'an endless expiry': ['claim_invalid', raw(head, body.replace(/"exp":\d+/, '"exp":1e400'))],
    'a scope that is a list': ['claim_invalid', issuer.token({ scope: ['post:read'] })],
    'a session that is no text': ['claim_invalid', issuer.token({ sid: 1 })],
    'a version that is no number': ['claim_invalid', issuer.token({ ver: '9' })],
    'a binding of an unknown kind': ['claim_invalid', issuer.token({ cnf: { 'x5t#S256': 'x' } })],
    'an actor that is nobody': ['claim_invalid', issuer.token({ act: {} })],
  }
  for (const claim of ['iss', 'sub', 'aud', 'exp', 'iat', 'jti', 'client_id'])
    refused[`no ${claim}`] = ['claim_invalid', issuer.token({ [claim]: undefined })]

  for (const [name, [code, token]] of Object.entries(refused)) {
    t.equal(await codeOf(token), code, name)
    t.equal(await codeOf(token), code, `${name}, once more`)
  }
  t.equal(await codeOf(good), 'accepted')
  t.equal(await codeOf(issuer.token({ exp: now - 3 })), 'accepted', 'clocks may differ a little')
})

t.test('a key that could not verify safely is not used', async (t) => {
  const { issuer, codeOf } = await build(t, { jwksCooldownSeconds: 0 })
  const pair = newPair()
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' })
  const unfit: Json[] = [
    { kty: 'oct', k: encode('secret') },
    { ...weak },
    { ...pair.jwk, use: 'enc' },
    { ...pair.jwk, alg: 'RS256' },
    { ...pair.jwk, crv: 'P-384' },
    { kty: 'EC' },
  ]

  for (const jwk of unfit) {
    issuer.keys.published = [newPair(), { ...pair, jwk: { ...jwk, kid: pair.kid } }]
    t.equal(await codeOf(issuer.token({}, {}, pair)), 'key_unknown', JSON.stringify(jwk).slice(0, 60))
  }
})

t.test('it agrees with jose on tokens that were tampered with at random', async (t) => {
  const { issuer, verifier } = await build(t)
  const pair = issuer.keys.published[0] ?? newPair()
  const jwks = createLocalJWKSet({ keys: [pair.jwk] } as never)
  const now = Math.floor(Date.now() / 1000)
  const change = fc.record(
    {
      iss: fc.constantFrom(issuer.issuer, 'https://evil.test', ''),
      aud: fc.constantFrom<unknown>(AUDIENCE, [AUDIENCE, 'x'], ['x'], [], 'x'),
      exp: fc.constantFrom<unknown>(now + 100, now - 100, 'soon', null),
      nbf: fc.constantFrom<unknown>(now - 100, now + 100, 'soon'),
      iat: fc.constantFrom<unknown>(now - 100, 'now'),
      sub: fc.constantFrom<unknown>('somebody', undefined),
      jti: fc.constantFrom<unknown>('one', undefined),
      extra: fc.jsonValue(),
    },
    { requiredKeys: [] },
  )
  const header = fc.record(
    {
      alg: fc.constantFrom('ES256', 'RS256', 'none', 'HS256'),
      typ: fc.constantFrom('at+jwt', 'JWT', 'application/at+jwt', ''),
      kid: fc.constantFrom(pair.kid, 'other'),
    },
    { requiredKeys: [] },
  )
  const flip = fc.option(fc.record({ at: fc.nat(2000), to: fc.constantFrom('A', 'b', '_', '=', ' ', '.') }), {
    freq: 2,
  })

  await fc.assert(
    fc.asyncProperty(change, header, flip, async (claims, head, flipped) => {
      let token = issuer.token(claims, head, pair)
      if (flipped) {
        const at = flipped.at % token.length
        token = token.slice(0, at) + flipped.to + token.slice(at + 1)
      }
      const theirs = await jwtVerify(token, jwks, {
        issuer: issuer.issuer,
        audience: AUDIENCE,
        typ: 'at+jwt',
        algorithms: ['ES256', 'RS256', 'EdDSA'],
        requiredClaims: ['exp', 'iat', 'sub', 'jti', 'client_id'],
        clockTolerance: 5,
      }).then(
        ({ payload }) => payload,
        () => undefined,
      )
      const ours = await verifier.verify(token).then(
        (found) => found,
        () => undefined,
      )
      // We may be stricter about how a signature is spelled, never laxer.
      if (ours) return theirs !== undefined && theirs.sub === ours.sub
      return (
        theirs === undefined ||
        Buffer.from(token.split('.')[2] ?? '', 'base64url').toString('base64url') !== token.split('.')[2]
      )
    }),
    { numRuns: 400 },
  )
})

t.test('keys', async (t) => {
  await t.test('ten thousand unknown kids have the key set read a few times', async (t) => {
    const { issuer, codeOf } = await build(t)
    const before = issuer.jwks.reads
    const [, payload, sign] = issuer.token().split('.')
    const tokens = Array.from(
      { length: 10_000 },
      (_, n) => `${encode({ alg: 'ES256', typ: 'at+jwt', kid: `kid-${n}` })}.${payload}.${sign}`,
    )

    const codes = await Promise.all(tokens.map((token) => codeOf(token)))

    t.same([...new Set(codes)], ['key_unknown'])
    t.ok(issuer.jwks.reads - before <= 2, `${issuer.jwks.reads - before}`)
    t.equal(await codeOf(issuer.token()), 'accepted')
  })

  await t.test('a new key is found by those who see it first, with one request', async (t) => {
    const { issuer, codeOf } = await build(t, { jwksCooldownSeconds: 0 })
    const next = newPair()
    issuer.keys.published.push(next)
    issuer.jwks.delayMs = 50
    const before = issuer.jwks.reads

    const codes = await Promise.all(Array.from({ length: 20 }, () => codeOf(issuer.token({}, {}, next))))

    t.same([...new Set(codes)], ['accepted'])
    t.equal(issuer.jwks.reads - before, 1)
  })

  await t.test('a key that was taken back verifies nothing, not even what it has verified', async (t) => {
    const { issuer, codeOf } = await build(t, { jwksCooldownSeconds: 0 })
    const [compromised = newPair()] = issuer.keys.published
    const token = issuer.token()
    t.equal(await codeOf(token), 'accepted')

    issuer.keys.published = [newPair()]
    t.equal(await codeOf(issuer.token()), 'accepted', 'the new key')

    t.equal(await codeOf(token), 'key_unknown')
    t.equal(await codeOf(issuer.token({}, {}, compromised)), 'key_unknown')
  })

  await t.test('known keys serve on while the key set is away, and no longer than they may', async (t) => {
    const { issuer, codeOf } = await build(t, { jwksCooldownSeconds: 0, jwksMaxStaleSeconds: 0.5 })
    issuer.jwks.isDown = true

    const seen = issuer.token()

    t.equal(await codeOf(seen), 'accepted')
    t.ok(await isInTime(async () => (await codeOf(issuer.token())) === 'keys_unavailable'))
    t.equal(await codeOf(seen), 'keys_unavailable', 'not even for a token that they have verified')
    issuer.jwks.isDown = false
    t.ok(await isInTime(async () => (await codeOf(issuer.token())) === 'accepted'))
    t.equal(await codeOf(seen), 'accepted')
  })

  await t.test('without keys there is an error of ours, and no refusal', async (t) => {
    const { issuer, codeOf } = await build(t, { jwksUri: 'http://127.0.0.1:1/' })

    t.equal(await codeOf(issuer.token()), 'keys_unavailable')
  })
})

t.test('a token that is bound to a key comes with a proof, and each proof once', async (t) => {
  const { issuer, codeOf } = await build(t)
  const holder = newPair()
  const { kid: jkt } = holder
  const token = issuer.token({ cnf: { jkt } })
  const url = 'https://posts.test/posts?page=2'
  const proof = (changes: Json = {}, header: Json = {}, pair: Pair = holder): string =>
    newProof(pair, token, 'https://posts.test/posts', changes, header)
  const sent = (text: string | undefined, changes: Partial<ProofOfPossession> = {}): ProofOfPossession => ({
    scheme: 'DPoP',
    proof: text,
    method: 'GET',
    url,
    ...changes,
  })
  const now = Math.floor(Date.now() / 1000)
  const used = proof()

  t.equal(await codeOf(token, sent(used)), 'accepted')
  t.equal(await codeOf(token, sent(proof())), 'accepted', 'a second request with a proof of its own')
  const refused: Record<string, ProofOfPossession | undefined> = {
    'no word of how it came': undefined,
    'as a Bearer token': sent(proof(), { scheme: 'Bearer' }),
    'no proof': sent(undefined),
    'the same proof again': sent(used),
    'another method': sent(proof(), { method: 'POST' }),
    'another path': sent(proof(), { url: 'https://posts.test/other' }),
    'another host': sent(proof(), { url: 'https://evil.test/posts' }),
    'a proof for another token': sent(proof({ ath: 'x' })),
    'an old proof': sent(proof({ iat: now - 120 })),
    'a proof of the future': sent(proof({ iat: now + 120 })),
    'no id': sent(proof({ jti: undefined })),
    'a key of somebody else': sent(proof({}, {}, newPair())),
    'a proof that somebody else signed': sent(proof({}, { jwk: holder.jwk }, newPair())),
    'an access token as proof': sent(token),
    'a private key in the proof': sent(proof({}, { jwk: { ...holder.jwk, d: 'x' } })),
    'an extension': sent(proof({}, { crit: ['x'] })),
  }
  for (const [name, possession] of Object.entries(refused))
    t.equal(await codeOf(token, possession), 'proof_invalid', name)
  t.equal(await codeOf(issuer.token(), sent(proof())), 'proof_invalid', 'a token that is not bound')
})

t.test('while as many proofs as are remembered are good, no other is taken', async (t) => {
  const holder = newPair()
  let now = Math.floor(Date.now() / 1000)
  const proofs = createProofChecker(() => now, 3)
  const proof = () => newProof(holder, 'a token', 'https://posts.test/posts', { iat: now })
  const takes = (text: string): boolean => {
    try {
      proofs.check('a token', holder.kid, {
        scheme: 'DPoP',
        proof: text,
        method: 'GET',
        url: 'https://posts.test/posts',
      })
      return true
    } catch {
      return false
    }
  }
  const first = [proof(), proof(), proof()]

  t.same(first.map(takes), [true, true, true])
  t.same([proof(), proof(), proof(), proof()].map(takes), [false, false, false, false])
  t.same(first.map(takes), [false, false, false], 'none of the first is forgotten')
  now += 66
  t.ok(takes(proof()), 'they have become too old, and there is room')
})

t.test('tokens that were seen are remembered', async (t) => {
  const token = (name: number | string): string => `head.${String(name).padStart(40, '-')}`
  const heldOf = (size: number, count: number): number[] => {
    const names = Array.from({ length: count }, (_, n) => n)
    // Looking for one may keep it for longer, so that each is looked for in a store of its own.
    return names.filter((name) => {
      const seen = createSeenTokens<number>(size)
      for (const n of names) seen.add(token(n), n)
      return seen.find(token(name)) === name
    })
  }

  for (const count of [9, 10, 11, 19, 20, 21, 35]) {
    const held = heldOf(10, count)
    t.ok(held.length >= Math.min(count, 10) && held.length <= 20, `${held.length} of ${count}`)
    t.equal(held.at(-1), count - 1, 'the last one')
    t.equal(held.length, count - (held[0] ?? 0), 'and those before it')
  }
  t.same(heldOf(0, 5), [], 'none, if none are to be')

  const seen = createSeenTokens<string>(2)
  for (const name of ['a', 'b', 'c']) seen.add(token(name), name)
  t.equal(seen.find(token('a')), 'a', 'one that comes again')
  for (const name of ['d', 'e']) seen.add(token(name), name)
  t.equal(seen.find(token('a')), 'a', 'stays longer than those that came with it')
  t.equal(seen.find(token('b')), undefined)
  t.equal(seen.find(`other${token('a')}`), undefined, 'the same end is not the same token')
  for (const name of ['a', 'e']) {
    seen.forget(`other${token(name)}`)
    t.equal(seen.find(token(name)), name)
    seen.forget(token(name))
    t.equal(seen.find(token(name)), undefined, 'forgotten wherever it was')
  }
})

t.test('a scope reaches as far as it says', async (t) => {
  const claims = (scope: string, account_id: string | null = 'a') => ({ scope, account_id }) as Claims

  t.equal(hasScope(claims('post:read'), 'post:read', 'a'), true)
  t.equal(hasScope(claims('post:read'), 'post:read', 'b'), false)
  t.equal(hasScope(claims('post:read'), 'post:read', null), false)
  t.equal(hasScope(claims('post:read', null), 'post:read', null), false)
  t.equal(hasScope(claims('post:read'), 'post:read'), true)
  t.equal(hasScope(claims('post:read:any'), 'post:read', 'b'), true)
  t.equal(hasScope(claims('post:read:any'), 'post:read', null), true)
  t.equal(hasScope(claims('post:readers'), 'post:read'), false)
  t.equal(hasScope(claims(''), ''), false)
})

t.test('a recovery code may be refused where the factor itself is asked for', (t) => {
  const acr = 'urn:postern:acr:2'
  const withRecovery = { acr, amr: ['pwd', 'recovery', 'mfa'] } as unknown as Claims
  const withCode = { acr, amr: ['pwd', 'otp', 'mfa'] } as unknown as Claims
  const silent = { acr } as unknown as Claims

  t.doesNotThrow(() => assertAuthentication(withRecovery, { acr }))
  t.doesNotThrow(() => assertAuthentication(withCode, { acr, withoutRecovery: true }))
  for (const claims of [withRecovery, silent])
    t.throws(() => assertAuthentication(claims, { acr, withoutRecovery: true }), {
      code: 'insufficient_authentication',
      headers: { 'www-authenticate': /insufficient_user_authentication/ },
    })
  t.end()
})
