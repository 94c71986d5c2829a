import type { Permit } from 'permitio'
import { isUnavailable } from '../db/errors.ts'
import { AppError } from '../errors.ts'
import type { MirroredAssignment, PolicyAdapter, PolicyMirror } from './adapter.ts'
import type { DecisionOptions } from './decisions.ts'
import type { Attributes, Decision, Facts, Question, Refusal, TenantFacts } from './engine/model.ts'
import { isPossibleName } from './environment.ts'
import { splitInstance } from './facts-repository.ts'
import type { HeldPermissions, PermissionsQuery } from './listings.ts'
import {
  InvalidAnswerError,
  type PermitClient,
  PermitRefusalError,
  PermitUnavailableError,
} from './permit-client.ts'
import { EVERYWHERE, isOfGuard } from './permit-names.ts'

type Dependencies = {
  permit: PermitClient
  /** Reads what is known here. @throws AppError policy_unavailable */
  readFacts: <T>(read: (facts: Facts) => T, options: DecisionOptions) => Promise<T>
  /** Which of the names, under which nobody is known now, are those of somebody who was. */
  listGone: (kind: 'user' | 'account', refs: readonly string[]) => Promise<readonly string[]>
}

/** How many questions are sent at once, and how large they may be together; more go in several calls. */
const MOST_IN_BULK = 500
const LARGEST_BULK_BYTES = 512 * 1024
/** So many of these calls are under way for one list; when one fails, the rest is not asked. */
const BULKS_AT_ONCE = 4
/** A list that is larger than this, with what its questions share counted for each, is not sent. */
const LARGEST_LIST_BYTES = 8 * 1024 * 1024
/** What the name of a bag takes beside it: `,"attributes":`. */
const BYTES_OF_A_NAME = 14
const PAGE = 100

const NO_NAMES: ReadonlySet<string> = new Set()
const REFUSED = { allowed: false, source: undefined } as const

/**
 * Asks Permit. Who is not active here or was deleted, or asks in such an account, is refused without asking, so that
 * nobody keeps anything until the mirror has caught up; names given as ids go out as keys.
 */
