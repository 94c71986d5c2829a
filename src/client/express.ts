import type { IncomingMessage } from 'node:http'
import { assertAuthentication, assertScope, claimsOf, errorOf } from './authorization.ts'
import type { Claims } from './claims.ts'
import type { NeededAuthentication } from './errors.ts'
import type { Verifier } from './verifier.ts'

/** What the middleware needs of a request; Express's fits, and so do those of Connect and its kin. */
export type GuardedRequest = IncomingMessage & {
  originalUrl?: string
  protocol?: string
  /** The claims of the verified token, once a guard has run. */
  auth?: Claims
}

type Next = (error?: unknown) => void

export type Middleware<Request extends GuardedRequest = GuardedRequest> = (
  request: Request,
  response: unknown,
  next: Next,
) => void

export type ExpressOptions = {
  /** The URL by which clients call this service, for tokens bound to a key (DPoP). Default: the Host header's. */
  publicUrl?: string
}

/**
 * Middleware for Express: `requireToken`, and `requireScope(scope, { account })`, which puts the claims on `request.auth`.
 * A refusal goes to `next` with `status` and `headers`, which Express answers with.
 */
export function createGuards<Request extends GuardedRequest = GuardedRequest>(
  verifier: Verifier,
  { publicUrl }: ExpressOptions = {},
) {
  const baseOf = ({ protocol = 'http', headers }: Request): string =>
    publicUrl ?? `${protocol}://${headers.host}`

  /** Of requests that a guard has verified. A second guard must not ask for a second proof, and trusts nobody else. */
  const verified = new WeakMap<Request, Claims>()

  async function authenticate(request: Request): Promise<Claims> {
    const known = verified.get(request)
    if (known) return known
    const { headers, method = 'GET', originalUrl, url } = request
    const claims = await claimsOf(verifier, {
      authorization: headers.authorization,
      dpop: headers['dpop'],
      method,
      url: () => `${baseOf(request)}${originalUrl ?? url ?? '/'}`,
    })
    verified.set(request, claims)
    return claims
  }

  const guard =
    (check: (claims: Claims, request: Request) => void | Promise<void>): Middleware<Request> =>
    (request, _response, next) => {
      const admit = async (): Promise<void> => {
        const claims = await authenticate(request)
        request.auth = claims
        await check(claims, request)
      }
      // `next` stays out of the chain: what it throws is not a refusal.
      admit().then(
        () => next(),
        (error: unknown) => next(errorOf(error)),
      )
    }

  return {
    requireToken: guard(() => {}),
    /** Lets in whoever has authenticated so; alone or beside `requireScope`. */
    requireAuthentication: (needed: NeededAuthentication): Middleware<Request> =>
      guard((claims) => assertAuthentication(claims, needed)),
    /**
     * `account` says which account the request is about: the scope must be held there, or everywhere. Absent: the scope
     * must be held at all, and the handler filters by `request.auth.account_id`.
     */
    requireScope: (
      scope: string,
      { account }: { account?: (request: Request) => string | null | Promise<string | null> } = {},
    ): Middleware<Request> =>
      guard(async (claims, request) => assertScope(claims, scope, account && (await account(request)))),
  }
}
