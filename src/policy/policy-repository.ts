import type { Database } from '../db/client.ts'
import { grouped } from '../grouping.ts'
import type {
  ConditionTree,
  PolicyDocument,
  ResourceDefinition,
  ResourceRoleDefinition,
  RoleDefinition,
  RuleDefinition,
} from './engine/model.ts'
import type { MappingRule } from './url-mapping.ts'
import { type Progress, type ProgressRow, progressColumns, progressOf } from './versions.ts'

type Rows = {
  resources: [id: string, key: string][]
  actions: [resourceId: string, key: string][]
  relations: [id: string, resourceId: string, key: string, subjectResource: string][]
  roles: [id: string, resourceId: string | null, key: string, noDirectRolesOnObject: boolean][]
  permissions: [roleId: string, permission: string][]
  parents: [roleId: string, parent: string][]
  derivations: [
    roleId: string,
    role: string,
    onResource: string,
    relation: string,
    noDirectRolesOnObject: boolean,
  ][]
  sets: [
    type: 'userset' | 'resourceset',
    key: string,
    conditions: ConditionTree,
    parent: string | null,
    resource: string | null,
  ][]
  rules: [
    userSet: string | null,
    role: string | null,
    roleResource: string | null,
    resourceSet: string | null,
    resource: string | null,
    permission: string,
  ][]
  mappings: MappingRule[]
}

/** Names come in byte order, so that the same policy is the same document. */
const LOAD = `
  with own_resources as (select id, key from resources where environment_id = $1 and not is_builtin),
  own_roles as (select id, resource_id, key, no_direct_roles_on_object from roles
    where environment_id = $1 and not is_builtin),
  own_actions as (select a.id, a.resource_id, a.key, r.key || ':' || a.key as permission
    from actions a join own_resources r on r.id = a.resource_id)
  select ${progressColumns('$1', '$2::bigint')},
    (select json_agg(json_build_array(id, key) order by key collate "C") from own_resources) as resources,
    (select json_agg(json_build_array(resource_id, key) order by key collate "C") from own_actions) as actions,
    (select json_agg(json_build_array(x.id, x.resource_id, x.key, s.key) order by x.key collate "C")
      from relations x join own_resources o on o.id = x.resource_id
      join own_resources s on s.id = x.subject_resource_id) as relations,
    (select json_agg(json_build_array(id, resource_id, key, no_direct_roles_on_object) order by key collate "C")
      from own_roles) as roles,
    (select json_agg(json_build_array(p.role_id, a.permission) order by a.permission collate "C")
      from role_permissions p join own_roles r on r.id = p.role_id
      join own_actions a on a.id = p.action_id) as permissions,
    (select json_agg(json_build_array(p.role_id, parent.key) order by parent.key collate "C")
      from role_parents p join own_roles r on r.id = p.role_id join own_roles parent on parent.id = p.parent_id
      where r.resource_id is not distinct from parent.resource_id) as parents,
    (select json_agg(json_build_array(d.role_id, s.key, o.key, x.key, d.no_direct_roles_on_object) order by d.id)
      from role_derivations d join own_roles r on r.id = d.role_id join own_roles s on s.id = d.source_role_id
      join own_resources o on o.id = s.resource_id join relations x on x.id = d.relation_id) as derivations,
    (select json_agg(json_build_array(s.type, s.key, s.conditions, p.key, r.key) order by s.key collate "C")
      from condition_sets s left join condition_sets p on p.id = s.parent_id
      left join resources r on r.id = s.resource_id
      where s.environment_id = $1 and not coalesce(r.is_builtin, false)) as sets,
    (select json_agg(json_build_array(u.key, r.key, rr.key, s.key, o.key, a.permission) order by x.id)
      from set_rules x join own_actions a on a.id = x.action_id
      left join condition_sets u on u.id = x.user_set_id left join own_roles r on r.id = x.role_id
      left join own_resources rr on rr.id = r.resource_id
      left join condition_sets s on s.id = x.resource_set_id left join own_resources o on o.id = x.resource_id
      where x.environment_id = $1 and coalesce(u.key, r.key) is not null
        and coalesce(s.key, o.key) is not null) as rules,
    (select json_agg(x.rule order by c.id, x.place)
      from proxy_configs c, jsonb_array_elements(c.mapping_rules) with ordinality as x(rule, place)
      where c.environment_id = $1) as mappings`

