import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { runPostern, spawnPostern } from '../helpers/processes.ts'

/** A service in this process, and `postern` beside it on the same database. */
async function withCommand(t: Test) {
  const service = await buildTestApp(t)
  const env = { DATABASE_URL: service.databaseUrl, SECRET_KEY }
  const folder = t.testdir()
  const fileOf = async (name: string, text: string) => {
    await writeFile(join(folder, name), text)
    return join(folder, name)
  }
  return {
    ...service,
    folder,
    fileOf,
    postern: async (...args: string[]) => await runPostern(t, args, { env }),
  }
}

t.test('a template is applied, asked, exported, changed and applied again', async (t) => {
  const { postern, folder, fileOf, root } = await withCommand(t)

  t.match(await postern('policy', 'template', 'list'), {
    code: 0,
    stdout: /^ {2}blog-rbac +Viewers read posts/m,
  })
  const first = await postern('policy', 'template', 'apply', 'blog-rbac')
  t.match(first, { code: 0, stderr: '', stdout: /^\+ role Editor$/m })
  t.match(await postern('policy', 'template', 'apply', 'blog-rbac'), {
    code: 0,
    stdout: 'Nothing to change.\n',
  })
  t.match(await postern('policy', 'template', 'apply', 'none'), {
    code: 1,
    stderr: 'There is no such template.\n',
  })

  const path = join(folder, 'policy.yaml')
  t.match(await postern('policy', 'export', '--output', path), { code: 0, stdout: '' })
  const exported = await readFile(path, 'utf8')
  t.match(exported, /^ {2}Editor:\n {4}permissions:\n {6}- Post:create$/m)
  t.match(await postern('policy', 'diff', path), { code: 0, stdout: 'Nothing to change.\n' })

  const smaller = await fileOf(
    'smaller.yaml',
    exported.replace(/ {2}Viewer:\n {4}permissions:\n {6}- Post:read\n/, ''),
  )
  const diff = await postern('policy', 'diff', smaller)
  t.match(diff, { code: 0, stdout: '- role Viewer\n1 to delete, 0 to add, 0 to change.\n' })
  t.match(await postern('policy', 'apply', smaller, '--dry-run'), { code: 0, stdout: diff.stdout })
  t.equal((await root.get('/api/v1/roles?key=Viewer')).json<unknown[]>().length, 1)
  t.match(await postern('policy', 'apply', smaller), { code: 0, stdout: diff.stdout })
  t.equal((await root.get('/api/v1/roles?key=Viewer')).json<unknown[]>().length, 0)
})

t.test('a running service sees what the command line has applied', async (t) => {
  const { services, databaseUrl } = await withCommand(t)
  const { decisions } = services.modelOf('00000000-0000-7000-8000-000000000001')
  const mayRead = async () =>
    (
      await decisions.check({
        user: { key: 'alice' },
        action: { name: 'read' },
        resource: { type: 'record', key: 'record-1', tenant: 'default' },
      })
    ).allowed
  services.start()

  t.equal(await mayRead(), false)
  const env = { DATABASE_URL: databaseUrl, SECRET_KEY }
  await spawnPostern(t, ['policy', 'template', 'apply', 'authzen-certification'], { env }).ended

  const until = Date.now() + 5000
  while (!(await mayRead()) && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 20))
  t.equal(await mayRead(), true)
})

t.test('check says ALLOWED or DENIED, and with --explain why', async (t) => {
  const { postern } = await withCommand(t)
  await postern('policy', 'template', 'apply', 'authzen-certification')

  t.match(await postern('check', 'alice', 'read', 'record:record-1'), { code: 0, stdout: 'ALLOWED\n' })
  t.match(await postern('check', 'mallory', 'read', 'record'), { code: 0, stdout: 'DENIED\n' })
  const why = await postern('check', 'alice', 'read', 'record:record-1', '--explain')
  t.match(why, { code: 0, stdout: /^ALLOWED: .*reader/ })
})

t.test('a file of expected decisions ends with exit code 1 when one differs', async (t) => {
  const { postern, fileOf } = await withCommand(t)
  await postern('policy', 'template', 'apply', 'authzen-certification')
  const tests = (expected: string) => `tests:
  - { user: alice, action: read, resource: 'record:record-1', expect: allow }
  - { user: bob, action: write, resource: 'record:record-2', expect: allow }
  - name: bob writes what is not archived
    user: bob
    action: write
    resource: record:record-1
    expect: ${expected}
  - { user: alice, action: delete, resource: record, action_properties: { soft: true }, expect: allow }
`

  const right = await postern('policy', 'test', await fileOf('right.yaml', tests('deny')))
  t.match(right, { code: 0, stdout: /4 as expected, 0 not\.\n$/ })
  const wrong = await postern('policy', 'test', await fileOf('wrong.yaml', tests('allow')))
  t.match(wrong, { code: 1, stdout: /^NOT OK bob writes what is not archived: allow expected$/m })
})

t.test('what is wrong with a file is one sentence', async (t) => {
  const { postern, fileOf } = await withCommand(t)

  t.match(await postern('policy', 'apply', '/none/such.yaml'), {
    code: 1,
    stderr: /^Cannot read \/none\/such\.yaml: /,
  })
  const notYaml = await fileOf('not.yaml', 'version: [')
  t.match(await postern('policy', 'apply', notYaml), { code: 1, stderr: /is not valid YAML/ })
  const unknown = await fileOf('unknown.yaml', 'version: 1\nroles: { a: { may: [x] } }')
  t.match(await postern('policy', 'apply', unknown), { code: 1, stderr: /roles\/a\/may is not known here/ })
  const elsewhere = await postern('policy', 'export', '--environment', 'default/none')
  t.match(elsewhere, { code: 1, stderr: /environment/i })
})
