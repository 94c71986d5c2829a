import fc from 'fast-check'
import type { Lists } from './source.ts'

/** Names that meet one another often, beside those that mean something to JavaScript, Postgres or a terminal. */
const word = fc.constantFrom(
  ...['a', 'b', 'doc', 'read', 'default', 'userset', 'resourceset', 'a:read', 'doc:a', 'doc#a'],
  ...['__proto__', 'constructor', '__user', '__autogen_a', '', 'x y', '\0', '\ud800', '\u001b[2J'],
  ...['00000000-0000-4000-8000-000000000001', 'a'.repeat(700), 'a@b.test'],
)
const junk: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  any: fc.oneof(
    { maxDepth: 4 },
    word,
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    fc.array(tie('any'), { maxLength: 3 }),
    fc.dictionary(word, tie('any'), { maxKeys: 3 }),
  ),
})).any

const mostly = <T>(good: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 12, arbitrary: good }, { weight: 1, arbitrary: junk })
const thing = (fields: Record<string, fc.Arbitrary<unknown>>) =>
  mostly(
    fc.record(Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, mostly(value)])), {
      requiredKeys: [],
    }),
  )
const mapOf = (value: fc.Arbitrary<unknown>) => fc.dictionary(word, value, { maxKeys: 4 })
const list = (value: fc.Arbitrary<unknown>) => fc.array(value, { maxLength: 6 })
const words = list(mostly(word))
const instance = fc.tuple(word, word).map(([type, key]) => `${type}:${key}`)
const attribute = thing({ key: word, type: fc.constantFrom('string', 'odd') })
const role = thing({
  key: word,
  name: word,
  permissions: words,
  extends: words,
  attributes: junk,
  granted_to: fc.option(
    thing({
      when: thing({ no_direct_roles_on_object: fc.boolean() }),
      users_with_role: list(thing({ role: word, on_resource: word, linked_by_relation: word })),
    }),
  ),
})

/** Lists as no honest server has them. */
export const junkLists: fc.Arbitrary<Lists> = fc.record({
  resources: list(
    thing({
      id: word,
      key: word,
      name: word,
      urn: word,
      actions: mapOf(thing({ name: word, attributes: junk })),
      attributes: mapOf(attribute),
      relations: mapOf(thing({ resource: word })),
      roles: mapOf(role),
    }),
  ),
  userAttributes: list(attribute),
  roles: list(role),
  sets: list(
    thing({
      id: word,
      key: word,
      type: fc.constantFrom('userset', 'resourceset'),
      resource_id: word,
      parent_id: fc.option(word),
      conditions: junk,
    }),
  ),
  rules: list(thing({ user_set: word, permission: word, resource_set: word })),
  tenants: list(thing({ key: word, name: word, attributes: junk })),
  users: list(
    thing({
      key: word,
      email: word,
      first_name: word,
      attributes: junk,
      associated_tenants: list(thing({ tenant: word, roles: words, status: word })),
    }),
  ),
  instances: list(thing({ key: word, resource: word, tenant: word, attributes: junk })),
  tuples: list(thing({ subject: instance, relation: word, object: instance, tenant: word })),
  assignments: list(thing({ user: word, role: word, tenant: word, resource_instance: fc.option(instance) })),
  proxies: list(
    thing({
      key: word,
      name: word,
      mapping_rules: list(
        thing({
          url: fc.constantFrom('/a/{b}', '/a(b', '\0'),
          url_type: fc.constantFrom('regex', null),
          http_method: fc.constantFrom('get', 'PUT', 'brew'),
          resource: word,
          headers: mapOf(word),
        }),
      ),
    }),
  ),
  invites: list(junk),
})
