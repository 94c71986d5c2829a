import { AppError } from '../errors.ts'
import { isObject } from '../policy/engine/equality.ts'
import type { Attributes, Question } from '../policy/engine/model.ts'
import type { HeldPermissions, PermissionsQuery } from '../policy/listings.ts'
import type { MappedUrl } from '../policy/url-mapping.ts'

type Json = Readonly<Record<string, unknown>>

/** The most questions of one bulk request. */
const MOST_QUESTIONS = 1000

/**
 * A check as the PDP takes it. Unknown fields are ignored and an empty `resource.key` is none, because SDKs send whole
 * records and the command line an empty text.
 * @param index its place in a bulk request
 * @throws AppError validation_failed
 */
export function questionOf(value: unknown, index?: number): Question {
  const body = objectOf(value, '', index)
  return {
    user: userOf(body['user'], index),
    action: { name: textOf(body['action'], 'action', index) },
    resource: resourceOf(body['resource'], index),
    context: attributesOf(body['context'], 'context', index),
  }
}

/** @throws AppError validation_failed */
export function questionsOf(value: unknown): Question[] {
  if (!Array.isArray(value)) throw invalid('', 'must be a list of checks')
  if (value.length > MOST_QUESTIONS)
    throw invalid('', `has ${value.length} checks; at most ${MOST_QUESTIONS} may be sent at once`)
  return value.map((one, index) => questionOf(one, index))
}

/**
 * The check in a request to all-tenants. The Node SDK sends its own request configuration as the body: the query under
 * `params`, with user and resource as texts.
 * @throws AppError validation_failed
 */
export function questionOfAllTenants(value: unknown): Question {
  const body = objectOf(value, '')
  const query = isObject(body['params']) && body['user'] === undefined ? body['params'] : body
  const { user, resource } = query
  return questionOf({
    ...query,
    user: typeof user === 'string' ? { key: user } : user,
    resource: typeof resource === 'string' ? splitResource(resource) : resource,
  })
}

/** The token that the Node SDK has in the body of a request to all-tenants instead of the header. */
export function tokenInBody(value: unknown): string | undefined {
  const headers = isObject(value) ? value['headers'] : undefined
  const token = isObject(headers) ? headers['Authorization'] : undefined
  return typeof token === 'string' ? token : undefined
}

const TENANT = '__tenant:'

/** The user of a query that is about one, by key alone or as an object. @throws AppError validation_failed */
export function userInQuery(value: unknown): Question['user'] {
  const { user } = objectOf(value, '')
  return userOf(typeof user === 'string' ? { key: user } : user)
}

/**
 * What a query for permissions asks. Tenants may be written `__tenant:key`, and stand among the resources too.
 * @throws AppError validation_failed
 */
export function permissionsQueryOf(value: unknown): PermissionsQuery {
  const body = objectOf(value, '')
  const named = textsOf(body['resources'], 'resources')
  const resources = named?.filter((one) => !one.startsWith(TENANT))
  const tenants = [
    ...(textsOf(body['tenants'], 'tenants') ?? []),
    ...(named?.filter((one) => one.startsWith(TENANT)) ?? []),
  ].map((tenant) => (tenant.startsWith(TENANT) ? tenant.slice(TENANT.length) : tenant))
  return {
    user: userInQuery(value),
    tenants: tenants.length === 0 ? undefined : tenants,
    resources: resources?.length === 0 ? undefined : resources,
    resourceTypes: textsOf(body['resource_types'], 'resource_types'),
    context: attributesOf(body['context'], 'context'),
  }
}

/** The permissions that `query` asks for, when it names instances by their bare keys, which the core does not know. */
export function withBareKeys(query: PermissionsQuery): {
  query: PermissionsQuery
  isWanted: (held: HeldPermissions) => boolean
} {
  const { resources } = query
  if (!resources || resources.every((one) => one.includes(':'))) return { query, isWanted: () => true }
  const wanted = new Set(resources)
  return {
    query: { ...query, resources: undefined },
    isWanted: ({ on }) =>
      on.kind === 'tenant' ||
      wanted.has(on.instance.key) ||
      wanted.has(`${on.instance.type}:${on.instance.key}`),
  }
}

/** A question without a user. @throws AppError validation_failed */
export function usersQueryOf(value: unknown): Omit<Question, 'user'> {
  const body = objectOf(value, '')
  return {
    action: { name: textOf(body['action'], 'action') },
    resource: resourceOf(body['resource']),
    context: attributesOf(body['context'], 'context'),
  }
}

