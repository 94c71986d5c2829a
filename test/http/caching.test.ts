import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'

t.test('answers to callers who say who they are may not be stored', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, anonymous, app } = postern
  const guest = await person('GUEST')
  const { client } = await anApiKey(postern)

  for (const [what, response] of [
    ['a record', await root.get('/api/v1/users/me')],
    ['a list', await root.get('/api/v1/users')],
    ['its head', await app.inject({ method: 'HEAD', url: '/api/v1/users/me' })],
    ['a refusal', await guest.client.get('/api/v1/users')],
    ['what is not there', await root.get(`/api/v1/accounts/${guest.id}`)],
    ['no token', await anonymous.get('/api/v1/users/me')],
    ['a body that does not fit', await root.post('/api/v1/roles', {})],
    ['an API key', await client.get('/v2/api-key/scope')],
    [
      'a decision',
      await client.post('/allowed', { user: { key: 'a' }, action: 'b', resource: { type: 'c' } }),
    ],
    ['tenants', await client.post('/allowed/all-tenants', {})],
    ['facts', await client.get('/facts/users')],
    ['an evaluation', await client.post('/access/v1/evaluation', {})],
    ['a new key', await root.post('/api/v1/api-keys', { name: 'x', access: 'read' })],
  ] as const) {
    t.equal(response.headers['cache-control'], 'no-store', `${what}: ${response.statusCode}`)
  }
  for (const path of ['/.well-known/jwks.json', '/.well-known/authzen-configuration']) {
    t.match((await anonymous.get(path)).headers['cache-control'], /^public, max-age=\d+$/, path)
  }
})
