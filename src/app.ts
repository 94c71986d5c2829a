import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyInstance, type FastifyServerOptions, LogController } from 'fastify'
import { accountsRoutes } from './accounts/routes.ts'
import { AccountSchema, MemberSchema, MembershipSchema } from './accounts/schemas.ts'
import { apiKeysRoutes } from './api-keys/routes.ts'
import { ApiKeySchema, IssuedApiKeySchema } from './api-keys/schemas.ts'
import { auditRoutes } from './audit/routes.ts'
import { AuditEventSchema, CheckpointSchema } from './audit/schemas.ts'
import { authRoutes } from './auth/routes.ts'
import { OAuthErrorSchema, TokenSchema } from './auth/schemas.ts'
import { authzenRoutes } from './authzen/routes.ts'
import { clientsRoutes } from './clients/routes.ts'
import { ClientSchema, IssuedClientSchema } from './clients/schemas.ts'
import { environmentsRoutes } from './environments/routes.ts'
import { EnvironmentSchema, ProjectSchema } from './environments/schemas.ts'
import { erasureRoutes } from './erasure/routes.ts'
import { AppError } from './errors.ts'
import { factorsRoutes } from './factors/routes.ts'
import { FACTORS_SCHEMAS } from './factors/schemas.ts'
import { guidesRoutes } from './guides/routes.ts'
import { SyncedUserSchema, TenantSchema } from './guides/schemas.ts'
import { accessControl } from './http/access.ts'
import { authentication } from './http/authenticate.ts'
import { createCompilers } from './http/compilers.ts'
import { consistency } from './http/consistency.ts'
import { healthRoutes } from './http/health.ts'
import { watchMethods } from './http/methods.ts'
import { metricsEndpoint } from './http/metrics.ts'
import { openapi } from './http/openapi.ts'
import { problems, sendProblem, toAppError } from './http/problem.ts'
import { problemPages } from './http/problem-pages.ts'
import { loggerOptions, requestId, requestLog } from './http/request-log.ts'
import { ProblemSchema } from './http/schemas.ts'
import { browserSecurity } from './http/security.ts'
import { instancesRoutes } from './instances/routes.ts'
import {
  InstanceSchema,
  InstancesUpsertedSchema,
  TupleSchema,
  TuplesChangedSchema,
} from './instances/schemas.ts'
import { invitationsRoutes } from './invitations/routes.ts'
import {
  AcceptedInvitationSchema,
  InspectedInvitationSchema,
  InvitationSchema,
} from './invitations/schemas.ts'
import { jwksRoutes, keysRoutes } from './keys/routes.ts'
import { SigningKeySchema } from './keys/schemas.ts'
import { mailLinksRoutes } from './mail-links/routes.ts'
import {
  AcceptedSchema,
  EmailChangeSchema,
  EmailStateSchema,
  MagicLinkRequestSchema,
} from './mail-links/schemas.ts'
import { oauth2Routes } from './oauth2/routes.ts'
import { passkeysRoutes } from './passkeys/routes.ts'
import {
  AuthenticationOptionsSchema,
  CreatedPasskeySchema,
  PasskeySchema,
  RegistrationOptionsSchema,
  SignInOptionsSchema,
} from './passkeys/schemas.ts'
import { pdpRoutes } from './pdp/routes.ts'
import { permitRoutes } from './permit/routes.ts'
import { policyFileRoutes } from './policy-file/routes.ts'
import { PolicyChangeSchema, PolicyDocumentSchema, TemplateSchema } from './policy-file/schemas.ts'
import { resourcesRoutes } from './resources/routes.ts'
import {
  ActionGroupSchema,
  ActionSchema,
  AttributeSchema,
  DerivationSchema,
  RelationSchema,
  ResourceDetailSchema,
  ResourceRoleSchema,
  ResourceSchema,
} from './resources/schemas.ts'
import { revocationsRoutes } from './revocations/routes.ts'
import { RevocationSchema, RevocationsSchema } from './revocations/schemas.ts'
import { rolesRoutes } from './roles/routes.ts'
import { AssignmentSchema, RoleSchema, RoleSummarySchema, UserRoleSchema } from './roles/schemas.ts'
import { rulesRoutes } from './rules/routes.ts'
import { ConditionSetSchema, SetRuleSchema } from './rules/schemas.ts'
import type { Services } from './services.ts'
import { sessionsRoutes } from './sessions/routes.ts'
import { SessionSchema } from './sessions/schemas.ts'
import { usersRoutes } from './users/routes.ts'
import { PermissionsSchema, UserSchema } from './users/schemas.ts'
import { VERSION } from './version.ts'
import { webhooksRoutes } from './webhooks/routes.ts'
import { IssuedWebhookSchema, WebhookDeliverySchema, WebhookSchema } from './webhooks/schemas.ts'

