import { createPrivateKey, sign as signBytes } from 'node:crypto'
import { CompactSign, decodeJwt, decodeProtectedHeader, importPKCS8 } from 'jose'
import type { TestApp } from '../helpers/app.ts'

export type Json = Record<string, unknown>

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** What an attacker would need most: the signing key of the service, taken out of its database with its own SECRET_KEY, and a real token. */
export async function openForge({ services }: TestApp, token: string) {
  const { rows } = await services.database.pool.query<{
    kid: string
    algorithm: string
    public_jwk: Json
    private_key_sealed: string
  }>(`select kid, algorithm, public_jwk, private_key_sealed from signing_keys where state = 'current'`)
  const [row] = rows
  const pem = row && services.vault.open('signing-keys', row.private_key_sealed)
  if (!row || !pem) throw new Error('the signing key cannot be opened')
  const key = await importPKCS8(pem, row.algorithm)
  const header = decodeProtectedHeader(token) as Json
  const claims = decodeJwt(token) as Json

  return {
    token,
    kid: row.kid,
    publicJwk: row.public_jwk,
    privatePem: pem,
    header,
    claims,

    /** A token with a true signature; `undefined` removes a claim or a header. */
    async signed(changes: Json = {}, headerChanges: Json = {}): Promise<string> {
      const payload = new TextEncoder().encode(JSON.stringify({ ...claims, ...changes }))
      const full = JSON.parse(JSON.stringify({ ...header, ...headerChanges })) as { alg: string }
      return await new CompactSign(payload).setProtectedHeader(full).sign(key)
    },

    /** The same by hand, for headers that jose refuses to sign and signatures it does not make. */
    signedByHand(
      headerChanges: Json,
      encoding: 'ieee-p1363' | 'der' = 'ieee-p1363',
      payload = claims,
    ): string {
      const input = `${encode({ ...header, ...headerChanges })}.${encode(payload)}`
      const signature = signBytes('sha256', Buffer.from(input), {
        key: createPrivateKey(pem),
        dsaEncoding: encoding,
      })
      return `${input}.${signature.toString('base64url')}`
    },

    /** The token's header and claims as they would be signed, and any third part. */
    assembled(headerChanges: Json, signature: string, payload: Json = claims): string {
      return `${encode({ ...header, ...headerChanges })}.${encode(payload)}.${signature}`
    },
  }
}
