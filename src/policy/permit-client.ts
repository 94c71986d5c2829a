import { performance } from 'node:perf_hooks'
import type { Permit } from 'permitio'
import type { Config } from '../config.ts'
import { StartupError } from '../errors.ts'
import { type CircuitBreaker, CircuitOpenError, createCircuitBreaker } from './circuit-breaker.ts'

/** Why Permit did not do what was asked of it. */
export type PermitFault =
  | 'timeout'
  | 'unreachable'
  | 'unauthorized'
  | 'rate_limited'
  | 'server_error'
  | 'invalid_answer'
  | 'refused'
  | 'left_alone'

/** Permit did not answer, or not in a way that can be relied on. */
export class PermitUnavailableError extends Error {
  override readonly name = 'PermitUnavailableError'
  readonly fault: PermitFault
  readonly retryAfterSeconds: number

  constructor(fault: PermitFault, retryAfterSeconds: number, cause: unknown) {
    super(`Permit is not available: ${fault.replaceAll('_', ' ')}`, { cause })
    this.fault = fault
    this.retryAfterSeconds = retryAfterSeconds
  }
}

/** Permit answered that it will not: the status, and what its management API said. */
export class PermitRefusalError extends Error {
  override readonly name = 'PermitRefusalError'
  readonly status: number

  constructor(status: number, message: string, cause: unknown) {
    super(`Permit refused with ${status}: ${message || 'it does not say why'}`, { cause })
    this.status = status
  }
}

/** An answer of the PDP that is not one. */
export class InvalidAnswerError extends Error {
  override readonly name = 'InvalidAnswerError'
}

/** The two services of Permit: the one that decides, and the one that keeps users, roles and policy. */
export type PermitService = 'pdp' | 'api'

export type PermitClient = ReturnType<typeof createPermitClient>

type Dependencies = {
  config: Config['permit']
  /** Hears of each call that failed. */
  onFault: (service: PermitService, fault: PermitFault, error: unknown) => void
  /** The package, which is loaded only where it is used. */
  importPackage?: () => Promise<{ Permit: typeof Permit }>
}

/** Calls of the management API come from the background, so that they may take longer than a decision. */
const API_TIMEOUT_MS = 5000
const LARGEST_ANSWER = 16 * 1024 * 1024

/**
 * The official SDK behind a time limit and a circuit breaker for each service. Nothing is connected or loaded until
 * the first call, or `load`.
 */
