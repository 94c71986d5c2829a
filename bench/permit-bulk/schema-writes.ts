import { randomUUID } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { post, report, type Server, send } from '../harness.ts'

/** How often each kind of write is made. */
const TIMES = 100
const FACTS = '/v2/facts/default/default'
const SCHEMA = '/v2/schema/default/default'

type Question = { user: string; action: string; type: string; key?: string }
type Answer = { allow: boolean; debug?: { rbac?: { code: string } } }
type Write = {
  /** What is timed; without it the write only prepares the next one. */
  what?: string
  method: 'POST' | 'PATCH' | 'DELETE'
  path: string
  body: object
  asks: { question: Question; isAllowed: boolean; isKnown?: boolean }[]
}

/** Writes to the schema among `roles` roles. Each is followed by a check, and the check must know of it. */
export async function schemaWrites({ url }: Server, key: string, roles: number): Promise<void> {
  const run = randomUUID().slice(0, 8)
  const times = new Map<string, number[]>()
  const checks: number[] = []
  for (const [path, body] of prepared(run)) await post(`${url}${path}`, body, key)
  for (let place = 0; place < TIMES; place++) {
    for (const { what, method, path, body, asks } of writesOf(run, place)) {
      const startedAt = performance.now()
      await send(method, `${url}${path}`, body, key)
      if (what !== undefined) times.set(what, [...(times.get(what) ?? []), performance.now() - startedAt])
      for (const { question, isAllowed, isKnown } of asks) {
        const asked = { ...questionOf(question), ...(isKnown !== undefined && { use_debugger: true }) }
        const askedAt = performance.now()
        const answer = (await (await post(`${url}/allowed`, asked, key)).json()) as Answer
        checks.push(performance.now() - askedAt)
        const wasKnown = answer.debug?.rbac?.code !== 'no_such_resource'
        if (answer.allow !== isAllowed || (isKnown !== undefined && wasKnown !== isKnown))
          throw new Error(`wrong answer after ${method} ${path}: ${JSON.stringify({ asked, answer })}`)
      }
    }
  }
  console.log(`  among ${roles.toLocaleString('en')} roles:`)
  for (const [what, taken] of times) report(what, taken, 'ms')
  report('the next check', checks, 'ms')
  report('the next check, longest', [Math.max(...checks)], 'ms')
}

const questionOf = ({ user, action, type, key }: Question) => ({
  user: { key: user },
  action,
  resource: { type, tenant: 'default', ...(key !== undefined && { key }) },
})

/** A file in a folder, and who owns the folder. */
const prepared = (run: string): [path: string, body: object][] => [
  [
    `${SCHEMA}/resources`,
    {
      key: `folder-${run}`,
      name: 'Folder',
      actions: { read: {} },
      roles: { owner: { permissions: ['read'] } },
    },
  ],
  [
    `${SCHEMA}/resources`,
    {
      key: `file-${run}`,
      name: 'File',
      actions: { read: {} },
      relations: { parent: `folder-${run}` },
      roles: { reader: { permissions: ['read'] } },
    },
  ],
  [`${FACTS}/users`, { key: `owner-${run}` }],
  [
    `${FACTS}/role_assignments`,
    { user: `owner-${run}`, role: 'owner', resource_instance: `folder-${run}:a`, tenant: 'default' },
  ],
  [
    `${FACTS}/relationship_tuples`,
    { subject: `folder-${run}:a`, relation: 'parent', object: `file-${run}:a`, tenant: 'default' },
  ],
]

function writesOf(run: string, place: number): Write[] {
  const name = `${run}-${place}`
  const [role, user, set, thing] = [`role-${name}`, `holder-${name}`, `set-${name}`, `thing-${name}`]
  const may = (action: string, isAllowed: boolean) => ({
    question: { user, action, type: 'document' },
    isAllowed,
  })
  const ownerReads = (isAllowed: boolean) => ({
    question: { user: `owner-${run}`, action: 'read', type: `file-${run}`, key: 'a' },
    isAllowed,
  })
  // No role may anything on a new resource, so that the check must tell it from one that is not there.
  const isThere = (isKnown: boolean) => ({
    question: { user, action: 'read', type: thing },
    isAllowed: false,
    isKnown,
  })
  const holder = { key: user, attributes: { set }, role_assignments: [{ role, tenant: 'default' }] }
  const rule = { user_set: set, permission: 'document:delete', resource_set: 'document', is_resource: true }
  const derivations = `${SCHEMA}/resources/file-${run}/roles/reader/implicit_grants`
  const derivation = { role: 'owner', on_resource: `folder-${run}`, linked_by_relation: 'parent' }
  return [
    {
      what: 'role created',
      method: 'POST',
      path: `${SCHEMA}/roles`,
      body: { key: role, name: role, permissions: ['document:read'] },
      asks: [],
    },
    {
      method: 'POST',
      path: `${FACTS}/users`,
      body: holder,
      asks: [may('read', true), may('update', false), isThere(false)],
    },
    {
      what: 'role changed',
      method: 'PATCH',
      path: `${SCHEMA}/roles/${role}`,
      body: { permissions: ['document:update'] },
      asks: [may('read', false), may('update', true)],
    },
    {
      what: 'resource created',
      method: 'POST',
      path: `${SCHEMA}/resources`,
      body: { key: thing, name: thing, actions: { read: {} } },
      asks: [isThere(true)],
    },
    {
      // A set alone changes no answer: the rule over it does.
      what: 'condition set created',
      method: 'POST',
      path: `${SCHEMA}/condition_sets`,
      body: { key: set, name: set, conditions: { 'user.set': { equals: set } } },
      asks: [may('delete', false)],
    },
    {
      what: 'set rule created',
      method: 'POST',
      path: `${FACTS}/set_rules`,
      body: rule,
      asks: [may('delete', true)],
    },
    {
      what: 'set rule deleted',
      method: 'DELETE',
      path: `${FACTS}/set_rules`,
      body: rule,
      asks: [may('delete', false)],
    },
    {
      what: 'role derivation created',
      method: 'POST',
      path: derivations,
      body: derivation,
      asks: [ownerReads(true)],
    },
    {
      what: 'role derivation deleted',
      method: 'DELETE',
      path: derivations,
      body: derivation,
      asks: [ownerReads(false)],
    },
  ]
}
