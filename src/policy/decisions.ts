import { setImmediate as othersHadTheirTurn } from 'node:timers/promises'
import type { Clock } from '../clock.ts'
import { AppError } from '../errors.ts'
import type { PolicyCache } from './cache.ts'
import type { DecisionLog } from './decision-log.ts'
import type { CompiledPolicy } from './engine/compile.ts'
import { decide } from './engine/decide.ts'
import { type Explanation, explain } from './engine/explain.ts'
import { edgesOf } from './engine/lists.ts'
import type {
  Attributes,
  Decision,
  Facts,
  Question,
  Refusal,
  TenantFacts,
  UserFacts,
} from './engine/model.ts'
import type { Environment } from './environment.ts'
import { splitInstance } from './facts-repository.ts'
import {
  ASK_RULES,
  ASK_RULES_OF_USERS,
  type Authorization,
  authorizationsByRules,
  authorizationsOf,
  type HeldPermissions,
  instancesBehind,
  MOST_LISTED,
  MOST_RULES_ASKED,
  type PermissionsQuery,
  permissionsIn,
  permissionsOn,
  RULES_AT_ONCE,
  rulesAsked,
  rulesAskedOfUser,
  TENANT_TYPE,
} from './listings.ts'
import { type SearchPage, type SearchResult, search } from './searches.ts'
import type { UrlMapping } from './url-mapping.ts'

/** As of when, and for whom, a question is answered. */
export type DecisionOptions = {
  /** What is known must be of this version or a later one. */
  minVersion?: number | undefined
  /** The time at which roles may have expired. Default: the services' clock. */
  now?: Date | undefined
  /** For the decision log. */
  requestId?: string | undefined
}

/** How many decisions this process has made. */
export type DecisionCounts = { allowed: number; refused: number }

export type DecisionsDependencies = {
  environmentId: string
  cache: PolicyCache
  log: DecisionLog
  clock: Clock
  counts: DecisionCounts
}

/** The one type of subject. */
const USER = 'user'

/** Answers questions about one environment. */
export type Decisions = ReturnType<typeof createDecisions>

/** So many candidates are decided at once where a list is made of all of them. */
const CHUNK = 500
/** So many are explained at once. */
const MOST_EXPLAINED = 32

