import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { callerOf } from '../http/authenticate.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { NoContent, problem, ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import {
  ConditionSetIdParams,
  ConditionSetSchema,
  CreateConditionSetBody,
  CreateSetRuleBody,
  conditionSetFilters,
  ListConditionSetsQuery,
  ListSetRulesQuery,
  presentConditionSet,
  presentSetRule,
  SetRuleIdParams,
  SetRuleSchema,
  setRuleFilters,
  setRuleSpec,
  UpdateConditionSetBody,
} from './schemas.ts'

const READ = { access: { permission: 'postern.policy:read' } } as const
const WRITE = { access: { permission: 'postern.policy:write' } } as const

/** Condition sets, and the rules that join them. */
export function rulesRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).rules
  return async (app) => {
    app.get(
      '/condition-sets',
      {
        config: READ,
        schema: {
          operationId: 'listConditionSets',
          tags: ['Policy'],
          summary: 'List sets of users and of instances',
          querystring: ListConditionSetsQuery,
          response: { 200: Type.Array(ref(ConditionSetSchema)) },
        },
      },
      async (request, reply) => {
        const page = await of(request).listConditionSets(
          conditionSetFilters(request.query),
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentConditionSet)
      },
    )

    app.post(
      '/condition-sets',
      {
        config: WRITE,
        schema: {
          operationId: 'createConditionSet',
          tags: ['Policy'],
          summary: 'Describe users, or instances of a resource, by conditions on their attributes',
          body: CreateConditionSetBody,
          response: {
            201: ref(ConditionSetSchema),
            404: problem('No such resource or parent'),
            409: problem('The key is taken, or there are too many sets'),
          },
        },
      },
      async (request, reply) => {
        const set = await of(request).createConditionSet(callerOf(request), request.body)
        return reply
          .code(201)
          .header('location', `/api/v1/condition-sets/${set.id}`)
          .send(presentConditionSet(set))
      },
    )

    app.get(
      '/condition-sets/:condition_set_id',
      {
        config: READ,
        schema: {
          operationId: 'getConditionSet',
          tags: ['Policy'],
          summary: 'Get a condition set',
          params: ConditionSetIdParams,
          response: { 200: ref(ConditionSetSchema), 404: problem('No such set') },
        },
      },
      async (request) =>
        presentConditionSet(await of(request).getConditionSet(request.params.condition_set_id)),
    )

    app.patch(
      '/condition-sets/:condition_set_id',
      {
        config: WRITE,
        schema: {
          operationId: 'patchConditionSet',
          tags: ['Policy'],
          summary: 'Change a condition set: absent fields stay',
          params: ConditionSetIdParams,
          body: UpdateConditionSetBody,
          response: {
            200: ref(ConditionSetSchema),
            404: problem('No such set or parent'),
            409: problem('The set would be its own ancestor'),
          },
        },
      },
      async (request) =>
        presentConditionSet(
          await of(request).updateConditionSet(
            callerOf(request),
            request.params.condition_set_id,
            request.body,
          ),
        ),
    )

    app.delete(
      '/condition-sets/:condition_set_id',
      {
        config: WRITE,
        schema: {
          operationId: 'deleteConditionSet',
          tags: ['Policy'],
          summary: 'Delete a condition set with its rules',
          params: ConditionSetIdParams,
          response: {
            204: NoContent,
            404: problem('No such set'),
            409: problem('The set is the parent of another one'),
          },
        },
      },
      async (request, reply) => {
        await of(request).deleteConditionSet(callerOf(request), request.params.condition_set_id)
        return reply.code(204).send(null)
      },
    )

    app.get(
      '/set-rules',
      {
        config: READ,
        schema: {
          operationId: 'listSetRules',
          tags: ['Policy'],
          summary: 'List which sets and roles may do what to which',
          querystring: ListSetRulesQuery,
          response: { 200: Type.Array(ref(SetRuleSchema)) },
        },
      },
      async (request, reply) => {
        const page = await of(request).listSetRules(
          setRuleFilters(request.query),
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentSetRule)
      },
    )

    app.post(
      '/set-rules',
      {
        config: WRITE,
        schema: {
          operationId: 'createSetRule',
          tags: ['Policy'],
          summary: 'Give a user set or role a permission on a resource set or a whole resource',
          body: CreateSetRuleBody,
          response: {
            201: ref(SetRuleSchema),
            404: problem('No such set, role, resource or action'),
            409: problem('The rule exists, or there are too many'),
          },
        },
      },
      async (request, reply) => {
        const { rule } = await of(request).createSetRule(callerOf(request), setRuleSpec(request.body))
        return reply.code(201).header('location', `/api/v1/set-rules/${rule.id}`).send(presentSetRule(rule))
      },
    )

    app.get(
      '/set-rules/:set_rule_id',
      {
        config: READ,
        schema: {
          operationId: 'getSetRule',
          tags: ['Policy'],
          summary: 'Get a rule',
          params: SetRuleIdParams,
          response: { 200: ref(SetRuleSchema), 404: problem('No such rule') },
        },
      },
      async (request) => presentSetRule(await of(request).getSetRule(request.params.set_rule_id)),
    )

    app.delete(
      '/set-rules/:set_rule_id',
      {
        config: WRITE,
        schema: {
          operationId: 'deleteSetRule',
          tags: ['Policy'],
          summary: 'Delete a rule',
          params: SetRuleIdParams,
          response: { 204: NoContent, 404: problem('No such rule') },
        },
      },
      async (request, reply) => {
        await of(request).deleteSetRule(callerOf(request), request.params.set_rule_id)
        return reply.code(204).send(null)
      },
    )
  }
}