const MAX_HEADER_BYTES = 16_384

const SHARED_SCHEMAS = [
  ProblemSchema,
  TokenSchema,
  OAuthErrorSchema,
  ...FACTORS_SCHEMAS,
  SessionSchema,
  AcceptedSchema,
  MagicLinkRequestSchema,
  EmailStateSchema,
  EmailChangeSchema,
  PasskeySchema,
  CreatedPasskeySchema,
  RegistrationOptionsSchema,
  AuthenticationOptionsSchema,
  SignInOptionsSchema,
  RoleSummarySchema,
  RoleSchema,
  UserRoleSchema,
  AssignmentSchema,
  UserSchema,
  PermissionsSchema,
  AccountSchema,
  MemberSchema,
  MembershipSchema,
  InvitationSchema,
  InspectedInvitationSchema,
  AcceptedInvitationSchema,
  AuditEventSchema,
  CheckpointSchema,
  ApiKeySchema,
  IssuedApiKeySchema,
  SigningKeySchema,
  ClientSchema,
  IssuedClientSchema,
  WebhookSchema,
  IssuedWebhookSchema,
  WebhookDeliverySchema,
  RevocationSchema,
  RevocationsSchema,
  ProjectSchema,
  EnvironmentSchema,
  InstanceSchema,
  InstancesUpsertedSchema,
  TupleSchema,
  TuplesChangedSchema,
  ConditionSetSchema,
  SetRuleSchema,
  ResourceSchema,
  ActionSchema,
  ActionGroupSchema,
  AttributeSchema,
  RelationSchema,
  DerivationSchema,
  ResourceRoleSchema,
  ResourceDetailSchema,
  PolicyChangeSchema,
  PolicyDocumentSchema,
  TemplateSchema,
  SyncedUserSchema,
  TenantSchema,
]

/**
 * The HTTP application over the services: reads from top to bottom as the map of the service. It listens nowhere
 * and owns nothing; who builds it closes the services after it.
 */
