import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { basic, sendForm } from '../helpers/oauth.ts'
import { eventually, runPostern } from '../helpers/processes.ts'

const SECRET = /^Secret: ([\w-]{43}) {3}\(shown only now\)$/m

t.test('clients are registered, listed, given another secret and deleted at the command line', async (t) => {
  const service = await buildTestApp(t)
  const env = { DATABASE_URL: service.databaseUrl, SECRET_KEY }
  const postern = async (...args: string[]) => await runPostern(t, ['clients', ...args], { env })
  const works = async (client_id: string, client_secret: string): Promise<number> => {
    const client = basic({ client_id, client_secret, etag: '' })
    return (await sendForm(service, '/oauth2/token', { grant_type: 'client_credentials' }, client)).statusCode
  }

  const created = await postern(
    'create',
    'orders',
    '--scopes',
    'post:read, post:write',
    '--grants',
    'client_credentials,token-exchange',
  )
  const id = /with the id (\S+)\.$/m.exec(created.stdout)?.[1] ?? ''
  const secret = SECRET.exec(created.stdout)?.[1] ?? ''
  t.match([created.code, created.stderr], [0, ''])
  t.equal(await works(id, secret), 200)

  const own = await postern('create', 'own', '--account', 'default', '--dpop', '--json')
  t.match(JSON.parse(own.stdout), { account_id: service.home, dpop_bound_access_tokens: true })
  t.match((await postern('list')).stdout, `${id}   orders: post:read post:write, by client_secret_basic`)

  const rotated = await postern('rotate-secret', id, '--hours', '0')
  t.match(rotated.stdout, SECRET)
  // A service keeps the clients in use at hand for a second.
  await eventually(async () => (await works(id, secret)) === 401)
  t.equal(await works(id, secret), 401)
  t.equal(await works(id, SECRET.exec(rotated.stdout)?.[1] ?? ''), 200)

  t.match((await postern('delete', id)).stdout, 'Deleted the client orders.')
  t.match(await postern('delete', id), { code: 1, stderr: 'OAuth client does not exist.\n' })
  t.match(await postern('create', 'x', '--auth', 'magic'), { code: 2 })
  t.match(await postern('create', 'x', '--account', 'nope'), { code: 1, stderr: 'Account does not exist.\n' })
  t.match(await postern('create', 'x', '--scopes', 'postern.users:admin'), { code: 1 })
})
