import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import { dashed } from './names.ts'
import { placeOf } from './place.ts'
import { listed, nameOf } from './schemas.ts'
import { made, type NamedRule, type NamedSet } from './sets.ts'
import {
  ConditionSetParams,
  ConditionSetsQuery,
  CreateConditionSetBody,
  presentConditionSet,
  presentSetRule,
  SetRuleBody,
  SetRulesQuery,
  UpdateConditionSetBody,
} from './sets-schemas.ts'

const READ: Access = { permission: 'postern.policy:read' }
const WRITE: Access = { permission: 'postern.policy:write' }

type Dependencies = Pick<Services, 'modelOf'>

/** Sets of users, and of instances of a resource, by key or id. */
export function conditionSetsRoutes({ modelOf }: Dependencies): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)
  const presentAll = async (request: FastifyRequest, sets: readonly NamedSet[]) =>
    (await of(request).permitSets.withResources(sets)).map((set) =>
      presentConditionSet(set, placeOf(request)),
    )
  const present = async (request: FastifyRequest, set: NamedSet) => (await presentAll(request, [set]))[0]

  return async (app) => {
    app.get(
      '/condition_sets',
      { config: { access: READ }, schema: { hide: true, querystring: ConditionSetsQuery } },
      async (request) => {
        const { page, per_page: perPage, type, include_total_count: counts } = request.query
        const { items, total } = await of(request).rules.listConditionSets(
          type === undefined ? {} : { type },
          { limit: perPage, skip: (page - 1) * perPage, sort: 'created_at', total: counts },
        )
        return listed(await presentAll(request, items.map(made)), total, perPage)
      },
    )

    app.post(
      '/condition_sets',
      { config: { access: WRITE }, schema: { hide: true, body: CreateConditionSetBody } },
      async (request) => {
        const { key, name, type, resource_id: resource, description, conditions, parent_id } = request.body
        const set = await of(request).permitSets.createSet(callerOf(request), {
          key,
          name: name ?? key,
          type: type ?? 'userset',
          ...(resource != null && { resource }),
          description: description ?? null,
          conditions: conditions ?? {},
          parent: parent_id ?? null,
        })
        return await present(request, set)
      },
    )

    app.get(
      '/condition_sets/:condition_set_id',
      { config: { access: READ }, schema: { hide: true, params: ConditionSetParams } },
      async (request) =>
        await present(request, await of(request).permitSets.getSet(request.params.condition_set_id)),
    )

    app.patch(
      '/condition_sets/:condition_set_id',
      {
        config: { access: WRITE },
        schema: { hide: true, params: ConditionSetParams, body: UpdateConditionSetBody },
      },
      async (request) => {
        const { rules, permitSets } = of(request)
        const { id } = await permitSets.getOwnSet(request.params.condition_set_id)
        const { name, description, conditions, parent_id: parent } = request.body
        const set = await rules.updateConditionSet(callerOf(request), id, {
          ...(name != null && { name }),
          ...(description !== undefined && { description }),
          ...(conditions != null && { conditions }),
          ...(parent !== undefined && { parent: parent === null ? null : dashed(parent) }),
        })
        return await present(request, made(set))
      },
    )

    app.delete(
      '/condition_sets/:condition_set_id',
      { config: { access: WRITE }, schema: { hide: true, params: ConditionSetParams } },
      async (request, reply) => {
        const { rules, permitSets } = of(request)
        const { id } = await permitSets.getOwnSet(request.params.condition_set_id)
        await rules.deleteConditionSet(callerOf(request), id)
        return await reply.code(204).send()
      },
    )

    for (const towards of ['ancestors', 'descendants'] as const) {
      app.get(
        `/condition_sets/:condition_set_id/${towards}`,
        { config: { access: READ }, schema: { hide: true, params: ConditionSetParams } },
        async (request) => {
          const { rules, permitSets } = of(request)
          const { id, isGenerated } = await permitSets.getSet(request.params.condition_set_id)
          const line = isGenerated ? [] : await rules.listConditionSetLine(id, towards)
          return await presentAll(request, line.map(made))
        },
      )
    }
  }
}

/** Which sets, and which roles, may do what to which sets and resources. */
export function setRulesRoutes({ modelOf }: Dependencies): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)

  return async (app) => {
    app.get(
      '/set_rules',
      { config: { access: READ }, schema: { hide: true, querystring: SetRulesQuery } },
      async (request) => {
        const { page, per_page: perPage, include_total_count: counts, ...query } = request.query
        const { rules, permitSets } = of(request)
        const filters = await permitSets.filtersOf({
          userSet: nameOf(query.user_set),
          permission: nameOf(query.permission),
          resourceSet: nameOf(query.resource_set),
        })
        const window = { limit: perPage, skip: (page - 1) * perPage, sort: 'created_at', total: counts }
        const { items, total = 0 } = filters
          ? await rules.listSetRules(filters, window)
          : { items: [], total: 0 }
        const data = items.map((rule) => presentSetRule(rule, placeOf(request)))
        return listed(data, counts ? total : undefined, perPage)
      },
    )

    app.post(
      '/set_rules',
      { config: { access: WRITE }, schema: { hide: true, body: SetRuleBody } },
      async (request) => {
        const rules = await of(request).permitSets.allow(callerOf(request), ruleOf(request.body))
        return rules.map((rule) => presentSetRule(rule, placeOf(request)))
      },
    )

    app.delete(
      '/set_rules',
      { config: { access: WRITE }, schema: { hide: true, body: SetRuleBody } },
      async (request, reply) => {
        await of(request).permitSets.disallow(callerOf(request), ruleOf(request.body))
        return await reply.code(204).send()
      },
    )
  }
}

const ruleOf = (body: Static<typeof SetRuleBody>): NamedRule => ({
  userSet: body.user_set,
  permission: body.permission,
  resourceSet: body.resource_set,
  isRole: body.is_role === true,
  isResource: body.is_resource === true,
})
