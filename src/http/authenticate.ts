import fastifyJwt from '@fastify/jwt'
import { TokenError } from 'fast-jwt'
import type { FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import { isApiKey } from '../api-keys/format.ts'
import type { ApiKeyVerifier } from '../api-keys/verifier.ts'
import { ACCESS_TOKEN_TYPE, type AccessTokenClaims } from '../auth/tokens.ts'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import type { EnvironmentsService } from '../environments/service.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import type { KeysService } from '../keys/service.ts'
import type { Caller, Principal, UserPrincipal } from '../principal.ts'
import type { Holder, UsersRepository } from '../users/repository.ts'
import { enterEnvironment } from './environment.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks. Only on routes that are not public. */
    principal: Principal | null
    /** The person behind a user's token, as stored now. */
    holder: Holder | null
    /** The environment that the request is about. */
    environmentId: string
  }
  interface FastifyInstance {
    authenticate(request: FastifyRequest): Promise<void>
  }
}

type Options = {
  keys: KeysService
  users: UsersRepository
  apiKeys: ApiKeyVerifier
  environments: EnvironmentsService
  issuer: string
  audience: string
}

/** Claims without which a token is refused, by RFC 9068 §2.2 and because the guard needs them. */
const REQUIRED_CLAIMS = ['iss', 'sub', 'aud', 'exp', 'iat', 'jti', 'client_id', 'scope', 'sid', 'ver']
const CACHED_TOKENS = 10_000
const CACHE_TTL_MS = 60_000

/**
 * Decorates the app with `authenticate`: Bearer token → `request.principal`, and the environment that the request is
 * about. A verified signature may come from the library's cache; the holder's state is read anew for every request.
 */
export const authentication = plugin<Options>(
  async (app, { keys, users, apiKeys, environments, issuer, audience }) => {
    await app.register(fastifyJwt, {
      secret: { public: keyOfToken(keys) },
      decode: { complete: true },
      verify: {
        algorithms: ['ES256', 'RS256', 'EdDSA'],
        allowedIss: issuer,
        allowedAud: audience,
        requiredClaims: REQUIRED_CLAIMS,
        checkTyp: ACCESS_TOKEN_TYPE,
        cache: CACHED_TOKENS,
        cacheTTL: CACHE_TTL_MS,
        errorCacheTTL: -1,
      },
    })
    app.decorateRequest('principal', null)
    app.decorateRequest('holder', null)
    app.decorateRequest('environmentId', DEFAULT_ENVIRONMENT)
    app.decorate('authenticate', async (request: FastifyRequest) => {
      const token = bearerToken(request)
      if (isApiKey(token)) request.principal = await apiKeys.verify(token)
      else {
        const claims = await verified(() => app.jwt.verify<AccessTokenClaims>(token))
        const holder = await findHolder(users, claims)
        request.holder = holder
        request.principal = principalOf(claims, holder)
      }
      await enterEnvironment(request, environments)
    })
  },
  { name: 'authentication', fastify: '5.x' },
)

/** The caller of an authenticated request, as services take it. */
export function callerOf(request: FastifyRequest): Caller {
  if (!request.principal) throw new AppError('authentication_required')
  return { principal: request.principal, requestId: request.id, address: request.ip }
}

/** The person who asks. @throws AppError insufficient_scope for machines, which have no record of their own */
export function personOf(request: FastifyRequest): { principal: UserPrincipal; holder: Holder } {
  const { principal, holder } = request
  if (principal?.type !== 'user' || !holder) throw new AppError('insufficient_scope')
  return { principal, holder }
}

type Header = { kid?: unknown; alg?: unknown }

/** One algorithm per key (RFC 8725 §3.1): a token naming another one finds no key. */
function keyOfToken(keys: KeysService) {
  return async ({ header }: { header: Header }): Promise<string> => {
    const key = typeof header.kid === 'string' ? await keys.findKey(header.kid) : undefined
    if (!key || key.algorithm !== header.alg) throw new TokenError(TokenError.codes.invalidKey, 'no such key')
    return key.publicPem
  }
}

/** RFC 6750 §2.1; the scheme is compared without regard to case. A token anywhere else is not looked at. */
function bearerToken(request: FastifyRequest): string {
  const header = request.headers.authorization
  if (header === undefined || !/^bearer(\s|$)/i.test(header)) throw new AppError('authentication_required')
  const token = header.slice('bearer '.length).trim()
  if (token === '' || /\s/.test(token)) throw new AppError('invalid_token')
  return token
}

async function verified(
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

async function findHolder(users: UsersRepository, claims: AccessTokenClaims): Promise<Holder> {
  if (!isUuid(claims.sid) || !isUuid(claims.sub)) throw new AppError('invalid_token')
  const holder = await users.findHolder(claims.sid, claims.sub)
  if (!holder?.isActive || !holder.isAccountActive || holder.tokenVersion !== claims.ver) {
    throw new AppError('invalid_token')
  }
  return holder
}

// A token that was seen before comes as the same claims object; its scopes are split once.
const scopesOfClaims = new WeakMap<AccessTokenClaims, ReadonlySet<string>>()

function scopesOf(claims: AccessTokenClaims): ReadonlySet<string> {
  const known = scopesOfClaims.get(claims)
  if (known) return known
  const scopes = new Set(claims.scope.split(' ').filter((scope) => scope !== ''))
  scopesOfClaims.set(claims, scopes)
  return scopes
}

const principalOf = (claims: AccessTokenClaims, holder: Holder): UserPrincipal => ({
  type: 'user',
  userId: claims.sub,
  sessionId: claims.sid,
  accountId: claims.account_id,
  scopes: scopesOf(claims),
  mustChangePassword: holder.mustChangePassword,
})
