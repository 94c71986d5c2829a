import { setTimeout as sleep } from 'node:timers/promises'

const PER_PAGE = 100
/** What every bulk request of Permit takes. */
const PER_REQUEST = 1000
const MOST_ATTEMPTS = 8
/** Permit takes no other keys for users. */
const USER_KEY = /^[A-Za-z0-9|@+\-._]+$/
/** The set that stands for a role or a resource has its name after this. */
const GENERATED = '__autogen_'

/** An answer that refuses what was asked. */
class Refusal extends Error {
  constructor(status, path, body) {
    super(`${path} is answered with ${status}: ${body.slice(0, 500)}`)
    this.status = status
  }
}

/** A server that speaks Permit's API, at the environment that its key opens. */
async function connect({ url, key }) {
  async function ask(method, path, body) {
    try {
      const response = await fetch(`${url.replace(/\/+$/, '')}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${key}`,
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        redirect: 'error',
        signal: AbortSignal.timeout(60_000),
      })
      const text = await response.text()
      if (response.ok) return { answer: text === '' ? undefined : JSON.parse(text) }
      const refusal = new Refusal(response.status, `${method} ${path}`, text)
      if (response.status !== 429 && response.status < 500) throw refusal
      const seconds = Number(response.headers.get('retry-after'))
      return { error: refusal, ...(seconds > 0 && { seconds }) }
    } catch (error) {
      if (error instanceof Refusal) throw error
      return { error }
    }
  }

  /** Tries again what failed for the moment, after as long as the server says. */
  async function send(method, path, body) {
    for (let attempt = 1; ; attempt++) {
      const { answer, error, seconds = 2 ** (attempt - 2) } = await ask(method, path, body)
      if (!error) return answer
      if (attempt === MOST_ATTEMPTS)
        throw new Error(`${method} ${url}${path}: ${error.message}`, { cause: error })
      await sleep(Math.min(seconds, 120) * 1000)
    }
  }

  /** A whole list, whichever of the two shapes its pages have. */
  async function list(path) {
    const all = []
    for (let page = 1; ; page++) {
      const answer = await send('GET', `${path}?page=${page}&per_page=${PER_PAGE}`)
      const items = Array.isArray(answer) ? answer : answer.data
      all.push(...items)
      if (items.length < PER_PAGE) return all
    }
  }

  const { project_id: project, environment_id: environment } = await send('GET', '/v2/api-key/scope')
  if (!environment) throw new Error(`The key for ${url} opens more than one environment`)
  const place = `${project}/${environment}`
  return { send, list, schema: `/v2/schema/${place}`, facts: `/v2/facts/${place}` }
}

/**
 * Copies an environment of Postern to an empty one of Permit. Nothing is deleted there, so that it may be repeated;
 * what is there and not here is named, and ends it with an error.
 * What Permit cannot hold is left out, and said, where holding it in another way would give somebody more.
 */
async function copy(postern, permit) {
  const [from, to] = [await connect(postern), await connect(permit)]
  let leftOut = 0
  const leaveOut = (what, reason) => {
    leftOut++
    console.log(`! ${what}: ${reason}`)
  }
  const rules = await copyPolicy(from, to)
  console.log('policy: copied')
  const facts = await copyFacts(from, to, leaveOut)
  const surplus = await surplusOf(to, { ...facts, rules })
  for (const what of surplus) console.log(`! ${what}: is there, and not here: remove it there`)
  console.log(leftOut === 0 ? 'Everything was copied.' : `${leftOut} left out.`)
  if (surplus.length > 0)
    throw new Error(`${surplus.length} there that are not here, and may give somebody more.`)
}

