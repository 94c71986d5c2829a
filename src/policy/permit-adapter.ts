import type { Permit } from 'permitio'
import { AppError } from '../errors.ts'
import type { MirroredAssignment, PolicyAdapter, PolicyMirror } from './adapter.ts'
import type { DecisionOptions } from './decisions.ts'
import type { Attributes, Decision, Facts, Question, Refusal } from './engine/model.ts'
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
}

/** How many questions are sent at once; more go in several calls. */
const MOST_IN_BULK = 500
const PAGE = 100

const REFUSED = { allowed: false, source: undefined } as const

/**
 * Asks Permit. Who is not active here, or asks in an account that is not, is refused without asking, so that nobody
 * keeps anything until the mirror has caught up; names given as ids go out as keys.
 */
export function createPermitAdapter({ permit, readFacts }: Dependencies): PolicyAdapter & PolicyMirror {
  async function prepare(
    questions: readonly Question[],
    options: DecisionOptions,
  ): Promise<(Question | { refusal: Refusal })[]> {
    return await readFacts((facts) => questions.map((question) => prepared(question, facts)), options)
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
      await Promise.all(
        bulksOf(prepared).map(async (bulk) => {
          const allowed = await askAll(bulk.map(({ question }) => question))
          for (const [index, { place }] of bulk.entries()) answers.set(place, allowed[index] === true)
        }),
      )
      return prepared.map((asked, place) =>
        'refusal' in asked ? { ...REFUSED, refusal: asked.refusal } : decisionOf(answers.get(place) === true),
      )
    },

    async userPermissions(query, options = {}) {
      const user = await readFacts((facts) => facts.user(query.user.key) ?? null, options)
      if (user?.isActive === false) return []
      const named = { ...query, user: { ...query.user, key: user?.key ?? query.user.key } }
      const found = await orUnavailable(
        permit.ask(async (sdk) => toPermissions(await askPermissions(sdk, named))),
      )
      return await readFacts((facts) => found.flatMap((one) => withFacts(one, facts)), options)
    },

    async syncUser({ key, email, firstName, lastName, attributes }) {
      await permit.manage(
        async (sdk) =>
          await sdk.api.users.sync({
            key,
            ...(email !== null && { email }),
            ...(firstName !== null && { first_name: firstName }),
            ...(lastName !== null && { last_name: lastName }),
            attributes: { ...attributes },
          }),
      )
    },

    async deleteUser(key) {
      await unless(
        404,
        permit.manage(async (sdk) => await sdk.api.users.delete(key)),
      )
    },

    async createTenant({ key, name, description, attributes }) {
      const fields = { name, ...(description !== null && { description }), attributes: { ...attributes } }
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

/** The question with keys for ids, or why it need not be asked. */
function prepared(question: Question, facts: Facts): Question | { refusal: Refusal } {
  const { user, resource } = question
  const known = facts.user(user.key)
  const tenant = resource.tenant === undefined ? undefined : facts.tenant(resource.tenant)
  if (known?.isActive === false) return { refusal: 'user_inactive' }
  if (tenant?.isActive === false) return { refusal: 'tenant_inactive' }
  return {
    ...question,
    user: { ...user, key: known?.key ?? user.key },
    resource: { ...resource, ...(tenant && { tenant: tenant.key }) },
  }
}

/** What is to be asked, in groups that one call can take: the SDK has one context for all of them. */
function bulksOf(
  prepared: readonly (Question | { refusal: Refusal })[],
): { question: Question; place: number }[][] {
  const byContext = new Map<string, { question: Question; place: number }[]>()
  for (const [place, question] of prepared.entries()) {
    if ('refusal' in question) continue
    const context = JSON.stringify(question.context ?? {})
    const group = byContext.get(context) ?? []
    byContext.set(context, group)
    group.push({ question, place })
  }
  return [...byContext.values()].flatMap((group) =>
    Array.from({ length: Math.ceil(group.length / MOST_IN_BULK) }, (_, index) =>
      group.slice(index * MOST_IN_BULK, (index + 1) * MOST_IN_BULK),
    ),
  )
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

/** What is held on what we know, or on what only Permit knows; nothing in an account that is not active here. */
function withFacts({ name, permissions, roles, attributes }: Held, facts: Facts): HeldPermissions[] {
  if (name.startsWith(TENANT)) {
    const key = name.slice(TENANT.length)
    const tenant = facts.tenant(key) ?? { id: key, key, isActive: true, attributes }
    return tenant.isActive ? [{ on: { kind: 'tenant', tenant }, permissions, roles }] : []
  }
  const { type, key } = splitInstance(name)
  const instance = facts.instance(name) ?? { id: key, type, key, tenant: '', attributes, subjects: new Map() }
  return facts.tenant(instance.tenant)?.isActive === false
    ? []
    : [{ on: { kind: 'instance', instance }, permissions, roles }]
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

/** The failure as a client may see it. */
async function orUnavailable<T>(call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (error) {
    if (!(error instanceof PermitUnavailableError)) throw error
    throw new AppError('policy_engine_unavailable', {
      cause: error,
      retryAfterSeconds: error.retryAfterSeconds,
    })
  }
}
