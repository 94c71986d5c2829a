import t, { type Test } from 'tap'
import { anEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { runPostern } from '../helpers/processes.ts'

const KEY = /^Key: (permit_key_[0-9A-Za-z]{86}) {3}\(shown only now\)$/m
const users = '/api/v1/users'

async function withCommand(t: Test) {
  const service = await buildTestApp(t)
  const env = { DATABASE_URL: service.databaseUrl, SECRET_KEY }
  return {
    ...service,
    postern: async (...args: string[]) => await runPostern(t, ['api-keys', ...args], { env }),
  }
}

t.test('api-keys', async (t) => {
  const service = await withCommand(t)
  const { postern, as, root } = service
  const environment = await anEnvironment(service)
  let id = ''

  await t.test('create prints a key that works', async (t) => {
    const { code, stdout, stderr } = await postern('create', 'deployment', '--expires', '90d')

    t.equal(code, 0)
    t.equal(stderr, '')
    t.match(stdout, /^Created the API key deployment with the id \S+: full access to default\/default\.$/m)
    t.equal((await as(KEY.exec(stdout)?.[1] ?? '').get(users)).statusCode, 200)
    const [shown] = (await root.get('/api/v1/api-keys')).json<{ id: string; expires_at: string }[]>()
    const days = (Date.parse(shown?.expires_at ?? '') - Date.now()) / 86_400_000
    t.ok(days > 89 && days <= 90)
    id = shown?.id ?? ''
  })
  await t.test('create takes an environment, an access and a time, and prints JSON', async (t) => {
    const { code, stdout } = await postern(
      ...['create', 'reports', '--access', 'read', '--environment', environment.name],
      ...['--expires', '2100-01-01T00:00:00Z', '--json'],
    )

    t.equal(code, 0)
    const issued = JSON.parse(stdout) as { key: string }
    t.match(issued, {
      name: 'reports',
      access: 'read',
      environment: environment.name,
      expires_at: '2100-01-01T00:00:00.000Z',
    })
    t.same((await as(issued.key).get(users)).json(), [])
  })
  await t.test('create takes a project, or everything', async (t) => {
    const [project, all] = [
      await postern('create', 'p', '--project', 'default'),
      await postern('create', 'a', '--all-environments', '--access', 'write'),
    ]

    t.match(project.stdout, 'full access to every environment of default.')
    t.match(all.stdout, 'write access to every environment.')
  })
  await t.test('list shows them without their secrets', async (t) => {
    const { code, stdout } = await postern('list')
    const json = await postern('list', '--json')

    t.equal(code, 0)
    t.match(
      stdout,
      new RegExp(`^ {2}${id} {3}….{4} {2}deployment: full access to default/default, until 20`, 'm'),
    )
    t.match(stdout, `reports: read access to ${environment.name}, until 2100-01-01T00:00:00.000Z`)
    t.equal((JSON.parse(json.stdout) as object[]).length, 4)
    t.notMatch(stdout + json.stdout, 'permit_key_')
  })
  await t.test('revoke refuses one from then on', async (t) => {
    const { code, stdout } = await postern('revoke', id)

    t.equal(code, 0)
    t.equal(stdout, 'Revoked the API key deployment.\n')
    t.match((await postern('list')).stdout, /deployment: .*, revoked 20/)
    const events = (await root.get(`/api/v1/audit-events?target_id=${id}`)).json<
      { action: string; actor_type: string }[]
    >()
    t.same(events.map(({ action, actor_type }) => `${actor_type} ${action}`).sort(), [
      'system api_key.created',
      'system api_key.revoked',
    ])
  })

  for (const [name, args, code, sentence] of [
    ['no name', ['create'], 2, '"postern api-keys create" takes NAME, and was given 0'],
    [
      'an access that is none',
      ['create', 'x', '--access', 'admin'],
      2,
      '--access must be one of full, write, read',
    ],
    [
      'a time that is none',
      ['create', 'x', '--expires', 'soon'],
      2,
      '--expires must match format "date-time"',
    ],
    [
      'a time that was',
      ['create', 'x', '--expires', '2001-01-01T00:00:00Z'],
      1,
      'The expires_at must be in the future.',
    ],
    ['no time at all', ['create', 'x', '--expires', '0d'], 2, '--expires must be between 1h and 36500d'],
    [
      'two things to open',
      ['create', 'x', '--project', 'a', '--all-environments'],
      2,
      'Give one of --environment',
    ],
    ['an unknown environment', ['create', 'x', '--environment', 'nope'], 1, 'Environment does not exist.'],
    [
      'an environment that is none',
      ['create', 'x', '--environment', 'a/b/c'],
      1,
      'Environment does not exist.',
    ],
    ['an unknown project', ['create', 'x', '--project', 'nope'], 1, 'Project does not exist.'],
    ['an id that is none', ['revoke', 'x'], 2, '--id must match format "uuid"'],
    ['an unknown id', ['revoke', '0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40'], 1, 'API key does not exist.'],
  ] as const) {
    await t.test(`${name} is refused`, async (t) => {
      const { code: ended, stdout, stderr } = await postern(...args)

      t.equal(ended, code)
      t.match(stderr, sentence)
      t.equal(stdout, '')
    })
  }

  await t.test('each explains itself', async (t) => {
    for (const command of ['create', 'list', 'revoke']) {
      const { code, stdout } = await postern(command, '--help')
      t.equal(code, 0)
      t.match(stdout, `Usage:\n  postern api-keys ${command}`)
    }
  })
})
