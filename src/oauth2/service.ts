import { isResource } from '../audiences.ts'
import type { AuditEvent } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import type { AccessTokens, TokenHolder } from '../auth/access-tokens.ts'
import { MAX_SCOPE_BYTES, scopesNamed } from '../auth/grants.ts'
import {
  type AccessTokenClaims,
  type Actor,
  FIRST_PARTY_CLIENT,
  type TokenIssuer,
  type TokenSubject,
} from '../auth/tokens.ts'
import type { Client } from '../clients/in-use.ts'
import type { GrantType } from '../clients/repository.ts'
import type { Clock } from '../clock.ts'
import { type Database, DEFAULT_ENVIRONMENT, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { clientPrincipal, type Principal, sessionHolder } from '../principal.ts'
import type { SessionsService } from '../sessions/service.ts'
import type { OAuth2Repository } from './repository.ts'
import type { RevokedTokens } from './revoked-tokens.ts'

/** Where a request of a client came from, for the audit trail. */
export type Origin = { requestId: string; address: string }

/** What every grant may ask for. */
type TokenRequest = {
  client: Client
  /** Space-separated; narrows the token, never widens it. */
  scope: string | undefined
  /** Whom the token is for (RFC 8707). */
  resources: readonly string[]
  /** Thumbprint of the key that the request has proved (RFC 9449). */
  dpopThumbprint: string | undefined
}

export type RefreshRequest = TokenRequest & Origin & { refreshToken: string; account: string | undefined }

export type ExchangeRequest = TokenRequest & {
  subjectToken: string
  actorToken: string | undefined
  /** Names of services, as RFC 8693 has them beside `resource`. */
  audiences: readonly string[]
}

/** What the token endpoint answers (RFC 6749 §5.1). */
export type IssuedTokens = {
  access_token: string
  token_type: 'Bearer' | 'DPoP'
  expires_in: number
  scope: string
  refresh_token?: string
  /** RFC 8693 §2.2.1. */
  issued_token_type?: string
}

/** What is told of a token (RFC 7662 §2.2). Of one that is not active, or not the caller's business, nothing else. */
export type Introspection = { active: false } | ({ active: true } & Record<string, unknown>)

export const ACCESS_TOKEN_URN = 'urn:ietf:params:oauth:token-type:access_token'
const INACTIVE: Introspection = { active: false }
const LONGEST_CHAIN = 5

type Dependencies = {
  database: Database
  issuer: string
  tokens: TokenIssuer
  accessTokens: AccessTokens
  revoked: RevokedTokens
  sessions: SessionsService
  repository: OAuth2Repository
  audit: AuditRepository
  clock: Clock
}

/** Grants, introspects and revokes tokens for OAuth clients (RFC 6749, 7662, 7009, 8693). */
export function createOAuth2Service(dependencies: Dependencies) {
  const { database, issuer, tokens, accessTokens, revoked, sessions, repository, audit, clock } = dependencies

  async function issue(
    subject: TokenSubject,
    dpopThumbprint: string | undefined,
    lifetimeSeconds = tokens.ttlSeconds,
    latest?: number,
  ): Promise<IssuedTokens> {
    const bound = dpopThumbprint === undefined ? subject : { ...subject, cnf: { jkt: dpopThumbprint } }
    return {
      access_token: await tokens.issueAccessToken(bound, lifetimeSeconds, latest),
      token_type: dpopThumbprint === undefined ? 'Bearer' : 'DPoP',
      expires_in: lifetimeSeconds,
      scope: subject.scope,
    }
  }

  /** The claims of a token that was issued here and still holds; `undefined` for any other. */
  const live = async (token: string): Promise<Live | undefined> =>
    await unlessInvalid(async () => {
      const claims = await accessTokens.read(token)
      return { claims, found: await accessTokens.holderOf(claims) }
    })

  async function revokeAccessToken(claims: AccessTokenClaims, caller: AuditEvent['caller']): Promise<void> {
    await transact(database.db, async (tx) => {
      if (!(await repository.revokeToken(claims.jti, new Date(claims.exp * 1000), tx))) return
      await audit.append(
        {
          action: 'token.revoked',
          caller,
          target: { type: 'token', id: claims.jti },
          accountId: claims.account_id,
          details: { client_id: claims.client_id },
        },
        tx,
      )
    })
    revoked.onRevoked([claims.jti])
  }

  return {
    assertMayUse,

    /** Whether a text is a refresh token that was issued here, for whatever session; see `RefreshTokens.isGenuine`. */
    isRefreshToken: sessions.isRefreshToken,

    /**
     * A token for a client in its own name (RFC 6749 §4.4). Writes nothing.
     * @throws AppError unauthorized_client, invalid_scope, scope_too_large, invalid_target
     */
    async clientCredentials({
      client,
      scope,
      resources,
      dpopThumbprint,
    }: TokenRequest): Promise<IssuedTokens> {
      assertMayUse(client, 'client_credentials')
      const subject = {
        sub: client.id,
        client_id: client.id,
        scope: narrowed(client.scopes, scope),
        roles: [],
        account_id: client.accountId,
        ver: client.tokenVersion,
        aud: audienceOf(client, resources),
      }
      return await issue(subject, dpopThumbprint)
    },

    /**
     * The next tokens of a session (RFC 6749 §6).
     * @throws AppError unauthorized_client, and what SessionsService.refresh throws
     */
    async refresh(request: RefreshRequest): Promise<IssuedTokens> {
      const { client, refreshToken, scope, resources, account, dpopThumbprint, requestId, address } = request
      assertMayUse(client, 'refresh_token')
      const refreshed = await sessions.refresh({
        token: refreshToken,
        clientId: client.id,
        scope,
        ...(resources.length > 0 && { resource: resources }),
        account,
        dpopThumbprint,
        requestId,
        address,
      })
      return {
        access_token: refreshed.accessToken,
        token_type: dpopThumbprint === undefined ? 'Bearer' : 'DPoP',
        expires_in: refreshed.expiresInSeconds,
        scope: refreshed.scope,
        refresh_token: refreshed.refreshToken,
      }
    },

    /**
     * A token for a client that acts for somebody else (RFC 8693), about the subject of a token that the client was
     * sent. It says so in `act`, holds no more than both may, and lives no longer than the subject's. It carries no
     * roles, which would say more than its scopes.
     * @throws AppError unauthorized_client, invalid_grant, invalid_scope, invalid_target
     */
    async exchange(request: ExchangeRequest): Promise<IssuedTokens> {
      const { client, subjectToken, actorToken, scope, resources, audiences, dpopThumbprint } = request
      assertMayUse(client, 'urn:ietf:params:oauth:grant-type:token-exchange')
      const subject = (await live(subjectToken)) ?? fail('invalid_grant')
      assertMayActFor(client, subject)
      if (actorToken !== undefined) {
        const actor = await live(actorToken)
        if (actor?.claims.sub !== client.id || actor.claims.client_id !== client.id)
          throw new AppError('invalid_grant', { detail: 'The actor token is not one of the client' })
      }
      const { claims } = subject
      const held = new Set(claims.scope.split(' '))
      const lifetime = Math.min(tokens.ttlSeconds, claims.exp - Math.floor(clock.now().getTime() / 1000))
      const issued = await issue(
        {
          sub: claims.sub,
          client_id: client.id,
          scope: narrowed(
            client.scopes.filter((one) => held.has(one)),
            scope,
          ),
          roles: [],
          account_id: claims.account_id,
          ver: claims.ver,
          aud: audienceOf(client, resources, audiences),
          act: actorFor(client, claims.act),
          ...(claims.sid !== undefined && { sid: claims.sid }),
          // They tell of the person, whoever acts (RFC 9068 §2.2.1).
          ...(claims.auth_time !== undefined && { auth_time: claims.auth_time }),
          ...(claims.amr && { amr: claims.amr }),
          ...(claims.acr !== undefined && { acr: claims.acr }),
        },
        dpopThumbprint,
        lifetime < 1 ? fail('invalid_grant') : lifetime,
        claims.exp,
      )
      return { ...issued, issued_token_type: ACCESS_TOKEN_URN }
    },

    /**
     * Ends a token of the client (RFC 7009): an access token by itself, a refresh token with its whole session. Nothing
     * for one that is no token, or no longer one.
     * @throws AppError invalid_grant for a token of another client
     */
    async revoke(client: Client, token: string, origin: Origin): Promise<void> {
      if (!looksLikeJwt(token)) {
        const session = await sessions.findByRefreshToken(token)
        if (!session) return
        if (session.clientId !== client.id) throw new AppError('invalid_grant')
        const { id, userId, accountId } = session
        await sessions.endSession(
          { principal: sessionHolder(userId, accountId, id), ...origin },
          id,
          'token_revoked',
        )
        return
      }
      const claims = await unlessInvalid(async () => await accessTokens.read(token))
      if (!claims) return
      if (claims.client_id !== client.id) throw new AppError('invalid_grant')
      await revokeAccessToken(claims, { principal: holderOf(client, claims), ...origin })
    },

    /**
     * What a token says and whether it holds (RFC 7662). A client is told of the tokens that were issued to it or are
     * for an audience of it; `undefined`, for who may read every session, of all.
     */
    async introspect(client: Client | undefined, token: string): Promise<Introspection> {
      if (!looksLikeJwt(token)) {
        const session = await sessions.findByRefreshToken(token)
        if (!session?.isCurrent || (client && session.clientId !== client.id)) return INACTIVE
        return {
          active: true,
          iss: issuer,
          sub: session.userId,
          client_id: session.clientId,
          sid: session.id,
          iat: seconds(session.createdAt),
          exp: seconds(session.expiresAt),
          ...(session.scope !== null && { scope: session.scope }),
        }
      }
      const found = await live(token)
      if (!found || (client && !concerns(client, found))) return INACTIVE
      const { claims } = found
      return {
        active: true,
        ...claims,
        nbf: claims.iat,
        token_type: claims.cnf ? 'DPoP' : 'Bearer',
        ...(found.found.type === 'user' && { username: found.found.holder.key }),
      }
    },

    /** Removes what has expired. */
    prune: repository.prune,
  }
}

async function unlessInvalid<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (error instanceof AppError && error.code === 'invalid_token') return undefined
    throw error
  }
}