/** How one of each kind is named, that gives somebody something. */
const NAME_OF = {
  rules: ({ user_set: users, permission, resource_set: things }) =>
    `set rule ${ownName(users)} ${permission} ${ownName(things)}`,
  tenants: ({ key }) => `tenant ${key}`,
  users: ({ key }) => `user ${key}`,
  tuples: ({ subject, relation, object }) => `relationship ${subject} ${relation} ${object}`,
  grants: ({ user, role, tenant, resource_instance: instance }) =>
    `assignment ${user} ${role} ${instance ?? tenant}`,
}

/** What is there, of an earlier copy or by somebody else, and is not among what was copied. */
async function surplusOf({ list, facts }, copied) {
  const paths = {
    rules: 'set_rules',
    tenants: 'tenants',
    users: 'users',
    tuples: 'relationship_tuples',
    grants: 'role_assignments',
  }
  const surplus = []
  for (const [kind, path] of Object.entries(paths)) {
    const names = new Set(copied[kind].map(NAME_OF[kind]))
    const there = (await list(`${facts}/${path}`)).map(NAME_OF[kind])
    surplus.push(...there.filter((name) => !names.has(name)))
  }
  return surplus
}

/** Creates it, or gives it these fields when it is there. `birth`: what can only be said when it is created. */
async function put({ send }, path, { key, ...fields }, birth = {}) {
  try {
    return await send('POST', path, { key, ...pick(fields, Object.keys(fields)), ...birth })
  } catch (error) {
    if (error.status !== 409) throw error
    return await send('PATCH', `${path}/${encodeURIComponent(key)}`, fields)
  }
}

async function unlessThere(create) {
  try {
    await create()
  } catch (error) {
    if (error.status !== 409) throw error
  }
}

const DESCRIBED = ['key', 'name', 'description', 'attributes']
const ROLE = [...DESCRIBED, 'permissions', 'extends']

async function copyPolicy(from, to) {
  const resources = await from.list(`${from.schema}/resources`)
  const at = ({ key }) => `${to.schema}/resources/${key}`
  for (const resource of resources)
    await put(to, `${to.schema}/resources`, {
      ...whole(resource, ['key', 'name', 'description', 'urn']),
      actions: pickEach(resource.actions, ['name', 'description', 'attributes']),
      attributes: pickEach(resource.attributes, ['type', 'description']),
    })
  for (const attribute of await from.list(`${from.schema}/users/attributes`))
    if (!attribute.built_in)
      await put(to, `${to.schema}/users/attributes`, whole(attribute, ['key', 'type', 'description']))

  for (const resource of resources) {
    for (const [key, relation] of Object.entries(resource.relations)) {
      const { resource: subject, relation_name: name = key } = relation
      const fields = { key, name, subject_resource: subject, ...pick(relation, ['description']) }
      await unlessThere(async () => await to.send('POST', `${at(resource)}/relations`, fields))
    }
    for (const group of await from.list(`${from.schema}/resources/${resource.key}/action_groups`))
      await put(to, `${at(resource)}/action_groups`, whole(group, [...DESCRIBED, 'actions']))
    for (const role of parentsFirst(Object.values(resource.roles), (one) => one.extends)) {
      const there = await put(to, `${at(resource)}/roles`, whole(role, ROLE))
      if (there?.granted_to && !role.granted_to)
        await to.send('PATCH', `${at(resource)}/roles/${role.key}`, { granted_to: null })
    }
  }
  // What a role is derived from is a role of another resource, which must be there.
  for (const resource of resources)
    for (const { key, granted_to: granted } of Object.values(resource.roles))
      if (granted) await to.send('PATCH', `${at(resource)}/roles/${key}`, { granted_to: grantedOf(granted) })
  for (const role of parentsFirst(await from.list(`${from.schema}/roles`), (one) => one.extends))
    await put(to, `${to.schema}/roles`, whole(role, ROLE))

  return await copySets(from, to, new Map(resources.map(({ id, key }) => [id, key])))
}

const grantedOf = ({ when, users_with_role: rules }) => ({
  when,
  users_with_role: rules.map((rule) => pick(rule, ['role', 'on_resource', 'linked_by_relation', 'when'])),
})