/** Decides the questions of one environment by the facts at hand, and loads those that are missing. */
export function createDecisions({ environmentId, cache, log, clock, counts }: DecisionsDependencies) {
  const { repository } = cache
  const environmentNow = (): Environment => cache.environmentOf(environmentId)

  const millisecondsOf = ({ now }: DecisionOptions): number => (now ?? clock.now()).getTime()

  const isAtHand = (environment: Environment, { minVersion }: DecisionOptions): boolean =>
    cache.isFresh(environment) && (minVersion === undefined || minVersion <= (environment.version() ?? 0))

  /** @throws AppError policy_unavailable, not_found, unknown_consistency */
  async function ready(options: DecisionOptions): Promise<Environment> {
    const environment = environmentNow()
    await cache.ensureFresh(environment)
    if (options.minVersion !== undefined) await reach(environment, options.minVersion)
    return environment
  }

  async function reach(environment: Environment, version: number): Promise<void> {
    if (environment.version() === undefined) await environment.compiledPolicy()
    if ((environment.version() ?? 0) >= version) return
    try {
      await cache.catchUp()
    } catch (cause) {
      throw new AppError('policy_unavailable', { cause, retryAfterSeconds: 1 })
    }
    if ((environment.version() ?? 0) < version) throw new AppError('unknown_consistency')
  }

  /** The same over what is at hand, or with what is missing loaded. */
  async function evaluate<T>(
    options: DecisionOptions,
    question: (policy: CompiledPolicy, facts: Facts, now: number) => T,
  ): Promise<T> {
    const now = millisecondsOf(options)
    const environment = await ready(options)
    return await environment.evaluate((policy, facts) => question(policy, facts, now))
  }

  function record(question: Question, decision: Decision, options: DecisionOptions): Decision {
    if (decision.allowed) counts.allowed++
    else counts.refused++
    if (log.isOn)
      log.record(environmentId, question, decision, {
        decidedAt: options.now ?? clock.now(),
        requestId: options.requestId,
      })
    return decision
  }

  /** The decision if nothing has to be waited for. */
  function checkNow(question: Question, options: DecisionOptions = {}): Decision | undefined {
    const environment = environmentNow()
    if (!isAtHand(environment, options)) return undefined
    const now = millisecondsOf(options)
    const decision = environment.evaluateAtHand((policy, facts) => decide(policy, facts, question, now))
    return decision && record(question, decision, options)
  }

  const listTenants: List = async (after, limit) =>
    await repository.listTenantKeys(environmentId, { after, limit })

  async function decideAll(
    questions: readonly Question[],
    options: DecisionOptions,
  ): Promise<readonly Decision[]> {
    return await evaluate(options, (policy, facts, now) =>
      questions.map((question) => decide(policy, facts, question, now)),
    )
  }

  return {
    environmentId,
    checkNow,

    /** Waits until this process knows a version. @throws AppError policy_unavailable, not_found, unknown_consistency */
    async ensureVersion(version: number): Promise<void> {
      await reach(environmentNow(), version)
    },

    /** Which action on which resource a request to a URL is. @throws AppError policy_unavailable, not_found */
    urlMapping: async (options: DecisionOptions = {}): Promise<UrlMapping> =>
      await (await ready(options)).urlMapping(),

    /** The version that holds what this process has last written, if the database tells. */
    versionOfWrites: async (): Promise<number | undefined> => await cache.versionAfterCommit(environmentId),

    /**
     * May this user do that to this? Unknown people, accounts and instances hold nothing; whoever is not active, or
     * in an account that is not, is refused.
     * @throws AppError policy_unavailable, not_found (no such environment), unknown_consistency
     */
    async check(question: Question, options: DecisionOptions = {}): Promise<Decision> {
      const atHand = checkNow(question, options)
      if (atHand) return atHand
      const decision = await evaluate(options, (policy, facts, now) => decide(policy, facts, question, now))
      return record(question, decision, options)
    },

    /** The same for many questions, whose facts are loaded together. */
    async checkMany(
      questions: readonly Question[],
      options: DecisionOptions = {},
    ): Promise<readonly Decision[]> {
      const environment = environmentNow()
      const now = millisecondsOf(options)
      const atHand = isAtHand(environment, options)
        ? environment.evaluateAtHand((policy, facts) =>
            questions.map((question) => decide(policy, facts, question, now)),
          )
        : undefined
      const decisions = atHand ?? (await decideAll(questions, options))
      for (const [place, question] of questions.entries()) {
        const decision = decisions[place]
        if (decision) record(question, decision, options)
      }
      return decisions
    },

    /** The decision of `check`, with its reasons. */
    async explain(question: Question, options: DecisionOptions = {}): Promise<Explanation> {
      const explanation = await evaluate(options, (policy, facts, now) =>
        explain(policy, facts, question, now),
      )
      record(question, explanation.decision, options)
      return explanation
    },

    /**
     * The same for many questions, in their order, as far as they are taken. Explaining asks every rule, so others
     * have their turn in between.
     */
    async *explainMany(
      questions: readonly Question[],
      options: DecisionOptions = {},
    ): AsyncGenerator<Explanation, void, undefined> {
      const cost = await evaluate(options, (policy) =>
        questions.reduce((most, question) => Math.max(most, rulesAskedOfUser(policy, question)), 1),
      )
      const size = Math.min(MOST_EXPLAINED, chunkSize(cost))
      for (let start = 0; start < questions.length; start += size) {
        if (start > 0) await othersHadTheirTurn()
        const some = questions.slice(start, start + size)
        const explanations = await evaluate(options, (policy, facts, now) =>
          some.map((question) => ({ question, explanation: explain(policy, facts, question, now) })),
        )
        for (const { question, explanation } of explanations) {
          record(question, explanation.decision, options)
          yield explanation
        }
      }
    },

    /**
     * What the roles of an active user give in each account and on each instance where one is held; of the rules,
     * what they give in each account when `context.enable_abac_user_permissions` is true, for `resourceTypes`.
     * @throws AppError answer_too_large
     */
    async userPermissions(
      query: PermissionsQuery,
      options: DecisionOptions = {},
    ): Promise<HeldPermissions[]> {
      const { tenants, resources, resourceTypes } = query
      const user = await evaluate(options, (_policy, facts) => facts.user(query.user.key) ?? null)
      if (user?.isActive === false || (!user && query.context?.[ASK_RULES] !== true)) return []
      const found: HeldPermissions[] = []
      if (!resourceTypes || resourceTypes.includes(TENANT_TYPE)) {
        const own = tenantsOf(user)?.filter((key) => !tenants || tenants.includes(key)) ?? tenants
        const cost = await evaluate(options, (policy) => rulesAsked(policy, query))
        const size = chunkSize(cost)
        let seen = 0
        for await (const keys of own ? chunksOf(own, size) : chunks(listTenants, size)) {
          seen += keys.length
          if (seen * cost > MOST_RULES_ASKED) throw new AppError('answer_too_large')
          const held = await evaluate(options, (policy, facts, now) =>
            keys.flatMap((key) => {
              const tenant = facts.tenant(key)
              return (tenant?.isActive && permissionsIn(policy, facts, query, user, tenant, now)) || []
            }),
          )
          found.push(...held)
          if (found.length > MOST_LISTED) throw new AppError('answer_too_large')
        }
      }
      if (resourceTypes?.every((type) => type === TENANT_TYPE)) return found
      for (const key of user?.crowdedTenants ?? [])
        if (!tenants || tenants.includes(key)) throw new AppError('answer_too_large')
      if (!user || user.instanceRoles.size === 0) return found
      const reached = await repository.listReachable(
        environmentId,
        [...user.instanceRoles.keys()],
        await evaluate(options, edgesOf),
        MOST_LISTED + 1,
      )
      if (reached.length > MOST_LISTED) throw new AppError('answer_too_large')
      const named = resources && new Set(resources)
      const wanted = reached.filter(
        (name) =>
          (!named || named.has(name)) && (!resourceTypes || resourceTypes.includes(splitInstance(name).type)),
      )
      for await (const names of chunksOf(wanted)) {
        const held = await evaluate(options, (policy, facts, now) =>
          names.flatMap((name) => permissionsOn(policy, facts, user, name, now) ?? []),
        )
        for (const one of held)
          if (!tenants || one.on.kind !== 'instance' || tenants.includes(one.on.instance.tenant))
            found.push(one)
      }
      return found
    },

    /**
     * Who may do that by which role: holders of roles in the account, and, of an instance, of roles on it or on what
     * it is related to. Rules are asked about all stored users when `context.enable_abac_authorized_users` is true.
     * With `membersOnly`, only active members of the account.
     * @throws AppError answer_too_large
     */
    async authorizedUsers(
      { membersOnly = false, ...asked }: Omit<Question, 'user'> & { membersOnly?: boolean },
      options: DecisionOptions = {},
    ): Promise<{ tenant: TenantFacts | undefined; users: Map<string, Authorization[]> }> {
      const users = new Map<string, Authorization[]>()
      const ref = asked.resource.tenant
      const tenant =
        ref === undefined ? null : await evaluate(options, (_policy, facts) => facts.tenant(ref) ?? null)
      if (!tenant?.isActive) return { tenant: undefined, users }
      const behind = await evaluate(options, (_policy, facts) => instancesBehind(facts, asked, tenant))
      const list: List = async (after, limit) =>
        await repository.listHolderKeys(environmentId, {
          after,
          limit,
          accountId: tenant.id,
          instanceIds: behind.map(({ id }) => id),
        })
      for await (const keys of chunks(list)) {
        const found = await evaluate(options, (policy, facts, now) =>
          keys.flatMap((key) => {
            const user = facts.user(key)
            if (membersOnly && !user?.tenants.includes(tenant.key)) return []
            return user ? authorizationsOf(policy, facts, asked, user, tenant, behind[0], now) : []
          }),
        )
        add(found)
      }
      if (asked.context?.[ASK_RULES_OF_USERS] === true) {
        const cost = await evaluate(options, (policy) => rulesAskedOfUser(policy, asked))
        const list: List = async (after, limit) =>
          await repository.listUserKeys(environmentId, {
            after,
            limit,
            accountId: membersOnly ? tenant.id : undefined,
          })
        let seen = 0
        for await (const keys of chunks(list, chunkSize(cost))) {
          seen += keys.length
          if (seen * cost > MOST_RULES_ASKED) throw new AppError('answer_too_large')
          const found = await evaluate(options, (policy, facts, now) =>
            keys.flatMap((key) => {
              const user = facts.user(key)
              return user ? authorizationsByRules(policy, facts, asked, user, tenant, now) : []
            }),
          )
          add(found)
        }
      }
      return { tenant, users }

      function add(found: readonly Authorization[]): void {
        for (const one of found) users.set(one.user, [...(users.get(one.user) ?? []), one])
        if (users.size > MOST_LISTED) throw new AppError('answer_too_large')
      }
    },

    /** The active accounts that an active user is a member of. */
    async userTenants(user: string, options: DecisionOptions = {}): Promise<TenantFacts[]> {
      return await evaluate(options, (_policy, facts) => {
        const known = facts.user(user)
        if (!known?.isActive) return []
        return known.tenants.flatMap((key) => {
          const tenant = facts.tenant(key)
          return tenant?.isActive ? [tenant] : []
        })
      })
    },

    /**
     * In which accounts the answer is yes: of those that the user is a member or holder of a role of; of all, for
     * somebody unknown, whom only attributes can let in, and for holders of a role in every account.
     * @throws AppError answer_too_large
     */
    async checkAllTenants(
      question: Question,
      options: DecisionOptions = {},
    ): Promise<{ tenant: TenantFacts; decision: Decision }[]> {
      const own = await evaluate(options, (_policy, facts) => tenantsOf(facts.user(question.user.key)))
      const allowed: { tenant: TenantFacts; decision: Decision }[] = []
      for await (const keys of own ? chunksOf(own) : chunks(listTenants)) {
        const decided = await evaluate(options, (policy, facts, now) =>
          keys.map((key) => {
            const tenant = facts.tenant(key)
            const inTenant = { ...question, resource: { ...question.resource, tenant: key } }
            return { tenant, decision: decide(policy, facts, inTenant, now) }
          }),
        )
        for (const { tenant, decision } of decided)
          if (tenant && decision.allowed) allowed.push({ tenant, decision })
        if (allowed.length > MOST_LISTED) throw new AppError('answer_too_large')
      }
      return allowed
    },

    /**
     * Which of the stored users may do that, one page of them: `check` of each, in the order of their keys. With
     * `withinAccount`, only active members of that account.
     * @throws AppError validation_failed when the token is not of this search
     */
    async searchSubjects(
      asked: Omit<Question, 'user'> & {
        subject: { type: string; attributes?: Attributes | undefined }
        withinAccount?: string | undefined
      },
      page: SearchPage = {},
      options: DecisionOptions = {},
    ): Promise<SearchResult<string>> {
      const { subject, withinAccount, ...question } = asked
      if (subject.type !== USER) return { results: [], nextToken: undefined }
      return await search({
        page,
        question: ['subjects', asked],
        list: async (after, limit) =>
          await repository.listUserKeys(environmentId, { after, limit, accountId: withinAccount }),
        select: async (keys) =>
          selected(
            await decideAll(
              keys.map((key) => ({ ...question, user: { key, attributes: subject.attributes } })),
              options,
            ),
            ['no_such_resource', 'no_such_action', 'tenant_inactive'],
          ),
      })
    },

    /**
     * To which stored instances of a resource the user may do that, one page of them: `check` of each, in the order
     * of their keys. With an account in the question, only instances of that account.
     * @throws AppError validation_failed when the token is not of this search
     */
    async searchResources(
      asked: Question & { withinAccount?: string | undefined },
      page: SearchPage = {},
      options: DecisionOptions = {},
    ): Promise<SearchResult<string>> {
      const { withinAccount, ...question } = asked
      const { type, tenant } = question.resource
      const account = await evaluate(options, (policy, facts) => {
        if (!policy.types.get(type)?.actions.has(question.action.name)) return undefined
        return tenant === undefined ? null : (facts.tenant(tenant) ?? undefined)
      })
      if (account === undefined) return { results: [], nextToken: undefined }
      if (account && withinAccount !== undefined && account.id !== withinAccount)
        return { results: [], nextToken: undefined }
      const accountId = account?.id ?? withinAccount
      return await search({
        page,
        question: ['resources', asked],
        list: async (after, limit) =>
          await repository.listInstanceKeys(environmentId, type, { after, limit, accountId }),
        select: async (keys) =>
          selected(
            await decideAll(
              keys.map((key) => ({ ...question, resource: { ...question.resource, key } })),
              options,
            ),
            [
              'no_such_resource',
              'no_such_action',
              'user_inactive',
              ...(tenant === undefined ? [] : ['tenant_inactive' as const]),
            ],
          ),
      })
    },

    /** Which actions of the resource the user may do to it, one page of them. */
    async searchActions(
      asked: Omit<Question, 'action'>,
      page: SearchPage = {},
      options: DecisionOptions = {},
    ): Promise<SearchResult<string>> {
      const { types } = await (await ready(options)).compiledPolicy()
      const actions = [...(types.get(asked.resource.type)?.actions.keys() ?? [])].sort()
      return await search({
        page,
        question: ['actions', asked],
        list: async (after, limit) =>
          actions.filter((action) => after === undefined || action > after).slice(0, limit),
        select: async (names) =>
          selected(
            await decideAll(
              names.map((name) => ({ ...asked, action: { name } })),
              options,
            ),
            ['no_such_resource', 'user_inactive', 'tenant_inactive'],
          ),
      })
    },
  }
}

