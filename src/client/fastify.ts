import type { FastifyPluginAsync, FastifyRequest, onRequestHookHandler, preHandlerHookHandler } from 'fastify'
import { assertAuthentication, assertScope, claimsOf, errorOf } from './authorization.ts'
import type { Claims } from './claims.ts'
import type { NeededAuthentication } from './errors.ts'
import { createVerifier, type Verifier, type VerifierOptions } from './verifier.ts'

export type PosternPluginOptions = (VerifierOptions | { verifier: Verifier }) & {
  /** The URL by which clients call this service, for tokens bound to a key (DPoP). Default: the Host header's. */
  publicUrl?: string
}

export type ScopeOptions = {
  /**
   * The account of what the request is about: the scope must be held there, or everywhere. Absent: the scope must be held
   * at all, and the handler filters by `request.auth.account_id`.
   */
  account?: (request: FastifyRequest) => string | null | Promise<string | null>
}

declare module 'fastify' {
  interface FastifyRequest {
    /** The claims of the verified token; null before a guard has run. */
    auth: Claims | null
  }
  interface FastifyInstance {
    /** Lets in whoever has a good token. A hook for `onRequest`, before the body is read. */
    requireToken: onRequestHookHandler
    /** Lets in whoever's token holds the scope. A hook for `onRequest`; for `preHandler` when `account` reads the body. */
    requireScope(scope: string, options?: ScopeOptions): preHandlerHookHandler
    /** Lets in whoever has authenticated so. For `onRequest` or `preHandler`, alone or beside `requireScope`. */
    requireAuthentication(needed: NeededAuthentication): preHandlerHookHandler
    postern: Verifier
  }
}

const plugin: FastifyPluginAsync<PosternPluginOptions> = async (app, options) => {
  const isOwn = !('verifier' in options)
  const verifier = isOwn ? createVerifier(options) : options.verifier
  if (isOwn) app.addHook('onClose', async () => await verifier.close())
  const { publicUrl } = options

  const urlOf = ({ protocol, host, url }: FastifyRequest): string =>
    `${publicUrl ?? `${protocol}://${host}`}${url}`

  /** Of requests that a guard has verified. A second guard must not ask for a second proof, and trusts nobody else. */
  const verified = new WeakMap<FastifyRequest, Claims>()

  function authenticate(request: FastifyRequest): Claims | Promise<Claims> {
    const known = verified.get(request)
    if (known) return known
    const { headers, method } = request
    return claimsOf(verifier, {
      authorization: headers.authorization,
      dpop: headers['dpop'],
      method,
      url: () => urlOf(request),
    })
  }

  type Check = (claims: Claims, request: FastifyRequest) => void | Promise<void>

  function admit(request: FastifyRequest, claims: Claims, check: Check): void | Promise<void> {
    verified.set(request, claims)
    request.auth = claims
    return check(claims, request)
  }

  /** Runs `check` on the claims, without a promise where none is needed: most tokens have been seen before. */
  const guard =
    (check: Check): preHandlerHookHandler =>
    (request, _reply, done) => {
      let checked: void | Promise<void>
      try {
        const claims = authenticate(request)
        checked =
          claims instanceof Promise
            ? claims.then((found) => admit(request, found, check))
            : admit(request, claims, check)
      } catch (error) {
        return done(errorOf(error))
      }
      // `done` stays out of what is caught: what it throws is not a refusal.
      if (checked === undefined) return done()
      checked.then(
        () => done(),
        (error: unknown) => done(errorOf(error)),
      )
    }

  app.decorateRequest('auth', null)
  app.decorate('postern', verifier)
  app.decorate(
    'requireToken',
    guard(() => undefined),
  )
  app.decorate('requireScope', (scope: string, { account }: ScopeOptions = {}) =>
    account === undefined
      ? guard((claims) => assertScope(claims, scope))
      : guard(async (claims, request) => assertScope(claims, scope, await account(request))),
  )
  app.decorate('requireAuthentication', (needed: NeededAuthentication) =>
    guard((claims) => assertAuthentication(claims, needed)),
  )
  await Promise.race([verifier.ready().catch(() => {}), shortWait()])
}

const LONGEST_START_WAIT_MS = 2000

const shortWait = async (): Promise<void> =>
  await new Promise((resolve) => setTimeout(resolve, LONGEST_START_WAIT_MS).unref())

/**
 * Decorates the application with `requireScope`, `requireToken` and `postern`, and requests with `auth`. Reads keys and
 * revocations before the application is ready; a Postern that is away delays no start, it is then asked again.
 */
export const postern: FastifyPluginAsync<PosternPluginOptions> = Object.assign(plugin, {
  // What the package fastify-plugin does: the decorators are for the whole application, not for a scope of their own.
  [Symbol.for('skip-override')]: true,
  [Symbol.for('fastify.display-name')]: 'postern-client',
  [Symbol.for('plugin-meta')]: { name: 'postern-client', fastify: '5.x' },
})