async function copySets(from, to, resourceKeys) {
  const sets = (await from.list(`${from.schema}/condition_sets`)).filter((set) => !set.autogenerated)
  const keys = new Map(sets.map(({ id, key }) => [id, key]))
  const ids = new Map()
  for (const set of parentsFirst(sets, (one) => [keys.get(one.parent_id)])) {
    const parent = set.parent_id && { parent_id: ids.get(set.parent_id) }
    const resource = set.resource_id && { resource_id: resourceKeys.get(set.resource_id) }
    const fields = { ...whole(set, ['key', 'name', 'description', 'conditions']), ...parent }
    const made = await put(to, `${to.schema}/condition_sets`, fields, { type: set.type, ...resource })
    ids.set(set.id, made.id)
  }
  const rules = await from.list(`${from.facts}/set_rules`)
  for (const { user_set: users, permission, resource_set: things } of rules)
    await to.send('POST', `${to.facts}/set_rules`, {
      permission,
      user_set: ownName(users),
      is_role: users.startsWith(GENERATED),
      resource_set: ownName(things),
      is_resource: things.startsWith(GENERATED),
    })
  return rules
}

const ownName = (name) => (name.startsWith(GENERATED) ? name.slice(GENERATED.length) : name)

async function copyFacts(from, to, leaveOut) {
  const offTenants = await inactive(from, 'accounts')
  for (const key of offTenants)
    leaveOut(`tenant ${key} and what is in it`, 'is not active, and would be there')
  const isIn = ({ tenant }) => !offTenants.has(tenant)
  const tenants = (await from.list(`${from.facts}/tenants`)).filter(({ key }) => isIn({ tenant: key }))
  for (const tenant of tenants) await put(to, `${to.facts}/tenants`, whole(tenant, DESCRIBED))

  const offUsers = await inactive(from, 'users')
  const all = (await from.list(`${from.facts}/users`)).filter(({ key }) => {
    if (offUsers.has(key)) leaveOut(`user ${key}`, 'is not active, and would be there')
    else if (!USER_KEY.test(key)) leaveOut(`user ${key}`, 'has a key that Permit does not take')
    else return true
    return false
  })
  const people = await inBulk(all, {
    what: 'user',
    name: ['key'],
    fields: ['key', 'email', 'first_name', 'last_name', 'attributes'],
    shape: whole,
    write: async (operations) => await to.send('PUT', `${to.facts}/bulk/users`, { operations }),
    leaveOut,
  })
  for (const { key, associated_tenants: own } of people)
    for (const { tenant, status, roles } of own.filter(isIn))
      if (status === 'active' && roles.length === 0)
        await unlessThere(async () => await to.send('POST', `${to.facts}/tenants/${tenant}/users`, { key }))
  const users = new Set(people.map(({ key }) => key))
  console.log(`users: ${people.length} copied`)

  const things = (await from.list(`${from.facts}/resource_instances`)).filter(isIn)
  await inBulk(things, {
    what: 'instance',
    name: ['resource', 'key'],
    fields: ['resource', 'key', 'tenant', 'attributes'],
    write: async (operations) => await to.send('PUT', `${to.facts}/bulk/resource_instances`, { operations }),
    leaveOut,
  })
  console.log(`instances: ${things.length} read`)

  const tuples = (await from.list(`${from.facts}/relationship_tuples`)).filter(isIn)
  await inBulk(tuples, {
    what: 'relationship',
    name: ['subject', 'relation', 'object'],
    fields: ['subject', 'relation', 'object', 'tenant'],
    write: async (operations) =>
      await to.send('POST', `${to.facts}/relationship_tuples/bulk`, { operations }),
    leaveOut,
  })
  console.log(`relationships: ${tuples.length} read`)

  const held = (await from.list(`${from.facts}/role_assignments`)).filter(
    (grant) => isIn(grant) && users.has(grant.user),
  )
  const ending = await endingOf(from, new Set(held.map(({ user_id: id }) => id)))
  for (const { id, user, role } of held)
    if (ending.has(id)) leaveOut(`assignment ${user} ${role}`, 'ends at a time, and would not end there')
  const grants = held.filter(({ id }) => !ending.has(id))
  await inBulk(grants, {
    what: 'assignment',
    name: ['user', 'role'],
    fields: ['user', 'role', 'tenant', 'resource_instance'],
    write: async (operations) => await to.send('POST', `${to.facts}/role_assignments/bulk`, operations),
    leaveOut,
  })
  console.log(`assignments: ${held.length} read`)
  return { tenants, users: people, tuples, grants }
}