export type List = (after: string | undefined, limit: number) => Promise<readonly string[]>

/** How many to ask about at once when each takes `cost` rules. */
const chunkSize = (cost: number): number =>
  Math.max(1, Math.min(CHUNK, Math.floor(RULES_AT_ONCE / Math.max(1, cost))))

/** All that `list` lists, a chunk at a time. */
export async function* chunks(list: List, size = CHUNK): AsyncGenerator<readonly string[]> {
  for (let after: string | undefined; ; ) {
    const chunk = await list(after, size)
    if (chunk.length > 0) yield chunk
    if (chunk.length < size) return
    after = chunk.at(-1)
  }
}

/** The list in pieces of `size`, in order. */
export async function* chunksOf(all: readonly string[], size = CHUNK): AsyncGenerator<readonly string[]> {
  for (let start = 0; start < all.length; start += size) yield all.slice(start, start + size)
}

/** Where a user may hold something; `undefined`: everywhere. */
export function tenantsOf(user: UserFacts | null | undefined): readonly string[] | undefined {
  if (!user || user.everywhere.length > 0) return undefined
  return [...new Set([...user.tenants, ...user.tenantRoles.keys()])]
}

/** Which were allowed; a refusal that is the same for every candidate ends the search. */
function selected(decisions: readonly Decision[], final: readonly Refusal[]): boolean[] | 'over' {
  if (decisions.some(({ refusal }) => refusal !== undefined && final.includes(refusal))) return 'over'
  return decisions.map(({ allowed }) => allowed)
}