export function createPermitAdapter({
  permit,
  readFacts,
  listGone,
}: Dependencies): PolicyAdapter & PolicyMirror {
  async function prepare(
    questions: readonly Question[],
    options: DecisionOptions,
  ): Promise<(Question | { refusal: Refusal })[]> {
    const found = await readFacts(
      (facts) =>
        questions.map(({ user, resource: { tenant } }) => ({
          user: facts.user(user.key) ?? null,
          // The name of the tenant that stands for every account is no account's.
          tenant: tenant === undefined || tenant === EVERYWHERE ? undefined : (facts.tenant(tenant) ?? null),
        })),
      options,
    )
    const [users, tenants] = await Promise.all([
      gone(
        'user',
        questions.flatMap(({ user }, at) => (found[at]?.user ? [] : [user.key])),
      ),
      gone(
        'account',
        questions.flatMap(({ resource }, at) => (found[at]?.tenant === null ? [resource.tenant ?? ''] : [])),
      ),
    ])
    return questions.map((question, at) => {
      const { user = null, tenant } = found[at] ?? {}
      if (user ? !user.isActive : users.has(question.user.key)) return { refusal: 'user_inactive' }
      if (tenant ? !tenant.isActive : tenants.has(question.resource.tenant ?? ''))
        return { refusal: 'tenant_inactive' }
      return {
        ...question,
        user: { ...question.user, key: user?.key ?? question.user.key },
        resource: { ...question.resource, ...(tenant && { tenant: tenant.key }) },
      }
    })
  }

  async function gone(kind: 'user' | 'account', refs: readonly string[]): Promise<ReadonlySet<string>> {
    const names = [...new Set(refs.filter(isPossibleName))]
    if (names.length === 0) return NO_NAMES
    try {
      return new Set(await listGone(kind, names))
    } catch (error) {
      if (error instanceof Error && isUnavailable(error))
        throw new AppError('policy_unavailable', { cause: error, retryAfterSeconds: 1 })
      throw error
    }
  }

  async function askAll(questions: readonly Question[]): Promise<boolean[]> {
    const context = questions[0]?.context ?? {}
    return await orUnavailable(
      permit.ask(async (sdk) => {
        const answers: unknown[] = await sdk.bulkCheck(questions.map(toQuery), context)
        if (answers.length !== questions.length)
          throw new InvalidAnswerError(`${answers.length} answers to ${questions.length} questions`)
        return answers.map(toBoolean)
      }),
    )
  }

  return {
    async check(question, options = {}) {
      const [asked] = await prepare([question], options)
      if (asked === undefined || 'refusal' in asked) return { ...REFUSED, refusal: asked?.refusal }
      const { user, action, resource } = toQuery(asked)
      const allowed = await orUnavailable(
        permit.ask(async (sdk) => toBoolean(await sdk.check(user, action, resource, asked.context ?? {}))),
      )
      return decisionOf(allowed)
    },

    async checkMany(questions, options = {}) {
      const prepared = await prepare(questions, options)
      const answers = new Map<number, boolean>()
      const bulks = bulksOf(prepared)
      for (let start = 0; start < bulks.length; start += BULKS_AT_ONCE) {
        await Promise.all(
          bulks.slice(start, start + BULKS_AT_ONCE).map(async (bulk) => {
            const allowed = await askAll(bulk.map(({ question }) => question))
            for (const [index, { place }] of bulk.entries()) answers.set(place, allowed[index] === true)
          }),
        )
      }
      return prepared.map((asked, place) =>
        'refusal' in asked ? { ...REFUSED, refusal: asked.refusal } : decisionOf(answers.get(place) === true),
      )
    },

    async userPermissions(query, options = {}) {
      const user = await readFacts((facts) => facts.user(query.user.key) ?? null, options)
      if (user ? !user.isActive : (await gone('user', [query.user.key])).size > 0) return []
      const named = { ...query, user: { ...query.user, key: user?.key ?? query.user.key } }
      const found = await orUnavailable(
        permit.ask(async (sdk) => toPermissions(await askPermissions(sdk, named))),
      )
      const known = await readFacts((facts) => found.map((one) => withFacts(one, facts)), options)
      const without = await gone(
        'account',
        known.flatMap(({ tenant, isStored }) => (isStored || tenant === '' ? [] : [tenant])),
      )
      return known.flatMap(({ tenant, isActive, held }) => (isActive && !without.has(tenant) ? [held] : []))
    },

    async syncUser({ key, email, firstName, lastName, attributes }) {
      await permit.manage(
        async (sdk) =>
          await sdk.api.users.sync(
            withNulls(
              { key, attributes: { ...attributes } },
              { email, first_name: firstName, last_name: lastName },
            ),
          ),
      )
    },

    async deleteUser(key) {
      await unless(
        404,
        permit.manage(async (sdk) => await sdk.api.users.delete(key)),
      )
    },

    async createTenant({ key, name, description, attributes }) {
      const fields = withNulls({ name, attributes: { ...attributes } }, { description })
      const created = await unless(
        409,
        permit.manage(async (sdk) => await sdk.api.tenants.create({ key, ...fields })),
      )
      if (created === undefined) await permit.manage(async (sdk) => await sdk.api.tenants.update(key, fields))
    },

    async deleteTenant(key) {
      await unless(
        404,
        permit.manage(async (sdk) => await sdk.api.tenants.delete(key)),
      )
    },

    async listAssignments(userKey) {
      const assignments: MirroredAssignment[] = []
      for (let page = 1; ; page++) {
        const found = await permit.manage(
          async (sdk) => await sdk.api.roleAssignments.list({ user: userKey, page, perPage: PAGE }),
        )
        for (const { user, role, tenant, resource_instance: instance } of found) {
          // Some answer for everybody when they do not know the user.
          if (user !== userKey) continue
          assignments.push({ user, role, tenant: tenant ?? '', ...(instance && { instance }) })
        }
        if (found.length < PAGE) return assignments
      }
    },

    async assignRole(assignment) {
      await unless(
        409,
        permit.manage(async (sdk) => await sdk.api.roleAssignments.assign(toAssignment(assignment))),
      )
    },

    async unassignRole(assignment) {
      await unless(
        404,
        permit.manage(async (sdk) => await sdk.api.roleAssignments.unassign(toAssignment(assignment))),
      )
    },
  }
}