/** A question about a request to a URL, before it is known which action that is. */
export type UrlQuestion = {
  user: Question['user']
  url: string
  httpMethod: string
  tenant: string | undefined
  context: Attributes | undefined
}

/** @throws AppError validation_failed */
export function urlQuestionOf(value: unknown): UrlQuestion {
  const body = objectOf(value, '')
  return {
    user: userOf(body['user']),
    url: textOf(body['url'], 'url'),
    httpMethod: textOf(body['http_method'], 'http_method'),
    tenant: optionalTextOf(body['tenant'], 'tenant'),
    context: attributesOf(body['context'], 'context'),
  }
}

/** The question about what the request is. */
export const questionAbout = (
  { user, tenant, context }: UrlQuestion,
  { resource, action, attributes }: MappedUrl,
): Question => ({ user, action: { name: action }, resource: { type: resource, tenant, attributes }, context })

/** The check that a gateway sends as headers. @throws AppError validation_failed */
export function questionOfHeaders(headers: Json): Question {
  const header = (name: string): string => {
    const value = headers[name]
    if (typeof value === 'string' && value !== '') return value
    throw new AppError('validation_failed', {
      errors: [{ pointer: `/headers/${name}`, detail: 'is required' }],
    })
  }
  return {
    user: { key: header('permit-user-key') },
    action: { name: header('permit-action') },
    resource: { type: header('permit-resource-type'), tenant: header('permit-tenant-id') },
  }
}

/** `type` or `type:key`, as SDKs write a resource. */
export function splitResource(text: string): { type: string; key?: string } {
  const colon = text.indexOf(':')
  return colon < 0 ? { type: text } : { type: text.slice(0, colon), key: text.slice(colon + 1) }
}

function userOf(value: unknown, index?: number): Question['user'] {
  if (typeof value === 'string') throw invalid('user', 'must be an object with a key', index)
  const user = objectOf(value, 'user', index)
  const key = textOf(user['key'], 'user/key', index)
  const own = attributesOf(user['attributes'], 'user/attributes', index)
  const email = user['email'] ?? undefined
  const firstName = user['first_name'] ?? user['firstName'] ?? undefined
  const lastName = user['last_name'] ?? user['lastName'] ?? undefined
  if (email === undefined && firstName === undefined && lastName === undefined)
    return own === undefined ? { key } : { key, attributes: own }
  return {
    key,
    attributes: {
      ...(email !== undefined && { email }),
      ...(firstName !== undefined && { first_name: firstName }),
      ...(lastName !== undefined && { last_name: lastName }),
      ...own,
    },
  }
}

function resourceOf(value: unknown, index?: number): Question['resource'] {
  const resource = objectOf(value, 'resource', index)
  return {
    type: textOf(resource['type'], 'resource/type', index),
    key: optionalTextOf(resource['key'], 'resource/key', index),
    tenant: optionalTextOf(resource['tenant'], 'resource/tenant', index),
    attributes: attributesOf(resource['attributes'], 'resource/attributes', index),
  }
}

function objectOf(value: unknown, field: string, index?: number): Json {
  if (isObject(value)) return value
  throw invalid(field, value === undefined ? 'is required' : 'must be an object', index)
}

function textOf(value: unknown, field: string, index?: number): string {
  if (typeof value === 'string' && value !== '') return value
  throw invalid(field, value === undefined ? 'is required' : 'must be a text that is not empty', index)
}

function optionalTextOf(value: unknown, field: string, index?: number): string | undefined {
  if (value === undefined || value === null || value === '') return undefined
  return textOf(value, field, index)
}

function attributesOf(value: unknown, field: string, index?: number): Attributes | undefined {
  if (value === undefined || value === null) return undefined
  return objectOf(value, field, index)
}

/** An empty list stands for none: SDKs send one where nothing is to be filtered. */
function textsOf(value: unknown, field: string): readonly string[] | undefined {
  if (value === undefined || value === null) return undefined
  if (!Array.isArray(value) || !value.every((one) => typeof one === 'string'))
    throw invalid(field, 'must be a list of texts')
  if (value.length > MOST_QUESTIONS) throw invalid(field, `may have ${MOST_QUESTIONS} texts`)
  return value.length === 0 ? undefined : value
}

function invalid(field: string, detail: string, index?: number): AppError {
  const place = index === undefined ? '/body' : `/body/${index}`
  const pointer = field === '' ? place : `${place}/${field}`
  return new AppError('validation_failed', { errors: [{ pointer, detail }] })
}
