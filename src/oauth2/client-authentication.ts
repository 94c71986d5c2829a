import type { AuditRepository } from '../audit/repository.ts'
import type { Throttle } from '../auth/throttle.ts'
import { FIRST_PARTY_CLIENT } from '../auth/tokens.ts'
import type { Client, ClientsInUse } from '../clients/in-use.ts'
import type { Clock } from '../clock.ts'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import type { Form } from './form.ts'
import { readJws } from './jws.ts'
import { TOKEN_ENDPOINT } from './metadata.ts'
import type { OAuth2Repository } from './repository.ts'

/** A request of a client to one of the OAuth endpoints. */
export type ClientRequest = {
  form: Form
  authorization: string | undefined
  /** The URL of the endpoint, as an assertion may name it. */
  endpoint: string
  requestId: string
  address: string
}

/** What a client shows to prove who it is; one of these. */
type Credentials =
  | { method: 'client_secret_basic' | 'client_secret_post'; clientId: string; secret: string }
  | { method: 'private_key_jwt'; clientId: string; assertion: string }
  | { method: 'none'; clientId: string }

const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
const MAX_ASSERTION_LIFE_SECONDS = 300
const SKEW_SECONDS = 60
const LONGEST_JTI = 256

type Dependencies = {
  clients: ClientsInUse
  repository: OAuth2Repository
  throttle: Throttle
  audit: AuditRepository
  issuer: string
  /** The audience of this service itself. */
  audience: string
  clock: Clock
}

/** Tells clients by their credentials (RFC 6749 §2.3, RFC 7523 §3). */
export function createClientAuthentication(dependencies: Dependencies) {
  const { clients, repository, throttle, audit, issuer, audience, clock } = dependencies
  const firstParty: Client = {
    id: FIRST_PARTY_CLIENT,
    environmentId: DEFAULT_ENVIRONMENT,
    authMethod: 'none',
    grantTypes: new Set(['refresh_token']),
    scopes: [],
    audiences: [audience],
    keys: [],
    isDpopRequired: false,
    accountId: null,
    isActive: true,
    tokenVersion: 1,
    hasSecret: () => false,
  }

  async function prove(credentials: Credentials, { endpoint }: ClientRequest): Promise<Client | undefined> {
    const { clientId } = credentials
    const client = clientId === FIRST_PARTY_CLIENT ? firstParty : await clients.find(clientId)
    if (!client?.isActive || !isAllowed(credentials.method, client)) return undefined
    switch (credentials.method) {
      case 'none':
        return client
      case 'private_key_jwt':
        return (await isAuthentic(credentials.assertion, client, endpoint)) ? client : undefined
      default:
        return client.hasSecret(credentials.secret) ? client : undefined
    }
  }

  /** RFC 7523 §3. An assertion is for this service alone, short-lived, and taken once. */
  async function isAuthentic(assertion: string, client: Client, endpoint: string): Promise<boolean> {
    const jws = readJws(assertion)
    if (!jws) return false
    const { kid } = jws.header
    const candidates = client.keys.filter((key) => kid === undefined || key.kid === kid)
    const [key, ...others] = candidates
    if (!key || others.length > 0 || !jws.isSignedWith(key)) return false
    const { iss, sub, aud, exp, nbf, iat, jti } = jws.payload
    const now = clock.now().getTime() / 1000
    const target = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud
    const isMeant = target === issuer || target === `${issuer}${TOKEN_ENDPOINT}` || target === endpoint
    if (iss !== client.id || sub !== client.id || !isMeant) return false
    if (typeof exp !== 'number' || exp <= now || exp > now + MAX_ASSERTION_LIFE_SECONDS) return false
    for (const begin of [nbf, iat])
      if (begin !== undefined && (typeof begin !== 'number' || begin > now + SKEW_SECONDS)) return false
    if (typeof jti !== 'string' || jti === '' || jti.length > LONGEST_JTI) return false
    return await repository.useOnce('client_assertion', `${client.id}|${jti}`, new Date(exp * 1000))
  }

  /**
   * Counts and records a failure, and refuses. A right secret is never refused for the wrong ones of others: it has 256
   * random bits, so that nobody comes nearer to it by trying.
   */
  async function refuse(credentials: Credentials | undefined, request: ClientRequest): Promise<never> {
    const client = credentials && (await clients.find(credentials.clientId))
    const name = client?.id ?? 'unknown'
    const from = throttle.addressKey(request.address)
    const refused = async (): Promise<never> => {
      const details = { method: credentials?.method ?? null }
      await record(request, `client|${name}|${from}`, details, client?.id)
      return fail('invalid_client')
    }
    try {
      return await throttle.attempt(name, request.address, refused, { isGuessable: false })
    } catch (error) {
      // As of people: one row for what one subscriber holds of the addresses, and minute.
      if (error instanceof AppError && error.code === 'too_many_requests')
        await record(request, `address|${from}`, { reason: 'throttled' })
      throw error
    }
  }

  async function record(
    { requestId, address }: ClientRequest,
    repeatOf: string,
    details: Record<string, unknown>,
    clientId?: string,
  ): Promise<void> {
    await audit.appendRefusal(
      {
        action: 'client.refused',
        caller: { principal: undefined, requestId, address },
        ...(clientId !== undefined && { target: { type: 'client', id: clientId } }),
        details,
      },
      throttle.pseudonym(repeatOf),
      clock.now(),
    )
  }

  return {
    /**
     * The client that a request comes from, by exactly one way of authentication.
     * @throws AppError invalid_request for more than one way, invalid_client for every other failure alike,
     * too_many_requests
     */
    async authenticate(request: ClientRequest): Promise<Client> {
      const credentials = credentialsOf(request)
      if (!credentials) throw new AppError('invalid_client')
      return (await prove(credentials, request)) ?? (await refuse(credentials, request))
    },
  }
}

