import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import type { Report } from '../../src/permit-import/report.ts'
import { SYSTEM } from '../../src/principal.ts'
import { anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { listenForSdk } from '../helpers/permit.ts'
import { runPostern, spawnPostern } from '../helpers/processes.ts'
import {
  contentsOf,
  ENVIRONMENT,
  fakeSource,
  importFrom,
  KEY,
  leftOut,
  PROJECT,
  recordedLists,
} from './source.ts'

const execute = promisify(execFile)
const TO_PERMIT = fileURLToPath(new URL('../../examples/to-permit/copy.js', import.meta.url))

/** Of the recorded environment. */
const LEFT_OUT = [
  'proxy configuration gateway: its secret was left away: no proxy is here that would show it',
  'invitation new@acme.test: was sent by the source, and its link leads there: invite again here',
]

const answering =
  (status: number, headers: Record<string, string> = {}, body = '{}') =>
  (response: ServerResponse) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body)

/** How a source can fail, what is said of it, and how long is waited before each further attempt. */
const FAULTS: [string, (response: ServerResponse) => unknown, RegExp, number[]][] = [
  ['401', answering(401), /^The key is not accepted: \S+ is answered with 401\.$/, []],
  ['403', answering(403), /^The key does not open \S+: it is answered with 403\.$/, []],
  ['404', answering(404), /^\S+ is answered with 404: is this the address of the API, and is/, []],
  [
    '429',
    answering(429, { 'retry-after': '7' }),
    /answers 429 to \S+, after 8 attempts\.$/,
    Array(7).fill(7000),
  ],
  [
    '500',
    answering(500),
    /answers 500 to \S+, after 8 attempts\.$/,
    [500, 1000, 2000, 4000, 8000, 16_000, 32_000],
  ],
  [
    'a connection that is cut',
    (response) => response.writeHead(200).write('[{"key":"x"},', () => response.destroy()),
    /does not answer \(\w+\) to \S+, after 8 attempts\.$/,
    [500, 1000, 2000, 4000, 8000, 16_000, 32_000],
  ],
  [
    'a web page',
    answering(200, { 'content-type': 'text/html' }, '\n<!doctype html><title>Sign in</title>'),
    /is a web page and not JSON: is this the address of the API\?$/,
    [],
  ],
  ['invalid JSON', answering(200, {}, '[{"key":"x"}'), /^What is answered to \S+ is not valid JSON\.$/, []],
]

/** Where each of the faults cuts the copying of facts, in the order in which they are asked for. */
const FACTS_ASKED = [
  ...['F/tenants 1', 'F/tenants 2', 'F/users 1', 'F/users 2'],
  ...['F/resource_instances 1', 'F/resource_instances 2', 'F/relationship_tuples 1', 'F/role_assignments 1'],
]

