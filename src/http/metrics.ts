import { timingSafeEqual } from 'node:crypto'
import { createRequire } from 'node:module'
import plugin from 'fastify-plugin'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { AuditChain } from '../audit/chain.ts'
import type { SignInOutcome } from '../auth/sign-in.ts'
import type { GrantType } from '../clients/repository.ts'
import { AppError } from '../errors.ts'
import type { MirrorRepository } from '../jobs/mirror-repository.ts'
import type { Jobs } from '../jobs/service.ts'
import type { MailOutcome } from '../mail/service.ts'
import type { PermitState } from '../policy/engines.ts'
import type { Outbox } from '../webhooks/outbox.ts'
import { problem } from './schemas.ts'

/** Connections of the pool, by what they do. */
export type PoolState = { totalCount: number; idleCount: number; waitingCount: number }

export type Metrics = ReturnType<typeof createMetrics>

/** What the decisions of this process have come to, and how their cache does. */
export type PolicyState = {
  allowed: number
  refused: number
  unlogged: number
  isBehind: boolean
  isListening: boolean
  stalenessSeconds: number
  kinds: readonly { kind: string; entries: number; hits: number; misses: number }[]
}

let ofProcess: Registry | undefined

/** Memory, event loop and the like: what measures them works for the process and never ends, so it is there once. */
function processRegistry(): Registry {
  if (ofProcess) return ofProcess
  ofProcess = new Registry()
  for (const name of collectDefaultMetrics.metricsList) {
    if (name !== 'gc')
      defaultMetric(name)(ofProcess, { prefix: 'postern_', eventLoopMonitoringPrecision: 10 })
  }
  return ofProcess
}

type DefaultMetric = (
  register: Registry,
  options: { prefix: string; eventLoopMonitoringPrecision: number },
) => void

/**
 * One of the library's metrics of a process. It offers them only all together, with that of garbage collections: for
 * each, Node leaves 3 to 4 KB until the next full one, most of what under load leads to it.
 */
const defaultMetric = (name: string): DefaultMetric =>
  createRequire(import.meta.url)(`prom-client/lib/metrics/${name}.js`)

/** The metrics of the services (Prometheus), named `postern_<noun>_<unit>`. */
export function createMetrics(pool: PoolState) {
  const registry = new Registry()
  const requests = new Histogram({
    name: 'postern_http_request_duration_seconds',
    help: 'Time from the first byte of a request to the last of its answer',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
    registers: [registry],
  })
  const signIns = new Counter({
    name: 'postern_sign_ins_total',
    help: 'Sign-ins by outcome',
    labelNames: ['outcome'],
    registers: [registry],
  })
  for (const outcome of [
    'success',
    'challenged',
    'refused',
    'throttled',
    'busy',
    'error',
  ] satisfies SignInOutcome[]) {
    signIns.inc({ outcome }, 0)
  }
  const tokenRequests = new Counter({
    name: 'postern_token_requests_total',
    help: 'Requests for tokens at /oauth2/token by grant type and outcome',
    labelNames: ['grant_type', 'outcome'],
    registers: [registry],
  })
  const deliveries = new Counter({
    name: 'postern_webhook_deliveries_total',
    help: 'Tries to send an event to a webhook, by how they ended',
    labelNames: ['outcome'],
    registers: [registry],
  })
  const mails = new Counter({
    name: 'postern_mails_total',
    help: 'Mails by what became of them; delayed: a try that is repeated',
    labelNames: ['outcome'],
    registers: [registry],
  })
  for (const outcome of ['sent', 'delayed', 'refused', 'given_up', 'expired'] satisfies MailOutcome[]) {
    mails.inc({ outcome }, 0)
  }
  new Gauge({
    name: 'postern_database_connections',
    help: 'Connections to Postgres, and requests that wait for one',
    labelNames: ['state'],
    registers: [registry],
    collect() {
      this.set({ state: 'idle' }, pool.idleCount)
      this.set({ state: 'busy' }, pool.totalCount - pool.idleCount)
      this.set({ state: 'waiting' }, pool.waitingCount)
    },
  })
  return {
    registry,
    onSignIn: (outcome: SignInOutcome): void => signIns.inc({ outcome }),
    onWebhookDelivery: (outcome: 'delivered' | 'retried' | 'failed'): void => deliveries.inc({ outcome }),
    onMail: (outcome: MailOutcome): void => mails.inc({ outcome }),
    onTokenRequest: (grantType: GrantType, outcome: 'issued' | 'refused'): void =>
      tokenRequests.inc({ grant_type: grantType, outcome }),
    onResponse: (method: string, route: string, status: number, seconds: number): void =>
      requests.observe({ method, route, status }, seconds),
  }
}