/** Whoever has a secret may send it as RFC 6749 §2.3.1 prefers; in the form only who was registered for that. */
function isAllowed(method: Credentials['method'], { authMethod }: Client): boolean {
  return method === authMethod || (method === 'client_secret_basic' && authMethod === 'client_secret_post')
}

/** What the request shows; `undefined` for nothing that we could look at. @throws AppError invalid_request */
function credentialsOf({ form, authorization }: ClientRequest): Credentials | undefined {
  const [clientId, secret] = [form.get('client_id'), form.get('client_secret')]
  const assertion = form.get('client_assertion')
  if ([authorization, secret, assertion].filter((shown) => shown !== undefined).length > 1)
    throw new AppError('invalid_request', { detail: 'The client authenticates in more than one way' })
  const shown =
    authorization !== undefined
      ? basic(authorization)
      : assertion !== undefined
        ? asserted(assertion, form)
        : undefined
  if (shown) {
    if (clientId !== undefined && clientId !== shown.clientId)
      throw new AppError('invalid_request', {
        detail: 'The client_id is another than that of the credentials',
      })
    return shown
  }
  if (authorization !== undefined || assertion !== undefined || clientId === undefined) return undefined
  return secret === undefined
    ? { method: 'none', clientId }
    : { method: 'client_secret_post', clientId, secret }
}

/** RFC 6749 §2.3.1: id and secret are each form-encoded before they are joined. */
function basic(authorization: string): Credentials | undefined {
  const encoded = /^basic +([A-Za-z0-9+/]+=*)$/i.exec(authorization)?.[1]
  if (encoded === undefined) return undefined
  const pair = Buffer.from(encoded, 'base64').toString('utf8')
  const colon = pair.indexOf(':')
  const [clientId, secret] = [formDecoded(pair.slice(0, colon)), formDecoded(pair.slice(colon + 1))]
  if (colon < 1 || clientId === undefined || secret === undefined) return undefined
  return { method: 'client_secret_basic', clientId, secret }
}

function formDecoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return undefined
  }
}

/** RFC 7523 §2.2: the client is the subject of its assertion. */
function asserted(assertion: string, form: Form): Credentials | undefined {
  const subject = readJws(assertion)?.payload['sub']
  if (form.get('client_assertion_type') !== ASSERTION_TYPE || typeof subject !== 'string') return undefined
  return { method: 'private_key_jwt', clientId: subject, assertion }
}