t.test('an environment as Permit shows it', async (t) => {
  const postern = await buildTestApp(t)
  const lists = await recordedLists()
  const fresh = async () => await anEnvironment(postern)
  const auditCount = async (id: string) =>
    (
      await postern.services
        .modelOf(id)
        .audit.listEvents({}, { limit: 1, skip: 0, sort: 'occurred_at', total: true })
    ).total
  const whole = await fresh()

  await t.test('is copied whole from both shapes of pages, and decides as it does there', async (t) => {
    const counted = await fresh()
    for (const environment of [whole, counted]) {
      const { url } = await fakeSource(t, lists, { counted: environment === counted, perPage: 2 })
      const run = await importFrom(url, postern, { environmentId: environment.id })
      t.equal(run.error, undefined)
      t.same(leftOut(run), LEFT_OUT)
    }
    const contents = await contentsOf(postern, whole.id)
    t.same(await contentsOf(postern, counted.id), contents)
    t.match(contents['proxy_configs'], [
      {
        key: 'gateway',
        secret: '',
        mapping_rules: [{ headers: { 'x-tenant': 'acme' } }, { url_type: 'regex' }],
      },
    ])
    t.notMatch(JSON.stringify(contents), /s3cret/)

    const { decisions } = postern.services.modelOf(whole.id)
    const may = async (user: string, name: string, type: string, key?: string) =>
      (
        await decisions.check({
          user: { key: user },
          action: { name },
          resource: { type, tenant: 'acme', ...(key !== undefined && { key }) },
        })
      ).allowed
    t.equal(await may('ida', 'read', 'document'), true, 'by a role that extends another')
    t.equal(await may('ida', 'edit', 'document', 'd1'), true, 'by a set below another, on a draft')
    t.equal(await may('ida', 'edit', 'document', 'd2'), false, 'which a final one is not')
    t.equal(await may('ida', 'share', 'folder'), false, 'the rule is about another role')
    t.equal(await may('auth0|elon', 'edit', 'document', 'd2'), true, 'by a derived role')
    t.equal(await may('auth0|elon', 'edit', 'document', 'd1'), false)
    t.equal(await may('ines', 'read', 'document'), false)
  })

  await t.test('is not half there after a fault, and is whole when the source is well again', async (t) => {
    const { id: environmentId } = await fresh()
    let [fault] = FAULTS
    let brokenAt: string | undefined = 'S/roles 1'
    const { url, asked } = await fakeSource(t, lists, {
      perPage: 2,
      interfere: (path, page, response) => {
        if (`${path} ${page}` !== brokenAt) return false
        fault?.[1](response)
        return true
      },
    })

    const before = await auditCount(environmentId)
    for (fault of FAULTS) {
      const [name, , said, waits] = fault
      const run = await importFrom(url, postern, { environmentId })
      t.match(run.error, said, `${name} is said`)
      t.same(run.waited, waits)
    }
    t.equal(await auditCount(environmentId), before, 'nothing is written while definitions are read')

    let report: Report | undefined
    for (const [index, place] of FACTS_ASKED.entries()) {
      asked.length = 0
      fault = FAULTS[index]
      brokenAt = place
      const run = await importFrom(url, postern, { environmentId, ...(report && { report }) })
      t.match(run.error, fault?.[2], `${fault?.[0]} at ${place}`)
      t.equal(run.report.finished_at, null)
      const goneOnAt = FACTS_ASKED[index - 1] ?? place
      t.equal(
        asked.find((one) => /^F\/(?!set_rules)/.test(one)),
        goneOnAt,
        'it goes on where it stopped',
      )
      report = run.report
    }
    brokenAt = undefined
    const last = await importFrom(url, postern, { environmentId, ...(report && { report }) })
    t.equal(last.error, undefined)
    t.same(leftOut(last), LEFT_OUT)
    t.match(last.report, { finished_at: String, facts: { users: { read: 3, created: 3, is_done: true } } })
    t.same(await contentsOf(postern, environmentId), await contentsOf(postern, whole.id))
  })

  await t.test('is whole after the command was killed and started again', async (t) => {
    const more = Array.from({ length: 22 }, (_, index) => ({ id: `m${index}`, key: `more-${index}` }))
    const all = { ...lists, users: [...(lists.users ?? []), ...more, 'no user'] }
    let isHeld = true
    const { url, asked } = await fakeSource(t, all, {
      perPage: 2,
      // The twelfth page never comes.
      interfere: (path, page) => isHeld && path === 'F/users' && page === 12,
    })
    const path = join(t.testdir(), 'report.json')
    const env = { DATABASE_URL: postern.databaseUrl, SECRET_KEY, PERMIT_API_KEY: KEY }
    const [uncut, cut] = [await fresh(), await fresh()]
    const from = `${PROJECT}/${ENVIRONMENT}`
    const args = (environment: string, ...further: string[]) => [
      ...['policy', 'import-permit', '--api-url', url, '--environment', environment, ...further],
    ]
    const resumable = args(cut.name, '--from', from, '--report', path)

    const { child, ended } = spawnPostern(t, resumable, { env })
    while (!asked.includes('F/users 12') && child.exitCode === null) await sleep(20)
    child.kill('SIGKILL')
    t.match(await ended, { signal: 'SIGKILL' })
    const left = JSON.parse(await readFile(path, 'utf8'))
    t.match(left, { finished_at: null, facts: { users: { read: 20, next_page: 11, is_done: false } } })

    isHeld = false
    asked.length = 0
    const other = await runPostern(t, args(cut.name, '--from', `${PROJECT}/other`, '--report', path), { env })
    t.match(other, { code: 1, stderr: /is the report of another import: give the name of another file/ })
    t.same(asked, [])

    const resumed = await runPostern(t, resumable, { env })
    t.equal(resumed.code, 0)
    t.match(resumed.stdout, /^Nothing to change\.$/m, 'the definitions are there')
    t.notOk(asked.includes('F/tenants 1') || asked.includes('F/users 10'), 'what was done is not read again')
    t.ok(asked.includes('F/users 11'))

    const atOnce = await runPostern(t, args(uncut.name), { env })
    t.equal(atOnce.code, 0)
    t.same(await contentsOf(postern, cut.id), await contentsOf(postern, uncut.id))
    const saidOf = (stdout: string) => stdout.split('\n').filter((line) => line.startsWith('!'))
    t.same(saidOf(resumed.stdout), saidOf(atOnce.stdout))
    // A page was written after the last report of the process that was killed.
    const { finished_at: finishedAt, facts } = JSON.parse(await readFile(path, 'utf8'))
    t.ok(finishedAt)
    t.match(facts.users, { read: 26, created: 23, unchanged: 2, left_out: 1 })
    t.match(facts.assignments, { read: 2, created: 2 })
  })

  await t.test('goes on from Postern to whatever speaks the API', async (t) => {
    const { url } = await listenForSdk(t, postern)
    const keyOf = async ({ id }: { id: string }, access: 'full' | 'read') =>
      (await postern.services.apiKeys.createKey(SYSTEM, { name: 'test', access }, id)).key
    const source = await keyOf(whole, 'read')
    const copyTo = async (target: { id: string }) => {
      const env = {
        ...{ POSTERN_URL: url, POSTERN_KEY: source },
        ...{ PERMIT_API_URL: `${url}/`, PERMIT_API_KEY: await keyOf(target, 'full') },
      }
      type Ended = { code?: number; stdout: string }
      const { code = 0, stdout }: Ended = await execute(process.execPath, [TO_PERMIT], { env }).catch(
        (error: Ended) => error,
      )
      const said = stdout.trimEnd().split('\n')
      const named = said.filter((line) => line.startsWith('!'))
      const surplus = named.filter((line) => line.endsWith('is there, and not here: remove it there'))
      const leftOut = named.length - surplus.length
      t.equal(said.at(-1), leftOut === 0 ? 'Everything was copied.' : `${leftOut} left out.`)
      t.equal(code, surplus.length === 0 ? 0 : 1)
      return named.sort()
    }
    const { proxy_configs: _, ...wanted } = await contentsOf(postern, whole.id)

    const target = await fresh()
    t.same(await copyTo(target), [])
    t.same(await contentsOf(postern, target.id), { ...wanted, proxy_configs: [] })
    t.same(await copyTo(target), [], 'it may be repeated')
    t.same(await contentsOf(postern, target.id), { ...wanted, proxy_configs: [] })

    const header = inEnvironment(whole.name)
    const named = async (kind: string, key: string): Promise<string> =>
      (await postern.root.get(`/api/v1/${kind}?key=${encodeURIComponent(key)}`, header)).json()[0].id
    const [acme, ida, reader] = [
      await named('accounts', 'acme'),
      await named('users', 'ida'),
      await named('roles', 'reader'),
    ]
    const statuses = [
      await postern.root.patch(
        `/api/v1/accounts/${await named('accounts', 'globex')}`,
        { is_active: false },
        header,
      ),
      await postern.root.patch(`/api/v1/users/${await named('users', 'ines')}`, { is_active: false }, header),
      await postern.root.post(
        `/api/v1/users/${ida}/roles`,
        { role_id: reader, account_id: acme, expires_at: '2099-01-01T00:00:00.000Z' },
        header,
      ),
    ].map(({ statusCode }) => statusCode)
    t.same(statuses, [200, 200, 201])
    const [here, role] = [postern.as(await keyOf(whole, 'full')), 'document/roles/editor']
    const placeHere = (await here.get('/v2/api-key/scope')).json()
    const pathHere = `${placeHere.project_id}/${placeHere.environment_id}`
    const cleared = [
      await here.patch(`/v2/facts/${pathHere}/users/ida`, { first_name: null, attributes: {} }),
      await here.patch(`/v2/schema/${pathHere}/resources/${role}`, { granted_to: null, description: null }),
    ].map(({ statusCode }) => statusCode)
    t.same(cleared, [200, 200])
    const surplus = await copyTo(target)
    t.same(
      surplus.filter((line) => line.endsWith('remove it there')),
      [
        '! tenant globex: is there, and not here: remove it there',
        '! user ines: is there, and not here: remove it there',
      ],
    )
    const repeated = await contentsOf(postern, target.id)
    const now = await contentsOf(postern, whole.id)
    const idaOf = ({ users = [] }: typeof now) => users.find(({ key }) => key === 'ida')
    t.match(idaOf(repeated), { first_name: null, attributes: {} })
    t.same(repeated['policy'], now['policy'])

    const occupied = await fresh()
    const there = postern.as(await keyOf(occupied, 'full'))
    const place = (await there.get('/v2/api-key/scope')).json()
    const facts = `/v2/facts/${place.project_id}/${place.environment_id}`
    await there.post(`${facts}/users`, { key: 'thief', email: 'elon@acme.test' })

    t.match(await copyTo(occupied), [
      '! assignment ida reader: ends at a time, and would not end there',
      '! tenant globex and what is in it: is not active, and would be there',
      /^! user auth0\|elon: PUT \S+\/bulk\/users is answered with 409: .*DUPLICATE_ENTITY/,
      '! user ines: is not active, and would be there',
      '! user thief: is there, and not here: remove it there',
    ])
    const contents = await contentsOf(postern, occupied.id)
    const namesOf = (list: string, field: string) => contents[list]?.map((item) => item[field])
    t.same(namesOf('users', 'key'), ['ida', 'thief'])
    t.same(namesOf('tenants', 'key'), ['acme', 'default'])
    t.same(namesOf('role_assignments', 'role'), ['chief'])
  })
})