/** The metrics of decisions, read when they are asked for: a decision takes microseconds, and counts only. */
export function observePolicy({ registry }: Metrics, state: () => PolicyState): void {
  const registers = [registry]
  new Counter({
    name: 'postern_policy_decisions_total',
    help: 'Decisions by outcome',
    labelNames: ['allowed'],
    registers,
    collect() {
      const { allowed, refused } = state()
      this.reset()
      this.inc({ allowed: 'true' }, allowed)
      this.inc({ allowed: 'false' }, refused)
    },
  })
  new Counter({
    name: 'postern_policy_decisions_unlogged_total',
    help: 'Decisions that could not be written to the decision log',
    registers,
    collect() {
      this.reset()
      this.inc(state().unlogged)
    },
  })
  new Counter({
    name: 'postern_policy_cache_lookups_total',
    help: 'Lookups of facts by kind and outcome',
    labelNames: ['kind', 'outcome'],
    registers,
    collect() {
      this.reset()
      for (const { kind, hits, misses } of state().kinds) {
        this.inc({ kind, outcome: 'hit' }, hits)
        this.inc({ kind, outcome: 'miss' }, misses)
      }
    },
  })
  new Gauge({
    name: 'postern_policy_cache_entries',
    help: 'Facts that are kept at hand, by kind',
    labelNames: ['kind'],
    registers,
    collect() {
      for (const { kind, entries } of state().kinds) this.set({ kind }, entries)
    },
  })
  new Gauge({
    name: 'postern_policy_staleness_seconds',
    help: 'Time since the database last told what has changed',
    registers,
    collect() {
      this.set(state().stalenessSeconds)
    },
  })
  new Gauge({
    name: 'postern_policy_behind',
    help: '1 when a change of this process itself may not be known to its cache',
    registers,
    collect() {
      this.set(state().isBehind ? 1 : 0)
    },
  })
  new Gauge({
    name: 'postern_policy_listening',
    help: '1 when Postgres tells of changes by NOTIFY, 0 when they are polled for',
    registers,
    collect() {
      this.set(state().isListening ? 1 : 0)
    },
  })
}

/** The metrics of the chain of the audit trail: how far its sealing is behind. */
export function observeAuditChain({ registry }: Metrics, { backlog }: Pick<AuditChain, 'backlog'>): void {
  const registers = [registry]
  new Gauge({
    name: 'postern_audit_unsealed_events',
    help: 'Events of the audit trail that are not in its chain yet; NaN while the database does not answer',
    registers,
    async collect() {
      const { count } = (await backlog().catch(() => undefined)) ?? { count: Number.NaN }
      this.set(count)
    },
  })
  new Gauge({
    name: 'postern_audit_unsealed_oldest_seconds',
    help: 'How long the oldest of them waits; refusals wait two minutes',
    registers,
    async collect() {
      const found = await backlog().catch(() => undefined)
      this.set(found ? ageSeconds(found.oldestAt ?? undefined) : Number.NaN)
    },
  })
}

type PermitSource = { state: () => PermitState; jobs: Pick<MirrorRepository, 'queueState'> }