const decisionOf = (allowed: boolean): Decision => ({ allowed, source: undefined, refusal: undefined })

/**
 * `body` with fields that are cleared where there is nothing: what is left out is kept. The types of the SDK do not say
 * that its API takes null.
 */
const withNulls = <T extends object>(body: T, fields: Readonly<Record<string, string | null>>): T =>
  Object.assign(body, fields)

const NO_CONTEXT: Attributes = Object.freeze({})

/** A question of a list, and how many bytes it takes when it is sent. */
type Sized = { question: Question; place: number; bytes: number }

/**
 * What is to be asked, in groups that one call can take: the SDK has one context for all of them, and sends it with
 * each question.
 * @throws AppError payload_too_large
 */
function bulksOf(prepared: readonly (Question | { refusal: Refusal })[]): Sized[][] {
  const textOf = createTexts()
  const byContext = new Map<string, Sized[]>()
  let total = 0
  for (const [place, question] of prepared.entries()) {
    if ('refusal' in question) continue
    const context = textOf(question.context ?? NO_CONTEXT)
    const bytes = bytesOf(question, textOf)
    total += bytes
    if (total > LARGEST_LIST_BYTES)
      throw new AppError('payload_too_large', { detail: 'The questions are too large for Permit together' })
    const group = byContext.get(context) ?? []
    byContext.set(context, group)
    group.push({ question, place, bytes })
  }
  return [...byContext.values()].flatMap(inParts)
}

/** Bags as JSON, each once however many questions share it. */
function createTexts(): (bag: Attributes) => string {
  const known = new Map<Attributes, string>()
  return (bag) => {
    const text = known.get(bag) ?? JSON.stringify(bag)
    known.set(bag, text)
    return text
  }
}

/** What one question takes in a list, with the context that is sent with each. */
function bytesOf({ user, action, resource, context }: Question, textOf: (bag: Attributes) => string): number {
  const { attributes, ...named } = resource
  const names = JSON.stringify({ user: { key: user.key }, action: action.name, resource: named })
  let bytes = Buffer.byteLength(names)
  for (const bag of [user.attributes, attributes, context])
    if (bag) bytes += BYTES_OF_A_NAME + Buffer.byteLength(textOf(bag))
  return bytes
}

function inParts(group: readonly Sized[]): Sized[][] {
  const parts: Sized[][] = []
  let part: Sized[] = []
  let size = 0
  for (const one of group) {
    if (part.length === MOST_IN_BULK || (part.length > 0 && size + one.bytes > LARGEST_BULK_BYTES)) {
      parts.push(part)
      part = []
      size = 0
    }
    part.push(one)
    size += one.bytes
  }
  if (part.length > 0) parts.push(part)
  return parts
}

function toQuery({ user, action, resource }: Question) {
  const { type, key, tenant, attributes } = resource
  return {
    user: { key: user.key, ...(user.attributes && { attributes: { ...user.attributes } }) },
    action: action.name,
    resource: {
      type,
      ...(key !== undefined && { key }),
      ...(tenant !== undefined && { tenant }),
      ...(attributes && { attributes: { ...attributes } }),
    },
  }
}

