import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'

const POLICY = {
  version: 1,
  resources: { Post: { actions: ['read', 'write'] } },
  roles: { Reader: { permissions: ['Post:read'] }, Senior: { extends: ['Reader'] } },
}

t.test('tokens of those who held a role that a file leaves out end at once', async (t) => {
  const { root, person } = await buildTestApp(t)
  await root.post('/api/v1/policy', POLICY)
  const [reader, senior, other] = [await person('Reader'), await person('Senior'), await person('GUEST')]
  for (const { client } of [reader, senior, other])
    t.equal((await client.get('/api/v1/users/me')).statusCode, 200)

  const applied = await root.post('/api/v1/policy', { version: 1, resources: POLICY.resources })

  t.equal(applied.statusCode, 200, applied.body)
  t.equal((await reader.client.get('/api/v1/users/me')).statusCode, 401, 'the holder')
  t.equal((await senior.client.get('/api/v1/users/me')).statusCode, 401, 'who holds a role below')
  t.equal((await other.client.get('/api/v1/users/me')).statusCode, 200, 'nobody else')
})