/** The metrics of Permit: how it answers, what stands in for it, and how far what is stored has been mirrored to it. */
export function observePermit({ registry }: Metrics, { state, jobs }: PermitSource): void {
  const registers = [registry]
  new Counter({
    name: 'postern_permit_faults_total',
    help: 'Calls of Permit that failed, by service and reason',
    labelNames: ['service', 'fault'],
    registers,
    collect() {
      this.reset()
      for (const { service, fault, count } of state().faults) this.inc({ service, fault }, count)
    },
  })
  new Gauge({
    name: 'postern_permit_breaker',
    help: '0: Permit is called; 0.5: one call tries it; 1: it is left alone after failures',
    labelNames: ['service'],
    registers,
    collect() {
      const heights = { closed: 0, half_open: 0.5, open: 1 }
      const { pdp, api } = state().breakers
      this.set({ service: 'pdp' }, heights[pdp])
      this.set({ service: 'api' }, heights[api])
    },
  })
  new Counter({
    name: 'postern_policy_fallbacks_total',
    help: 'Answers that were given without Permit, which did not answer',
    registers,
    collect() {
      this.reset()
      this.inc(state().fallbacks)
    },
  })
  new Counter({
    name: 'postern_policy_shadow_total',
    help: 'Answers of the shadow engine, compared with those that were given',
    labelNames: ['outcome'],
    registers,
    collect() {
      this.reset()
      for (const [outcome, count] of Object.entries(state().shadow)) this.inc({ outcome }, count)
    },
  })
  new Gauge({
    name: 'postern_mirror_jobs',
    help: 'Changes that Permit does not have yet, and those of them that failed before',
    labelNames: ['state'],
    registers,
    async collect() {
      const queue = await jobs.queueState().catch(() => undefined)
      this.set({ state: 'pending' }, queue?.pending ?? Number.NaN)
      this.set({ state: 'failed' }, queue?.failed ?? Number.NaN)
    },
  })
  new Gauge({
    name: 'postern_mirror_oldest_seconds',
    help: 'How long the oldest of these changes waits; NaN while the database does not answer',
    registers,
    async collect() {
      const queue = await jobs.queueState().catch(() => undefined)
      this.set(queue ? ageSeconds(queue.oldestAt) : Number.NaN)
    },
  })
}

/** The metrics of what webhooks wait for. NaN while the database does not answer. */
export function observeWebhooks({ registry }: Metrics, outbox: Pick<Outbox, 'state'>): void {
  const registers = [registry]
  new Gauge({
    name: 'postern_webhook_events',
    help: 'Events that active webhooks have not been sent yet, and those that were given up',
    labelNames: ['state'],
    registers,
    async collect() {
      const state = await outbox.state().catch(() => undefined)
      this.set({ state: 'pending' }, state?.pending ?? Number.NaN)
      this.set({ state: 'failed' }, state?.failed ?? Number.NaN)
    },
  })
  new Gauge({
    name: 'postern_webhook_oldest_seconds',
    help: 'How long the oldest of them waits',
    registers,
    async collect() {
      const state = await outbox.state().catch(() => undefined)
      this.set(state ? ageSeconds(state.oldestAt) : Number.NaN)
    },
  })
}

/** The metrics of what is done later: mails, mirroring, scheduled work. Nothing while the database does not answer. */
export function observeJobs({ registry }: Metrics, jobs: Pick<Jobs, 'states'>): void {
  new Gauge({
    name: 'postern_jobs',
    help: 'Jobs that are due or run, and those of them that failed before, by task',
    labelNames: ['task', 'state'],
    registers: [registry],
    async collect() {
      this.reset()
      for (const { task, pending, failed } of await jobs.states().catch(() => [])) {
        this.set({ task, state: 'pending' }, pending)
        this.set({ task, state: 'failed' }, failed)
      }
    },
  })
}

const ageSeconds = (since: Date | undefined): number =>
  since === undefined ? 0 : Math.max(0, (Date.now() - since.getTime()) / 1000)

/** Measures every request, and serves GET /metrics; with `token` only to those who send it. */
export const metricsEndpoint = plugin<{ metrics: Metrics; token: string | undefined }>(
  async (app, { metrics, token }) => {
    app.addHook('onResponse', (request, reply, done) => {
      const route = request.routeOptions.url ?? 'unknown'
      metrics.onResponse(request.method, route, reply.statusCode, reply.elapsedTime / 1000)
      done()
    })

    const registry = Registry.merge([processRegistry(), metrics.registry])
    app.get(
      '/metrics',
      {
        config: { access: 'public' },
        logLevel: 'warn',
        schema: {
          operationId: 'getMetrics',
          tags: ['Operation'],
          summary: 'Metrics in the Prometheus text format',
          response: {
            200: {
              description: 'Prometheus text format',
              content: { 'text/plain': { schema: { type: 'string' } } },
            },
            401: problem('METRICS_TOKEN is set, and this is not it'),
          },
        },
      },
      async (request, reply) => {
        if (token !== undefined && !isBearer(request.headers.authorization, token)) {
          throw new AppError('authentication_required')
        }
        return reply
          .type(registry.contentType)
          .serializer(String)
          .send(await registry.metrics())
      },
    )
  },
  { name: 'metrics', dependencies: ['access-control'] },
)

function isBearer(header: string | undefined, token: string): boolean {
  const [given, wanted] = [Buffer.from(header ?? ''), Buffer.from(`Bearer ${token}`)]
  return given.length === wanted.length && timingSafeEqual(given, wanted)
}
