import { isObject } from './compact.ts'
import { PosternError } from './errors.ts'

/** Who acts for the subject of a token (RFC 8693 §4.1). */
export type Actor = { readonly sub: string; readonly ver?: number; readonly act?: Actor }

/** The claims of a verified access token (RFC 9068 §2.2). Frozen, because a token that comes again has the same ones. */
export type Claims = {
  readonly iss: string
  readonly sub: string
  readonly aud: string | readonly string[]
  readonly client_id: string
  readonly exp: number
  readonly iat: number
  readonly jti: string
  /** Permissions, separated by spaces; see `hasScope`. */
  readonly scope: string
  /** The account that the token is for; null: none. */
  readonly account_id: string | null
  /** The session of a person. */
  readonly sid?: string
  readonly ver?: number
  /** When, how and how strongly a person was authenticated last; see `assertAuthentication`. */
  readonly auth_time?: number
  readonly amr?: readonly string[]
  readonly acr?: string
  readonly role?: string
  readonly roles?: readonly string[]
  readonly act?: Actor
  readonly cnf?: { readonly jkt?: string }
  readonly [claim: string]: unknown
}

export type Expectation = {
  issuer: string
  audiences: readonly string[]
  toleranceSeconds: number
}

const invalid = (claim: string): PosternError =>
  new PosternError('claim_invalid', `The claim ${claim} is not the expected one`)

const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''
const isTime = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value)
const isVersion = (value: unknown): boolean => value === undefined || Number.isSafeInteger(value)

/** Actors of actors: nobody needs more, and nothing may be nested without end. */
const MOST_ACTORS = 8

/**
 * The claims of a payload whose signature is good (RFC 9068 §4, RFC 7519 §4.1), which it freezes; `now` in seconds.
 * @throws PosternError claim_invalid, token_expired, token_not_yet_valid
 */
export function checkClaims(payload: Record<string, unknown>, expected: Expectation, now: number): Claims {
  const { iss, aud, exp, iat, nbf, scope = '', account_id = null, sid, ver, cnf } = payload
  if (iss !== expected.issuer) throw invalid('iss')
  const audiences = Array.isArray(aud) ? aud : [aud]
  if (!audiences.every(isText) || !audiences.some((one) => expected.audiences.includes(one)))
    throw invalid('aud')
  for (const claim of ['sub', 'client_id', 'jti']) if (!isText(payload[claim])) throw invalid(claim)
  if (!isTime(exp)) throw invalid('exp')
  if (!isTime(iat)) throw invalid('iat')
  if (nbf !== undefined && !isTime(nbf)) throw invalid('nbf')
  if (typeof scope !== 'string') throw invalid('scope')
  if (account_id !== null && !isText(account_id)) throw invalid('account_id')
  if (sid !== undefined && !isText(sid)) throw invalid('sid')
  if (!isVersion(ver)) throw invalid('ver')
  const { auth_time, amr, acr } = payload
  if (auth_time !== undefined && !isTime(auth_time)) throw invalid('auth_time')
  if (amr !== undefined && !(Array.isArray(amr) && amr.every(isText))) throw invalid('amr')
  if (acr !== undefined && !isText(acr)) throw invalid('acr')
  if (cnf !== undefined && !isConfirmation(cnf)) throw invalid('cnf')
  if (!isActor(payload['act'], MOST_ACTORS)) throw invalid('act')
  if (exp + expected.toleranceSeconds <= now) throw new PosternError('token_expired', 'The token has expired')
  if (Math.max(iat, nbf ?? iat) > now + expected.toleranceSeconds)
    throw new PosternError('token_not_yet_valid', 'The token is not valid yet')
  // What has just been looked at is what the type says.
  payload['scope'] = scope
  payload['account_id'] = account_id
  return frozen(payload) as Claims
}

/** A binding that is of a kind we cannot check must not be ignored (RFC 7800 §3.1). */
const isConfirmation = (value: unknown): boolean => isObject(value) && isText(value['jkt'])

function isActor(value: unknown, most: number): boolean {
  if (value === undefined) return true
  return (
    most > 0 &&
    isObject(value) &&
    isText(value['sub']) &&
    isVersion(value['ver']) &&
    isActor(value['act'], most - 1)
  )
}

function frozen<T extends object>(value: T): T {
  for (const name in value) {
    const one: unknown = value[name]
    if (typeof one === 'object' && one !== null) frozen(one)
  }
  return Object.freeze(value)
}

const scopesOf = new WeakMap<Claims, ReadonlySet<string>>()

/** The single scopes of a token. */
function scopesIn(claims: Claims): ReadonlySet<string> {
  const known = scopesOf.get(claims)
  if (known) return known
  const scopes = new Set(claims.scope.split(' ').filter((one) => one !== ''))
  scopesOf.set(claims, scopes)
  return scopes
}

/**
 * Whether a token may do `scope` in `account`: it holds `scope` with the suffix `:any`, or `scope` itself and is for that
 * account. Without an account: whether it holds the scope at all, so that what it is used on must be filtered by
 * `claims.account_id`. An `account` that is null is no account: only `:any` reaches it.
 */
export function hasScope(claims: Claims, scope: string, account?: string | null): boolean {
  const scopes = scopesIn(claims)
  const isHere = account === undefined || (account !== null && account === claims.account_id)
  return (isHere && scopes.has(scope)) || scopes.has(`${scope}:any`)
}