export function createPermitClient({
  config,
  onFault,
  importPackage = async () => await import('permitio'),
}: Dependencies) {
  const breaker = (): CircuitBreaker =>
    createCircuitBreaker({
      failures: config.breakerFailures,
      openMs: config.breakerOpenMs,
      now: () => performance.now(),
    })
  const breakers: Record<PermitService, CircuitBreaker> = { pdp: breaker(), api: breaker() }
  let loading: Promise<Permit> | undefined
  let lastApiStatus: number | undefined

  async function loaded(): Promise<Permit> {
    loading ??= load().catch((error: unknown) => {
      loading = undefined
      throw error
    })
    return await loading
  }

  async function load(): Promise<Permit> {
    const { Permit } = await importPackage().catch((error: unknown) => {
      if (isMissing(error)) {
        throw new StartupError(
          'Permit is chosen, but its SDK is not installed: run "npm install --no-save --save-prod --omit=dev permitio@2" (for a container, build the image with --build-arg PERMIT_SDK=permitio@2), or set POLICY_ENGINE, POLICY_GUARD and POLICY_SHADOW to something else than permit.',
          { cause: error },
        )
      }
      throw error
    })
    const permit = new Permit({
      token: config.apiKey ?? '',
      pdp: config.pdpUrl,
      apiUrl: config.apiUrl,
      // Its log would hold the attributes of people.
      log: { level: 'silent', json: false },
      multiTenancy: { useDefaultTenantIfEmpty: false },
      timeout: config.timeoutMs,
      throwOnError: true,
      retry: false,
      pdpRetry: false,
    })
    Object.assign(permit.config.axiosInstance.defaults, {
      timeout: API_TIMEOUT_MS,
      maxRedirects: 0,
      maxContentLength: LARGEST_ANSWER,
    })
    // When the SDK asks what the key opens and fails, its error does not say why.
    permit.config.axiosInstance.interceptors.response.use(undefined, async (error: unknown) => {
      const { response } = error as { response?: { status?: number } }
      lastApiStatus = response?.status
      return await Promise.reject(error)
    })
    return permit
  }

  async function run<T>(
    service: PermitService,
    limitMs: number,
    call: (permit: Permit) => Promise<T>,
  ): Promise<T> {
    const permit = await loaded()
    try {
      const outcome = await breakers[service].run(
        async () => {
          try {
            return { result: await within(limitMs, async () => await call(permit)) }
          } catch (error) {
            const status = service === 'api' ? statusOf(error) : statusInMessage(error)
            if (status !== undefined && isRefusal[service](status)) return { refused: status, error }
            throw error
          }
        },
        // What does not take a request may be a proxy in front of the service.
        (outcome) => !('refused' in outcome && NOT_TAKEN.includes(outcome.refused)),
      )
      if (!('refused' in outcome)) return outcome.result
      if (service === 'pdp') onFault(service, 'refused', outcome.error)
      throw new PermitRefusalError(outcome.refused, messageOf(outcome.error), outcome.error)
    } catch (error) {
      if (error instanceof PermitRefusalError) throw error
      const fault = faultOf(error, isOfScope(error) ? lastApiStatus : undefined)
      onFault(service, fault, error)
      const waitMs = breakers[service].waitMs()
      throw new PermitUnavailableError(fault, Math.max(1, Math.ceil(waitMs / 1000)), error)
    }
  }

  return {
    /** Loads the SDK. @throws StartupError when it is not installed */
    load: async (): Promise<void> => void (await loaded()),

    /** Asks the PDP. @throws PermitUnavailableError, PermitRefusalError when it does not take the question */
    ask: async <T>(call: (permit: Permit) => Promise<T>): Promise<T> =>
      await run('pdp', config.timeoutMs, call),

    /** Calls the management API, which the first time also asks what the key opens. @throws PermitUnavailableError, PermitRefusalError */
    manage: async <T>(call: (permit: Permit) => Promise<T>): Promise<T> =>
      await run('api', 2 * API_TIMEOUT_MS, call),

    /** Where the breakers stand, for the metrics. */
    state: () => ({ pdp: breakers.pdp.state(), api: breakers.api.state() }),
  }
}

/** The result of `call`, or a failure after `ms`: an HTTP client's own limit does not end a body that trickles in. */
async function within<T>(ms: number, call: () => Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timeout of ${ms}ms exceeded`)), ms)
  })
  try {
    return await Promise.race([call(), limit])
  } finally {
    clearTimeout(timer)
  }
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'ERR_MODULE_NOT_FOUND'

/** Statuses of a request that is at fault itself. */
const NOT_TAKEN: readonly number[] = [400, 413, 422]

/**
 * Statuses that say something about the request, and nothing about the state of the service or our key. The PDP has few:
 * its paths are always the same, so that one which is not there is its fault, and what it is asked is the caller's.
 */
const isRefusal: Record<PermitService, (status: number) => boolean> = {
  api: (status) => status >= 400 && status < 500 && ![401, 403, 408, 429].includes(status),
  pdp: (status) => NOT_TAKEN.includes(status),
}

/** The status that an error of the SDK's management API carries. */
function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('originalError' in error)) return undefined
  const { response } = error.originalError as { response?: { status?: unknown } }
  return typeof response?.status === 'number' ? response.status : undefined
}

/** The status that the SDK only writes into the message of an error of the PDP. */
function statusInMessage(error: unknown): number | undefined {
  const [, status] = /status code:? (\d{3})/.exec(messageOf(error)) ?? []
  return status === undefined ? undefined : Number(status)
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const isOfScope = (error: unknown): boolean => messageOf(error).includes('api key scope')

function faultOf(error: unknown, knownStatus: number | undefined): PermitFault {
  if (error instanceof CircuitOpenError) return 'left_alone'
  if (error instanceof InvalidAnswerError) return 'invalid_answer'
  const status = knownStatus ?? statusOf(error) ?? statusInMessage(error)
  if (status === 401 || status === 403) return 'unauthorized'
  if (status === 429) return 'rate_limited'
  if (status !== undefined) return status >= 500 ? 'server_error' : 'invalid_answer'
  const message = messageOf(error)
  if (message.includes('timeout')) return 'timeout'
  return /ECONN|ENOTFOUND|EHOSTUNREACH|ENETUNREACH|EAI_AGAIN|EPIPE|socket|hang up|api key scope/i.test(
    message,
  )
    ? 'unreachable'
    : 'invalid_answer'
}
