import { calculateJwkThumbprint, exportJWK, importPKCS8, importSPKI, type JWK } from 'jose'
import t from 'tap'
import { generateKey, publicPem, thumbprint } from '../../src/keys/jwk.ts'

const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']

t.test('the thumbprint of an RSA key is that of RFC 7638 §3.1', async (t) => {
  const jwk = {
    kty: 'RSA',
    n:
      '0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3' +
      'oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA' +
      'ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-' +
      'kEgU8awapJzKnqDKgw',
    e: 'AQAB',
    alg: 'RS256',
    kid: '2011-04-29',
  }

  t.equal(thumbprint(jwk), 'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs')
})

t.test('the thumbprint of an Ed25519 key is that of RFC 8037 A.3', async (t) => {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' }

  t.equal(thumbprint(jwk), 'kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k')
})

t.test('the order and number of other members do not change a thumbprint', async (t) => {
  const { publicJwk } = generateKey('ES256')
  const shuffled = Object.fromEntries(Object.entries(publicJwk).reverse())

  t.equal(thumbprint({ ...shuffled, extra: 'member', use: 'enc' }), thumbprint(publicJwk))
})

for (const algorithm of ['ES256', 'RS256', 'EdDSA'] as const) {
  t.test(`a new ${algorithm} key is named by the thumbprint that jose computes`, async (t) => {
    const { kid, publicJwk, privatePem } = generateKey(algorithm)

    t.equal(kid, await calculateJwkThumbprint(publicJwk as JWK))
    t.match(publicJwk, { kid, alg: algorithm, use: 'sig' })
    t.ok(await importPKCS8(privatePem, algorithm))
  })

  t.test(`the public JWK of a new ${algorithm} key has no private member`, async (t) => {
    const { publicJwk } = generateKey(algorithm)

    t.same(
      Object.keys(publicJwk).filter((member) => PRIVATE_MEMBERS.includes(member)),
      [],
    )
  })

  t.test(`the public PEM of a ${algorithm} private key is the key of its JWK`, async (t) => {
    const { kid, privatePem } = generateKey(algorithm)

    const imported = await importSPKI(publicPem(privatePem), algorithm, { extractable: true })

    t.equal(await calculateJwkThumbprint(await exportJWK(imported)), kid)
  })
}

t.test('an RSA key has at least 2048 bits', async (t) => {
  const { publicJwk } = generateKey('RS256')

  const modulus = Buffer.from(String(publicJwk['n']), 'base64url')

  t.ok(modulus.length * 8 >= 2048)
})

t.test('two keys never share a name', async (t) => {
  const kids = Array.from({ length: 20 }, () => generateKey('ES256').kid)

  t.equal(new Set(kids).size, 20)
})
