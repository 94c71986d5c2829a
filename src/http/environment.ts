import type { FastifyRequest, FastifySchema } from 'fastify'
import Type, { type TSchema } from 'typebox'
import { ENVIRONMENT_NAMES, EnvironmentName } from '../environments/schemas.ts'
import { ENVIRONMENT_NAME, type EnvironmentsService } from '../environments/service.ts'
import { AppError } from '../errors.ts'
import { problem } from './schemas.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** True for what belongs to no environment, or to the default one only, such as one's own record. */
    ignoresEnvironment?: boolean
    /** True for what is about projects, environments or keys: there is no version of it that a client could demand. */
    spansEnvironments?: boolean
    /** The name of the environment that the path of a foreign protocol has, in the place of the header. */
    environmentInPath?: (request: FastifyRequest) => string
  }
}

const HEADER = 'postern-environment'
const PATTERN = new RegExp(ENVIRONMENT_NAME)

/**
 * Sets `request.environmentId` to the environment that the header or the API key names, and narrows the principal to
 * what they hold there. To be called once it is known who asks.
 * @throws AppError validation_failed, and what EnvironmentsService.enter throws
 */
export async function enterEnvironment(
  request: FastifyRequest,
  environments: EnvironmentsService,
): Promise<void> {
  const { principal } = request
  const { ignoresEnvironment, environmentInPath } = request.routeOptions.config
  if (!principal || ignoresEnvironment) return
  const named = environmentInHeader(request)
  const name = environmentInPath?.(request) ?? named
  if (name === undefined && principal.type === 'user') return
  const entry = await environments.enter(principal, name)
  const isNamedTwice = named !== undefined && named !== name
  if (isNamedTwice && (await environments.enter(principal, named)).environmentId !== entry.environmentId)
    throw new AppError('environment_not_allowed')
  request.environmentId = entry.environmentId
  request.principal = entry.principal
}

/** The environment that the header names. @throws AppError validation_failed */
export function environmentInHeader({ headers }: FastifyRequest): string | undefined {
  const name = headers[HEADER]
  return name === undefined ? undefined : wellFormed(name)
}

function wellFormed(name: string | string[]): string {
  if (typeof name === 'string' && PATTERN.test(name)) return name
  throw new AppError('validation_failed', {
    errors: [
      {
        pointer: `/headers/${HEADER}`,
        detail: `must be ${ENVIRONMENT_NAMES}`,
      },
    ],
  })
}

const EnvironmentHeader = Type.Optional(
  Type.String({
    ...EnvironmentName,
    description: `The environment that the request is about: ${ENVIRONMENT_NAMES}. Absent: the one of the API key, or the default one`,
  }),
)

/** The header and its refusals, as they stand in OpenAPI beside what the route documents itself. */
export function documentEnvironment(schema: FastifySchema | undefined): {
  headers: TSchema
  refusals: Record<number, object>
} {
  const { properties = {} } = (schema?.headers ?? {}) as { properties?: Record<string, TSchema> }
  return {
    headers: Type.Object({ ...properties, [HEADER]: EnvironmentHeader }),
    refusals: {
      404: problem('No such environment'),
      422: problem('The request is not valid'),
    },
  }
}