/** The SDK hands on whatever the PDP sent; only `true` is an allow, and only a boolean an answer. */
function toBoolean(answer: unknown): boolean {
  if (typeof answer === 'boolean') return answer
  throw new InvalidAnswerError(`${typeof answer} where a boolean was expected`)
}

async function askPermissions(
  sdk: Permit,
  { user, tenants, resources, resourceTypes }: PermissionsQuery,
): Promise<unknown> {
  return await sdk.getUserPermissions(
    { key: user.key, ...(user.attributes && { attributes: { ...user.attributes } }) },
    tenants && [...tenants],
    resources && [...resources],
    resourceTypes && [...resourceTypes],
  )
}

const TENANT = '__tenant:'

/** What Permit says of one account (`__tenant:key`) or instance (`type:key`). */
type Held = { name: string; permissions: readonly string[]; roles: readonly string[]; attributes: Attributes }

function toPermissions(answer: unknown): Held[] {
  if (!isRecord(answer)) throw new InvalidAnswerError('no map of permissions')
  return Object.entries(answer).flatMap(([name, held]) => {
    if (!isRecord(held)) throw new InvalidAnswerError('no permissions')
    if (name === `${TENANT}${EVERYWHERE}`) return []
    const { attributes } = (held['tenant'] ?? held['resource'] ?? {}) as { attributes?: unknown }
    return [
      {
        name,
        permissions: texts(held['permissions']),
        roles: texts(held['roles'] ?? []),
        attributes: isRecord(attributes) ? attributes : {},
      },
    ]
  })
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What is held, where: in what account, and whether that is stored here. */
type Located = { held: HeldPermissions; tenant: string; isStored: boolean; isActive: boolean }

/** What is held on what we know, or on what only Permit knows. */
function withFacts({ name, permissions, roles, attributes }: Held, facts: Facts): Located {
  const located = (key: string, on: (tenant: TenantFacts | null) => HeldPermissions['on']): Located => {
    const tenant = facts.tenant(key) ?? null
    const held = { on: on(tenant), permissions, roles }
    return { held, tenant: key, isStored: tenant !== null, isActive: tenant?.isActive ?? true }
  }
  if (name.startsWith(TENANT)) {
    const key = name.slice(TENANT.length)
    return located(key, (tenant) => ({
      kind: 'tenant',
      tenant: tenant ?? { id: key, key, isActive: true, attributes },
    }))
  }
  const { type, key } = splitInstance(name)
  const instance = facts.instance(name) ?? { id: key, type, key, tenant: '', attributes, subjects: new Map() }
  return located(instance.tenant, () => ({ kind: 'instance', instance }))
}

/** Sorted, and without what is there for the guard of our own routes. */
function texts(value: unknown): string[] {
  if (!Array.isArray(value) || !value.every((one) => typeof one === 'string'))
    throw new InvalidAnswerError('no list of texts')
  return value.filter((one: string) => !isOfGuard(one)).sort()
}

const toAssignment = ({ user, role, tenant, instance }: MirroredAssignment) => ({
  user,
  role,
  tenant,
  ...(instance !== undefined && { resource_instance: instance }),
})

/** What a call gives, or `undefined` when Permit refuses it with `status`: what was wanted is so already. */
async function unless<T>(status: number, call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    if (error instanceof PermitRefusalError && error.status === status) return undefined
    throw error
  }
}

/** The failure as a client may see it: that Permit is away, or that it does not take what it is asked. */
async function orUnavailable<T>(call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (error) {
    if (error instanceof PermitRefusalError) {
      throw error.status === 413
        ? new AppError('payload_too_large', { detail: 'The question is too large for Permit', cause: error })
        : new AppError('validation_failed', { detail: 'Permit does not take the question', cause: error })
    }
    if (!(error instanceof PermitUnavailableError)) throw error
    throw new AppError('policy_engine_unavailable', {
      cause: error,
      retryAfterSeconds: error.retryAfterSeconds,
    })
  }
}
