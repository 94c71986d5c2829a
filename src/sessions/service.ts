import type { Audiences } from '../audiences.ts'
import type { AuditRepository } from '../audit/repository.ts'
import {
  type EffectivePermissions,
  type Grantee,
  grant,
  isMultiFactor,
  lifetimeOf,
  type MfaRule,
  needsSecondFactor,
  type RoleAtSignIn,
  scopesNamed,
} from '../auth/grants.ts'
import type { AuthRepository, NewSession } from '../auth/repository.ts'
import { ONE_FACTOR, type TokenIssuer, TWO_FACTORS } from '../auth/tokens.ts'
import type { Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import { type Database, DEFAULT_ENVIRONMENT, transact } from '../db/client.ts'
import { combined } from '../db/combined.ts'
import type { Page, PageRequest } from '../db/paging.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import { BUILTIN_ROLES, coversPerson } from '../permissions.ts'
import { type Caller, sessionHolder, type UserPrincipal } from '../principal.ts'
import type { RolesService } from '../roles/service.ts'
import type { UsersRepository } from '../users/repository.ts'
import { hashOf, type RefreshToken, type RefreshTokens } from './refresh-tokens.ts'
import type {
  EndedSome,
  EndReason,
  Rotated,
  Rotation,
  SessionOfToken,
  SessionRow,
  SessionsRepository,
} from './repository.ts'

/** What a session begins with. */
export type Beginning = {
  userId: string
  accountId: string | null
  clientId: string
  /** As the request has it. */
  scope: string | undefined
  /** Whom its access tokens are for, as `Audiences.chosen` has it. */
  audiences: readonly string[] | null
  /** How the person was authenticated. */
  amr: readonly string[]
  userAgent: string | undefined
  address: string
}

/** What a client presents to go on with a session. */
export type Refresh = {
  token: string
  /** The client that asks; the session must have begun with it. */
  clientId: string
  /** Space-separated; a part of what the session was begun with. Narrows this access token only. */
  scope?: string | undefined
  /** Whom this access token is for (RFC 8707); see `Audiences.chosen`. */
  resource?: readonly string[] | undefined
  /** Key or id of the account that the session goes on in. */
  account?: string | undefined
  /** Thumbprint of the key that the request proved (RFC 9449). The access token is bound to it. */
  dpopThumbprint?: string | undefined
  requestId: string
  address: string
}

/** An access token and the refresh token that follows. */
export type Refreshed = {
  sessionId: string
  accessToken: string
  expiresInSeconds: number
  scope: string
  refreshToken: string
  /** Until the session ends if it is not refreshed. */
  refreshExpiresInSeconds: number
}

/** What the access token of a session says. */
export type AccessOfSession = {
  userId: string
  sessionId: string
  clientId: string
  tokenVersion: number
  granted: EffectivePermissions
  roles: readonly RoleAtSignIn[]
  /** How its person was authenticated, and when last. */
  amr: readonly string[]
  authenticatedAt: Date
  /** Until the session ends, however much it is used. */
  secondsLeft: number
  /** Null: this service. */
  audiences?: readonly string[] | null
  dpopThumbprint?: string | undefined
}

export type SessionsService = ReturnType<typeof createSessionsService>

type Dependencies = {
  database: Database
  sessions: SessionsRepository
  refreshTokens: RefreshTokens
  attempts: AuthRepository
  tokens: TokenIssuer
  users: UsersRepository
  roles: RolesService
  audit: AuditRepository
  limits: Config['sessions']
  mfaRule: MfaRule
  audiences: Audiences
  clock: Clock
}

/** How many sessions one statement refreshes. */
const MOST_ROTATIONS = 50
/** How many sessions one transaction ends, when all of them are to end. */
const MOST_ENDED = 1000
const FIRST_ID = '00000000-0000-0000-0000-000000000000'

/** Begins, refreshes, lists and ends the sessions of people. */
export function createSessionsService(dependencies: Dependencies) {
  const {
    database,
    sessions,
    refreshTokens,
    attempts,
    tokens,
    users,
    roles,
    audit,
    limits,
    mfaRule,
    audiences,
    clock,
  } = dependencies
  const { db } = database

  const rotateSession = combined<Rotation, Rotated>({
    keyOf: ({ sessionId }) => sessionId,
    many: async (rotations) => await sessions.rotateMany(rotations, limits),
    one: async (rotation) => await sessions.rotate(rotation, limits),
    most: MOST_ROTATIONS,
  })

  /**
   * Refuses what does not fit before anything is written. Only a token that would be accepted gets so far, so that
   * nobody learns anything of the sessions of others.
   */
  async function assertFits(
    session: SessionOfToken,
    accountId: string | null,
    input: Refresh,
  ): Promise<void> {
    const wanted = scopesNamed(input.scope)
    const begunWith = scopesNamed(session.scope)
    // RFC 6749 §6: nothing that was not granted to begin with.
    if (begunWith.length > 0 && wanted.some((scope) => !begunWith.includes(scope)))
      throw new AppError('invalid_scope')
    audiences.chosen(input.resource, session.audiences)
    if (wanted.length === 0) return
    const held = await attempts.findRolesAtSignIn(session.userId)
    const grantee = { mustChange: false, isMfaMissing: false, roles: held }
    if (grant(grantee, accountId, wanted).scopes.length === 0) throw new AppError('invalid_scope')
  }

  /** The account that the session is to go on in, null for the one it is in. @throws AppError account_not_found */
  async function chosenAccount(session: SessionOfToken, account: string | undefined): Promise<string | null> {
    if (account === undefined) return null
    const chosen = (await attempts.findMembership(session.userId, account)) ?? fail('account_not_found')
    return chosen.id
  }

  /** Prepares a refresh that asks for more than the next token. Returns the account to go on in, null for no change. */
  async function prepareRefresh(token: RefreshToken, input: Refresh): Promise<string | null> {
    const asksForMore =
      input.account !== undefined || scopesNamed(input.scope).length > 0 || (input.resource ?? []).length > 0
    if (!asksForMore) return null
    const session = await sessions.findByToken(
      token.sessionId,
      hashOf(token.text),
      limits.reuseIntervalSeconds,
    )
    if (!session || session.clientId !== input.clientId || !(session.isCurrent || session.isRepeatable))
      return null
    const accountId = await chosenAccount(session, input.account)
    await assertFits(session, accountId ?? session.accountId, input)
    return accountId
  }

  /** Stores the next token, or finds it stored; also where that was made under the SECRET_KEY before. */
  async function rotate(
    token: RefreshToken,
    input: Refresh,
    accountId: string | null,
  ): Promise<{ refreshToken: string; rotated: Rotated } | undefined> {
    const { sessionId } = token
    const { clientId, dpopThumbprint = null } = input
    const rotation = { sessionId, clientId, hash: hashOf(token.text), accountId, dpopThumbprint }
    for (const refreshToken of refreshTokens.successorsOf(token)) {
      const rotated = await rotateSession({ successorHash: hashOf(refreshToken), ...rotation })
      if (rotated) return { refreshToken, rotated }
    }
    return undefined
  }

  /** An old token is in the hands of two: whoever has stolen it, and whoever it was stolen from (RFC 9700 §4.14). */
  async function endIfReused(token: RefreshToken, { requestId, address }: Refresh): Promise<void> {
    if (!refreshTokens.isGenuine(token)) return
    await transact(db, async (tx) => {
      const presented = { sessionId: token.sessionId, hash: hashOf(token.text) }
      const ended = await sessions.endReused(presented, limits.reuseIntervalSeconds, tx)
      if (!ended) return
      await audit.append(
        {
          action: 'session.ended',
          caller: { principal: undefined, requestId, address },
          target: { type: 'user', id: ended.userId },
          accountId: ended.accountId,
          details: { session_id: ended.id, reason: 'refresh_token_reused' },
        },
        tx,
      )
    })
  }

  /** Ends the sessions of everybody after the one with this id, as many as one transaction does. */
  async function endNext(caller: Caller, after: string): Promise<EndedSome> {
    const { principal } = caller
    const own = principal.type === 'user' ? { except: principal.sessionId } : {}
    return await transact(db, async (tx) => {
      const ended = await sessions.endNext({ ...own, after, most: MOST_ENDED }, 'ended_by_admin', tx)
      if (ended.count > 0)
        await audit.append(
          {
            action: 'session.ended',
            caller,
            target: { type: 'environment', id: DEFAULT_ENVIRONMENT },
            details: { sessions: ended.count, reason: 'ended_by_admin', everybody: true },
          },
          tx,
        )
      return ended
    })
  }

  /** Ends the sessions of everybody from the first id to the last. @returns how many lived */
  async function endInOrder(caller: Caller): Promise<number> {
    let all = 0
    for (let after: string | undefined = FIRST_ID; after !== undefined; ) {
      const ended: EndedSome = await endNext(caller, after)
      all += ended.count
      after = ended.last
    }
    return all
  }

  /** Whether two factors are required is asked anew at each refresh: accounts and roles may have come to demand it. */
  const granteeOf = (rotated: Rotated): Grantee => ({
    mustChange: rotated.mustChange,
    isMfaMissing:
      !isMultiFactor(rotated.amr) &&
      needsSecondFactor(mfaRule, rotated.roles, {
        id: rotated.accountId,
        isMfaRequired: rotated.isAccountMfaRequired,
      }),
    roles: rotated.roles,
  })

  return {
    /** Whom the tokens of a session that begins are for. @throws AppError invalid_target */
    audiencesOf: (resource: readonly string[] | undefined): readonly string[] | null =>
      audiences.chosen(resource),

    /**
     * A session that is not stored yet, its first refresh token, and the audit row of its beginning: for the statement
     * that writes them together with the rest of a sign-in.
     */
    begin({ userId, accountId, clientId, scope, audiences, amr, userAgent, address }: Beginning) {
      const id = newId()
      const refreshToken = refreshTokens.create(id)
      const session: NewSession = {
        id,
        userId,
        accountId,
        clientId,
        userAgent: userAgent?.slice(0, 512) ?? null,
        address,
        scope: scopesNamed(scope).join(' ') || null,
        audiences,
        amr,
        refreshHash: hashOf(refreshToken),
        idleSeconds: limits.idleSeconds,
        maxSeconds: limits.maxSeconds,
      }
      return { session, refreshToken, refreshExpiresInSeconds: limits.idleSeconds }
    },

    /** The access token of a session, and how long it holds. */
    async issueAccessToken(
      access: AccessOfSession,
    ): Promise<Pick<Refreshed, 'accessToken' | 'expiresInSeconds' | 'scope'>> {
      const { granted, audiences, dpopThumbprint } = access
      const scope = granted.scopes.join(' ')
      const ttlSeconds = Math.min(tokens.ttlSeconds, access.secondsLeft)
      const expiresInSeconds = lifetimeOf(access.roles, granted.accountId, ttlSeconds, clock.now())
      const subject = {
        sub: access.userId,
        client_id: access.clientId,
        scope,
        role: granted.role,
        roles: granted.roles,
        account_id: granted.accountId,
        sid: access.sessionId,
        ver: access.tokenVersion,
        auth_time: Math.floor(access.authenticatedAt.getTime() / 1000),
        amr: access.amr,
        acr: isMultiFactor(access.amr) ? TWO_FACTORS : ONE_FACTOR,
        ...(audiences && { aud: audiences.length === 1 ? audiences[0] : [...audiences] }),
        ...(dpopThumbprint !== undefined && { cnf: { jkt: dpopThumbprint } }),
      }
      const accessToken = await tokens.issueAccessToken(subject, expiresInSeconds)
      return { accessToken, expiresInSeconds, scope }
    },

    /**
     * The next access and refresh token of a session; roles and scopes are read anew. The token before, presented
     * again within REFRESH_REUSE_INTERVAL_SECONDS, gets the same refresh token, so that a lost answer ends nothing;
     * an older one ends the session (RFC 9700 §4.14.2). A request that is refused for what it asks uses up no token,
     * but for `scope_too_large` without a `scope`, which roles given meanwhile can cause, and `invalid_target` without a
     * `resource`, when SERVICE_AUDIENCES has lost one of the session: name what is needed and try again.
     * @throws AppError invalid_refresh_token, whatever is wrong with the token, session, client, key or holder;
     * invalid_scope, invalid_target, account_not_found, scope_too_large
     */
    async refresh(input: Refresh): Promise<Refreshed> {
      const token = refreshTokens.read(input.token) ?? fail('invalid_refresh_token')
      const accountId = await prepareRefresh(token, input)
      const next = await rotate(token, input, accountId)
      if (!next) {
        await endIfReused(token, input)
        throw new AppError('invalid_refresh_token')
      }
      const { refreshToken, rotated } = next
      const named = scopesNamed(input.scope)
      const access = await this.issueAccessToken({
        userId: rotated.userId,
        tokenVersion: rotated.tokenVersion,
        roles: rotated.roles,
        amr: rotated.amr,
        authenticatedAt: rotated.authenticatedAt,
        secondsLeft: rotated.secondsLeft,
        sessionId: token.sessionId,
        clientId: input.clientId,
        granted: grant(
          granteeOf(rotated),
          rotated.accountId,
          named.length > 0 ? named : scopesNamed(rotated.scope),
        ),
        audiences: audiences.chosen(input.resource, rotated.audiences),
        dpopThumbprint: input.dpopThumbprint,
      })
      return {
        sessionId: token.sessionId,
        refreshToken,
        refreshExpiresInSeconds: rotated.idleSecondsLeft,
        ...access,
      }
    },

    /**
     * Notes that the caller has authenticated anew in the session, and gives a further access token of it that says so.
     * @param methods as the claim `amr` has them; they join those of the session
     * @throws AppError invalid_token when the session has ended meanwhile; invalid_target
     */
    async reauthenticate(
      caller: Caller,
      { userId, sessionId, accountId }: UserPrincipal,
      methods: readonly string[],
    ): Promise<Pick<Refreshed, 'accessToken' | 'expiresInSeconds' | 'scope'>> {
      await transact(db, async (tx) => {
        if (!(await sessions.reauthenticate(sessionId, methods, tx))) throw new AppError('invalid_token')
        await audit.append(
          {
            action: 'session.reauthenticated',
            caller,
            target: { type: 'user', id: userId },
            accountId,
            details: { session_id: sessionId, amr: methods },
          },
          tx,
        )
      })
      const session = (await sessions.findForToken(sessionId)) ?? fail('invalid_token')
      return await this.issueAccessToken({
        ...session,
        sessionId,
        granted: grant(granteeOf(session), session.accountId, scopesNamed(session.scope)),
        audiences: audiences.chosen(undefined, session.audiences),
        dpopThumbprint: session.dpopThumbprint ?? undefined,
      })
    },

    /** Whether a text is a refresh token that was ever issued under this SECRET_KEY or the one before. Reads nothing. */
    isRefreshToken(text: string): boolean {
      const token = refreshTokens.read(text)
      return token !== undefined && refreshTokens.isGenuine(token)
    },

    /** The live session of a refresh token that was issued for it, however old, of whichever client. */
    async findByRefreshToken(text: string): Promise<SessionOfToken | undefined> {
      const token = refreshTokens.read(text)
      if (!token) return undefined
      const session = await sessions.findByToken(token.sessionId, hashOf(text), limits.reuseIntervalSeconds)
      const isKnown = session?.isCurrent || session?.isPrevious || refreshTokens.isGenuine(token)
      return isKnown ? session : undefined
    },

    /** The live sessions of a person. */
    listSessions: sessions.listSessions,

    /** The same for administrators. @throws AppError user_not_found */
    async listSessionsOf(userId: string, request: PageRequest): Promise<Page<SessionRow>> {
      if (!(await users.findUser(userId))) throw new AppError('user_not_found')
      return await sessions.listSessions(userId, request)
    },

    /** Whether the session goes on. */
    isLive: async (id: string): Promise<boolean> => (await sessions.findHolderId(id)) !== undefined,

    /** Ends a session, whoever's it is; true if it was live. Whether the caller may is for who calls this. */
    async endSession(caller: Caller, id: string, reason: EndReason): Promise<boolean> {
      return await transact(db, async (tx) => {
        const ended = await sessions.endSession(id, reason, tx)
        if (ended) {
          await audit.append(
            {
              action: 'session.ended',
              caller,
              target: { type: 'user', id: ended.userId },
              accountId: ended.accountId,
              details: { session_id: id, reason },
            },
            tx,
          )
        }
        return ended !== undefined
      })
    },

    /** Signs out with a refresh token; nothing when it is none of a live session. */
    async endByRefreshToken(
      text: string,
      { requestId, address }: Pick<Refresh, 'requestId' | 'address'>,
    ): Promise<void> {
      const session = await this.findByRefreshToken(text)
      if (!session) return
      const principal = sessionHolder(session.userId, session.accountId, session.id)
      await this.endSession({ principal, requestId, address }, session.id, 'signed_out')
    },

    /** Ends one of the caller's own sessions. @throws AppError session_not_found */
    async endOwnSession(caller: Caller, { userId }: UserPrincipal, id: string): Promise<void> {
      const isOwn = (await sessions.findHolderId(id)) === userId
      if (!isOwn || !(await this.endSession(caller, id, 'ended_by_user')))
        throw new AppError('session_not_found')
    },

    /** Ends every session of the caller but the one that asks. */
    async endOtherSessions(caller: Caller, { userId, sessionId }: UserPrincipal): Promise<void> {
      await this.endSessionsOf(caller, userId, 'ended_by_user', sessionId)
    },

    /** Ends one session of somebody else. @throws AppError user_not_found, session_not_found, grant_exceeds_own */
    async endSessionOfUser(caller: Caller, userId: string, id: string): Promise<void> {
      await this.assertMayEnd(caller, userId)
      const isTheirs = (await sessions.findHolderId(id)) === userId
      if (!isTheirs || !(await this.endSession(caller, id, 'ended_by_admin')))
        throw new AppError('session_not_found')
    },

    /** Ends all sessions of somebody else. @throws AppError user_not_found, grant_exceeds_own */
    async endSessionsOfUser(caller: Caller, userId: string): Promise<void> {
      await this.assertMayEnd(caller, userId)
      await this.endSessionsOf(caller, userId, 'ended_by_admin')
    },

    /** Ending somebody's sessions is a change to the person: not of one who holds more. */
    async assertMayEnd(caller: Caller, userId: string): Promise<void> {
      if (!(await users.findUser(userId))) throw new AppError('user_not_found')
      await roles.assertCoversPerson(caller, userId)
    },

    /** Ends every session of somebody but `except`. Whether the caller may is for who calls this. */
    async endSessionsOf(caller: Caller, userId: string, reason: EndReason, except?: string): Promise<void> {
      await transact(db, async (tx) => {
        const count = await sessions.endSessionsOf(userId, reason, tx, except)
        if (count === 0) return
        await audit.append(
          {
            action: 'session.ended',
            caller,
            target: { type: 'user', id: userId },
            accountId: (await users.findUser(userId, tx))?.accountId ?? null,
            details: { sessions: count, reason },
          },
          tx,
        )
      })
    },

    /**
     * Ends every session but the caller's own, some in a transaction, so that sign-ins and refreshes are not held up. When
     * it fails half-way, the rest lives: do it again.
     * @returns how many lived
     * @throws AppError grant_exceeds_own for who does not hold all that a super admin holds
     */
    async endEverySession(caller: Caller): Promise<number> {
      const { permissions } = BUILTIN_ROLES.SUPER_ADMIN
      if (!coversPerson(caller.principal, [{ accountId: null, permissions }]))
        throw new AppError('grant_exceeds_own')
      // Twice: a process whose clock is behind may meanwhile have begun sessions with ids that were passed already.
      return (await endInOrder(caller)) + (await endInOrder(caller))
    },

    prune: sessions.prune,
  }
}
