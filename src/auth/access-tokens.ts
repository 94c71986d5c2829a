import { createVerifier, TokenError } from 'fast-jwt'
import type { Client, ClientsInUse } from '../clients/in-use.ts'
import { AppError, fail } from '../errors.ts'
import { isUuid } from '../ids.ts'
import type { KeysService } from '../keys/service.ts'
import type { RevokedTokens } from '../oauth2/revoked-tokens.ts'
import type { Holder, UsersRepository } from '../users/repository.ts'
import type { MfaRule } from './grants.ts'
import { ACCESS_TOKEN_TYPE, type AccessTokenClaims, FIRST_PARTY_CLIENT } from './tokens.ts'

/** Whom a token is about, as stored now: a person with a live session, or a client. */
export type TokenHolder =
  | { type: 'user'; holder: Holder; sessionId: string }
  | { type: 'client'; client: Client }

/** Claims without which a token is refused, by RFC 9068 §2.2 and because the guard needs them. */
const REQUIRED_CLAIMS = ['iss', 'sub', 'aud', 'exp', 'iat', 'jti', 'client_id', 'scope', 'ver']
const CACHED_TOKENS = 10_000
const CACHE_TTL_MS = 60_000

/** What the JWT library checks of every access token of ours (RFC 9068 §4, RFC 8725), whomever it is for. */
export const accessTokenChecks = (issuer: string) => ({
  algorithms: ['ES256' as const, 'RS256' as const, 'EdDSA' as const],
  allowedIss: issuer,
  requiredClaims: REQUIRED_CLAIMS,
  checkTyp: ACCESS_TOKEN_TYPE,
  cache: CACHED_TOKENS,
  cacheTTL: CACHE_TTL_MS,
  errorCacheTTL: -1,
})

type Header = { kid?: unknown; alg?: unknown }

/** One algorithm per key (RFC 8725 §3.1): a token naming another one finds no key. */
export function keyOfToken(keys: KeysService) {
  return async ({ header }: { header: Header }): Promise<string> => {
    const key = typeof header.kid === 'string' ? await keys.findKey(header.kid) : undefined
    if (!key || key.algorithm !== header.alg) throw new TokenError(TokenError.codes.invalidKey, 'no such key')
    return key.publicPem
  }
}

/** The claims that `verify` finds. @throws AppError invalid_token for every fault of the token */
export async function verified(
  verify: () => AccessTokenClaims | Promise<AccessTokenClaims>,
): Promise<AccessTokenClaims> {
  try {
    return await verify()
  } catch (error) {
    if (error instanceof AppError) throw error
    if (isTokenFault(error)) throw new AppError('invalid_token', { cause: error })
    // What kept the key from being read, such as the database, and not that it was not read.
    throw error instanceof TokenError ? (error.originalError ?? error) : error
  }
}

/** Faults of the token are the client's; a fault of the key store is ours and must not read as a bad token. */
function isTokenFault(error: unknown): boolean {
  if (!(error instanceof TokenError)) return false
  return error.code !== TokenError.codes.keyFetchingError || error.originalError instanceof TokenError
}

/** Reads access tokens of this service, and tells the state of whom they are about. */
export type AccessTokens = ReturnType<typeof createAccessTokens>

type Dependencies = {
  keys: KeysService
  issuer: string
  users: UsersRepository
  clients: ClientsInUse
  revoked: RevokedTokens
  mfaRule: MfaRule
}

/** Verifies access tokens of this service, and finds the state of their holder at this moment. */
export function createAccessTokens({ keys, issuer, users, clients, revoked, mfaRule }: Dependencies) {
  const verify = createVerifier({
    ...accessTokenChecks(issuer),
    key: async (token: { header: Header }) => await keyOfToken(keys)(token),
  })

  async function personOf(claims: AccessTokenClaims, sessionId: string): Promise<TokenHolder> {
    if (!isUuid(sessionId) || !isUuid(claims.sub)) throw new AppError('invalid_token')
    const holder = await users.findHolder(sessionId, claims.sub, claims.account_id, mfaRule)
    if (!holder?.isActive || !holder.isAccountActive || holder.tokenVersion !== claims.ver)
      throw new AppError('invalid_token')
    // It was issued before a second factor came to be demanded; the next one gives nothing away.
    if (holder.isMfaMissing && (claims.scope !== '' || claims.roles.length > 0))
      throw new AppError('invalid_token')
    return { type: 'user', holder, sessionId }
  }

  async function activeClient(id: string): Promise<Client> {
    const client = await clients.find(id)
    return client?.isActive ? client : fail('invalid_token')
  }

  async function clientOf({ sub, ver }: { sub: string; ver: number }): Promise<Client> {
    const client = await activeClient(sub)
    return client.tokenVersion === ver ? client : fail('invalid_token')
  }

  /** Clients that act for somebody, each for the one before, must be what they were when the token was made. */
  async function assertActorsLive({ sub, client_id: clientId, act }: AccessTokenClaims): Promise<void> {
    for (let actor = act; actor; actor = actor.act) await clientOf(actor)
    if (!act && clientId !== FIRST_PARTY_CLIENT && clientId !== sub) await activeClient(clientId)
  }

  return {
    /**
     * The claims of a token that this service has issued and that has not expired, for whichever audience. Its holder
     * may be gone meanwhile: see `holderOf`.
     * @throws AppError invalid_token
     */
    async read(token: string): Promise<AccessTokenClaims> {
      const claims = await verified(async () => (await verify(token)) as AccessTokenClaims)
      return (await keys.isOfKeyThatIsGone(token)) ? fail('invalid_token') : claims
    },

    /**
     * Whom verified claims are about, in their state of now.
     * @throws AppError invalid_token when the token was revoked, or its session, holder or a client in it ended or changed
     */
    async holderOf(claims: AccessTokenClaims): Promise<TokenHolder> {
      if (await revoked.has(claims.jti)) throw new AppError('invalid_token')
      await assertActorsLive(claims)
      return claims.sid === undefined
        ? { type: 'client', client: await clientOf(claims) }
        : await personOf(claims, claims.sid)
    },
  }
}
