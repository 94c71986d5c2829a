import fastifyJwt from '@fastify/jwt'
import type { FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import { isApiKey } from '../api-keys/format.ts'
import type { ApiKeyVerifier } from '../api-keys/verifier.ts'
import {
  type AccessTokens,
  accessTokenChecks,
  keyOfToken,
  type TokenHolder,
  verified,
} from '../auth/access-tokens.ts'
import type { AccessTokenClaims } from '../auth/tokens.ts'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import type { EnvironmentsService } from '../environments/service.ts'
import { AppError } from '../errors.ts'
import type { KeysService } from '../keys/service.ts'
import { assertBoundTo, type DpopVerifier } from '../oauth2/dpop.ts'
import { type Caller, clientPrincipal, type Principal, type UserPrincipal } from '../principal.ts'
import type { Holder } from '../users/repository.ts'
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
  accessTokens: AccessTokens
  dpop: DpopVerifier
  apiKeys: ApiKeyVerifier
  environments: EnvironmentsService
  issuer: string
  audience: string
}

/**
 * Decorates the app with `authenticate`: access token → `request.principal`, and the environment that the request is
 * about. A verified signature may come from the library's cache; the holder's state is read anew for every request.
 */
export const authentication = plugin<Options>(
  async (app, { keys, accessTokens, dpop, apiKeys, environments, issuer, audience }) => {
    await app.register(fastifyJwt, {
      secret: { public: keyOfToken(keys) },
      decode: { complete: true },
      verify: { ...accessTokenChecks(issuer), allowedAud: audience },
    })
    app.decorateRequest('principal', null)
    app.decorateRequest('holder', null)
    app.decorateRequest('environmentId', DEFAULT_ENVIRONMENT)

    async function provenKey(request: FastifyRequest, accessToken: string): Promise<string> {
      const { method, headers, url } = request
      const [path = ''] = url.split('?', 1)
      if (headers['dpop'] === undefined) throw new AppError('invalid_dpop_proof')
      return await dpop.verify(String(headers['dpop']), { method, path, accessToken })
    }

    app.decorate('authenticate', async (request: FastifyRequest) => {
      const { scheme, token } = presentedToken(request)
      if (scheme === 'bearer' && isApiKey(token)) request.principal = await apiKeys.verify(token)
      else {
        const claims = await verified(() => app.jwt.verify<AccessTokenClaims>(token))
        if (await keys.isOfKeyThatIsGone(token)) throw new AppError('invalid_token')
        assertBoundTo(claims.cnf, scheme === 'dpop' ? await provenKey(request, token) : undefined)
        const found = await accessTokens.holderOf(claims)
        if (found.type === 'user') request.holder = found.holder
        request.principal = principalOf(claims, found)
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

/** The person, in person: devices and addresses are no business of who acts for them. @throws AppError insufficient_scope */
export function themselves(request: FastifyRequest): UserPrincipal {
  const { principal } = personOf(request)
  if (principal.actingClientId !== undefined) throw new AppError('insufficient_scope')
  return principal
}

/**
 * RFC 6750 §2.1, RFC 9449 §7.1; the scheme is compared without regard to case. A token anywhere else is not looked at.
 */
function presentedToken(request: FastifyRequest): { scheme: 'bearer' | 'dpop'; token: string } {
  const header = request.headers.authorization
  const scheme = /^(bearer|dpop)(?:\s|$)/i.exec(header ?? '')?.[1]
  if (header === undefined || scheme === undefined) throw new AppError('authentication_required')
  const token = header.slice(scheme.length).trim()
  if (token === '' || /\s/.test(token)) throw new AppError('invalid_token')
  return { scheme: scheme.toLowerCase() === 'dpop' ? 'dpop' : 'bearer', token }
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

function principalOf(claims: AccessTokenClaims, found: TokenHolder): Principal {
  const scopes = scopesOf(claims)
  if (found.type === 'client') return clientPrincipal(found.client, claims.account_id, scopes)
  return {
    type: 'user',
    userId: claims.sub,
    sessionId: found.sessionId,
    accountId: claims.account_id,
    scopes,
    mustChangePassword: found.holder.mustChangePassword,
    isMfaMissing: found.holder.isMfaMissing,
    ...(claims.act && { actingClientId: claims.act.sub }),
  }
}