/** A policy, and where its environment stood in the snapshot that it was read in. */
export type LoadedPolicy = {
  progress: Progress
  document: PolicyDocument
  /** Which action a URL is, the oldest proxy first. */
  mappingRules: readonly MappingRule[]
}

export type PolicyRepository = ReturnType<typeof createPolicyRepository>

/** The statements that load the policy of an environment. */
export function createPolicyRepository({ pool, prepare }: Database) {
  return {
    /** All that the policy of an environment says, built-in resources and roles left out, in one statement. */
    async loadPolicy(environmentId: string, known: number | undefined): Promise<LoadedPolicy> {
      const { rows } = await pool.query<ProgressRow & { [K in keyof Rows]: Rows[K] | null }>({
        text: LOAD,
        values: [environmentId, known ?? null],
        ...(prepare && { name: 'policy_document' }),
      })
      const [row] = rows
      if (!row) throw new Error('a statement without FROM has one row')
      return { progress: progressOf(row, known), document: documentOf(row), mappingRules: row.mappings ?? [] }
    },
  }
}

function documentOf(row: { [K in keyof Rows]: Rows[K] | null }): PolicyDocument {
  const actions = grouped(row.actions ?? [], ([resourceId]) => resourceId)
  const relations = grouped(row.relations ?? [], ([, resourceId]) => resourceId)
  const roles = grouped(row.roles ?? [], ([, resourceId]) => resourceId)
  const permissions = grouped(row.permissions ?? [], ([roleId]) => roleId)
  const parents = grouped(row.parents ?? [], ([roleId]) => roleId)
  const derivations = grouped(row.derivations ?? [], ([roleId]) => roleId)

  const roleOf = ([id, , key]: Rows['roles'][number]): RoleDefinition => ({
    key,
    permissions: (permissions.get(id) ?? []).map(([, permission]) => permission),
    extends: (parents.get(id) ?? []).map(([, parent]) => parent),
  })
  const resourceRoleOf = (role: Rows['roles'][number]): ResourceRoleDefinition => ({
    ...roleOf(role),
    noDirectRolesOnObject: role[3],
    derivations: (derivations.get(role[0]) ?? []).map(
      ([, source, onResource, linkedByRelation, noDirectRolesOnObject]) => ({
        role: source,
        onResource,
        linkedByRelation,
        noDirectRolesOnObject,
      }),
    ),
  })
  const resourceOf = ([id, key]: Rows['resources'][number]): ResourceDefinition => ({
    key,
    actions: (actions.get(id) ?? []).map(([, action]) => action),
    roles: (roles.get(id) ?? []).map(resourceRoleOf),
    relations: (relations.get(id) ?? []).map(([, , relation, subjectResource]) => ({
      key: relation,
      subjectResource,
    })),
  })

  const sets = (row.sets ?? []).map(([type, key, conditions, parent, resource]) => ({
    type,
    set: { key, conditions, parent },
    resource,
  }))
  return {
    resources: (row.resources ?? []).map(resourceOf),
    roles: (roles.get(null) ?? []).map(roleOf),
    userSets: sets.filter(({ type }) => type === 'userset').map(({ set }) => set),
    resourceSets: sets.flatMap(({ set, resource }) => (resource === null ? [] : [{ ...set, resource }])),
    rules: (row.rules ?? []).flatMap(ruleOf),
  }
}

function ruleOf([userSet, role, roleResource, resourceSet, resource, permission]: Rows['rules'][number]):
  | RuleDefinition
  | [] {
  const users = userSet === null ? namedRole(role, roleResource) : { set: userSet }
  const resources = resourceSet === null ? resource !== null && { resource } : { set: resourceSet }
  return users && resources ? { users, resources, permission } : []
}

const namedRole = (role: string | null, resource: string | null) =>
  role !== null && { role: resource === null ? role : `${resource}#${role}` }