export async function buildApp(
  services: Services,
  options: Pick<FastifyServerOptions, 'logger' | 'loggerInstance' | 'schemaController'> = {},
) {
  const { config } = services
  const app = Fastify({
    logger: loggerOptions(config),
    schemaController: createCompilers(),
    ...options,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: requestId,
    requestIdHeader: false,
    trustProxy: config.http.trustProxy === false ? false : [...config.http.trustProxy],
    bodyLimit: config.http.bodyLimitBytes,
    requestTimeout: config.http.requestTimeoutMs,
    connectionTimeout: 0,
    keepAliveTimeout: 72_000,
    forceCloseConnections: 'idle',
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 1024 },
    http: { maxHeaderSize: MAX_HEADER_BYTES, headersTimeout: Math.min(config.http.requestTimeoutMs, 60_000) },
    frameworkErrors: (error, request, reply) => {
      // No hook has run yet for a request that Fastify itself refuses.
      reply.header('x-request-id', request.id)
      void sendProblem(toAppError(error), request, reply).then((body) => reply.send(body as never))
    },
    clientErrorHandler: refuseUnreadable,
  }).withTypeProvider<TypeBoxTypeProvider>()
  acceptEmptyJson(app)

  await app.register(problems, { audit: services.audit, clock: services.clock })
  await app.register(requestLog)
  await app.register(browserSecurity, { corsOrigins: config.http.corsOrigins })
  await app.register(openapi, { version: VERSION, publicUrl: services.issuer })

  await app.register(authentication, {
    keys: services.keys,
    accessTokens: services.accessTokens,
    dpop: services.dpop,
    apiKeys: services.apiKeyVerifier,
    environments: services.environments,
    issuer: services.issuer,
    audience: services.audience,
  })
  await app.register(accessControl, {
    policy: services.policy,
    assertRecentAuthentication: async (person) => await services.factors.assertRecentAuthentication(person),
  })
  await app.register(consistency, { modelOf: services.modelOf })
  for (const schema of SHARED_SCHEMAS) app.addSchema(schema)
  const methods = watchMethods(app)

  await app.register(metricsEndpoint, { metrics: services.metrics, token: config.http.metricsToken })
  await app.register(healthRoutes(services))
  await app.register(problemPages)
  await app.register(jwksRoutes(services))

  await app.register(oauth2Routes(services))

  await app.register(authRoutes(services), { prefix: '/api/v1' })
  await app.register(passkeysRoutes(services), { prefix: '/api/v1' })
  await app.register(factorsRoutes(services), { prefix: '/api/v1' })
  await app.register(mailLinksRoutes(services), { prefix: '/api/v1' })
  await app.register(sessionsRoutes(services), { prefix: '/api/v1' })
  await app.register(usersRoutes(services), { prefix: '/api/v1' })
  await app.register(erasureRoutes(services), { prefix: '/api/v1' })
  await app.register(rolesRoutes(services), { prefix: '/api/v1' })
  await app.register(resourcesRoutes(services), { prefix: '/api/v1' })
  await app.register(accountsRoutes(services), { prefix: '/api/v1' })
  await app.register(invitationsRoutes(services), { prefix: '/api/v1' })
  await app.register(instancesRoutes(services), { prefix: '/api/v1' })
  await app.register(rulesRoutes(services), { prefix: '/api/v1' })
  await app.register(policyFileRoutes(services), { prefix: '/api/v1' })
  await app.register(environmentsRoutes(services), { prefix: '/api/v1' })
  await app.register(apiKeysRoutes(services), { prefix: '/api/v1' })
  await app.register(keysRoutes(services), { prefix: '/api/v1' })
  await app.register(clientsRoutes(services), { prefix: '/api/v1' })
  await app.register(webhooksRoutes(services), { prefix: '/api/v1' })
  await app.register(revocationsRoutes(services), { prefix: '/api/v1' })
  await app.register(auditRoutes(services), { prefix: '/api/v1' })
  await app.register(authzenRoutes(services))

  await app.register(guidesRoutes(services))
  await app.register(pdpRoutes(services))
  await app.register(permitRoutes(services))

  methods.refuseOthers()
  return app
}

/** JSON is the one type of body; a request that says so and has none has an empty one, as POST …/deactivate may. */
function acceptEmptyJson(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error')
  app.removeContentTypeParser(['application/json', 'text/plain'])
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') return done(null, undefined)
    // Its answer comes through `done`.
    return void parse(request, body.toString(), done)
  })
}

/** The application, whatever its type provider. */
export type App = FastifyInstance

type ClientErrorHandler = NonNullable<FastifyServerOptions['clientErrorHandler']>

/** Answers what Node could not read as HTTP; there is no request yet, so the answer is written by hand. */
const refuseUnreadable: ClientErrorHandler = (error, socket) => {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const isTooLarge = error.code === 'HPE_HEADER_OVERFLOW'
  const problem = new AppError(isTooLarge ? 'request_header_too_large' : 'malformed_request')
  const body = JSON.stringify({
    type: `/problems/${problem.code}`,
    title: problem.message,
    status: problem.status,
    detail: problem.message,
    instance: 'unread',
  })
  socket.end(
    `HTTP/1.1 ${problem.status} ${isTooLarge ? 'Request Header Fields Too Large' : 'Bad Request'}\r\n` +
      `Content-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}