/** The keys of those that are not active. Permit's API has no word for it, so that Postern's own is asked. */
async function inactive({ send }, kind) {
  const keys = new Set()
  for (let skip = 0; ; skip += PER_PAGE) {
    const page = await send('GET', `/api/v1/${kind}?is_active=false&skip=${skip}&limit=${PER_PAGE}`)
    for (const { key } of page) keys.add(key)
    if (page.length < PER_PAGE) return keys
  }
}

/** The ids of the assignments that end at a time. */
async function endingOf({ send }, userIds) {
  const ids = new Set()
  for (const userId of userIds)
    for (const { id, expires_at: end } of await send('GET', `/api/v1/users/${userId}/roles`))
      if (end !== null) ids.add(id)
  return ids
}

/**
 * Writes `fields` of many at once; of those that are refused, what is refused by itself is left out.
 * @returns those that were written
 */
async function inBulk(items, { what, name, fields, shape = pick, write, leaveOut }) {
  const written = []
  const writeAll = async (some) => {
    try {
      await write(some.map((item) => shape(item, fields)))
      written.push(...some)
    } catch (error) {
      if (![400, 404, 409, 422].includes(error.status)) throw error
      if (some.length === 1)
        return leaveOut([what, ...name.map((field) => some[0][field])].join(' '), error.message)
      const middle = Math.ceil(some.length / 2)
      await writeAll(some.slice(0, middle))
      await writeAll(some.slice(middle))
    }
  }
  for (let start = 0; start < items.length; start += PER_REQUEST)
    await writeAll(items.slice(start, start + PER_REQUEST))
  return written
}

/** The items, each after those that `parentsOf` names by key. */
function parentsFirst(items, parentsOf) {
  const waiting = new Map(items.map((item) => [item.key, item]))
  const ordered = []
  const place = (key) => {
    const item = waiting.get(key)
    if (!item) return
    waiting.delete(key)
    for (const parent of parentsOf(item) ?? []) place(parent)
    ordered.push(item)
  }
  for (const { key } of items) place(key)
  return ordered
}

/** These fields of it, those that are null left away. */
const pick = (item, fields) =>
  Object.fromEntries(fields.flatMap((field) => (item[field] == null ? [] : [[field, item[field]]])))
/** These fields of it; what is null here becomes so there. */
const whole = (item, fields) =>
  Object.fromEntries(fields.flatMap((field) => (field in item ? [[field, item[field]]] : [])))
const pickEach = (map, fields) =>
  Object.fromEntries(Object.entries(map).map(([key, value]) => [key, pick(value, fields)]))

const { POSTERN_URL, POSTERN_KEY, PERMIT_API_URL = 'https://api.permit.io', PERMIT_API_KEY } = process.env
if (!POSTERN_URL || !POSTERN_KEY || !PERMIT_API_KEY) {
  console.error('Set POSTERN_URL, POSTERN_KEY and PERMIT_API_KEY.')
  process.exit(2)
}
await copy({ url: POSTERN_URL, key: POSTERN_KEY }, { url: PERMIT_API_URL, key: PERMIT_API_KEY }).catch(
  ({ message }) => {
    console.error(message)
    process.exitCode = 1
  },
)