const seconds = (date: Date): number => Math.floor(date.getTime() / 1000)

/** Of the tokens that we issue only access tokens have three parts. */
const looksLikeJwt = (token: string): boolean => token.split('.', 4).length === 3

/** Refuses a grant that the client has not, or that takes one who can authenticate. @throws AppError unauthorized_client */
function assertMayUse({ grantTypes, authMethod }: Client, grant: GrantType): void {
  const isConfidential = authMethod !== 'none' || grant === 'refresh_token'
  if (!grantTypes.has(grant) || !isConfidential) throw new AppError('unauthorized_client')
}

/** The part of `held` that is asked for; all of it when nothing is. @throws AppError invalid_scope, scope_too_large */
function narrowed(held: readonly string[], requested: string | undefined): string {
  const wanted = scopesNamed(requested)
  const scopes = wanted.length === 0 ? held : held.filter((scope) => wanted.includes(scope))
  if (wanted.length > 0 && scopes.length === 0) throw new AppError('invalid_scope')
  const scope = scopes.join(' ')
  if (scope.length > MAX_SCOPE_BYTES) throw new AppError('scope_too_large')
  return scope
}

/** Whom a token is for: who is named, each one of the client's; else the first of these. @throws AppError invalid_target */
function audienceOf(
  { audiences }: Client,
  resources: readonly string[],
  names: readonly string[] = [],
): string | string[] {
  const wanted = [...new Set([...resources, ...names])]
  const isMalformed = (resource: string): boolean => !isResource(resource) && !audiences.includes(resource)
  if (resources.some(isMalformed)) {
    throw new AppError('invalid_target', { detail: 'A resource must be an absolute URI without a fragment' })
  }
  if (wanted.some((name) => !audiences.includes(name))) throw new AppError('invalid_target')
  const [first = audiences[0], ...others] = wanted
  return others.length === 0 ? first : [first, ...others]
}

type Live = { claims: AccessTokenClaims; found: TokenHolder }

/** True for a token that was issued to the client, or is for one of its audiences, in its environment. */
function concerns(client: Client, { claims, found }: Live): boolean {
  const environmentId = found.type === 'client' ? found.client.environmentId : DEFAULT_ENVIRONMENT
  if (client.environmentId !== environmentId) return false
  return claims.client_id === client.id || [claims.aud].flat().some((one) => client.audiences.includes(one))
}

/**
 * A client acts for those only whose token was meant for it, and inside the account that it is bound to.
 * @throws AppError invalid_grant
 */
function assertMayActFor(client: Client, subject: Live): void {
  const isInside = client.accountId === null || subject.claims.account_id === client.accountId
  if (!concerns(client, subject) || !isInside) throw new AppError('invalid_grant')
}

/** The newest actor first, the ones before inside (RFC 8693 §4.1). @throws AppError invalid_grant */
function actorFor({ id, tokenVersion }: Client, before: Actor | undefined): Actor {
  let length = 1
  for (let actor = before; actor; actor = actor.act) length++
  if (length > LONGEST_CHAIN)
    throw new AppError('invalid_grant', { detail: 'Too many clients act for another' })
  return { sub: id, ver: tokenVersion, ...(before && { act: before }) }
}

/** Who revokes a token of theirs: the client, or, at a client that is ours, the person. */
function holderOf(client: Client, { sub, account_id, sid }: AccessTokenClaims): Principal {
  if (client.id === FIRST_PARTY_CLIENT && sid !== undefined) return sessionHolder(sub, account_id, sid)
  return clientPrincipal(client, account_id, new Set())
}
