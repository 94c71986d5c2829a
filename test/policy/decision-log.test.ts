import t from 'tap'
import { anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'

const BODY = { user: { key: 'ada' }, action: 'read', resource: { type: 'Post', tenant: 'default' } }

t.test('a decision about an environment that is gone holds up no other one', async (t) => {
  const postern = await buildTestApp(t, { env: { DECISION_LOG: 'database' } })
  const { root, services } = postern
  const { id, name } = await anEnvironment(postern)
  const logged = async () =>
    (await services.database.pool.query('select user_key from decision_log order by id')).rows

  t.equal((await root.post('/allowed', BODY, inEnvironment(name))).statusCode, 200)
  t.equal((await root.delete(`/api/v1/environments/${id}`)).statusCode, 204)
  await root.post('/allowed', BODY)
  // Whoever asks for reasons is answered, and so written down too.
  await root.post('/allowed', { ...BODY, user: { key: 'bob' }, use_debugger: true })

  const end = Date.now() + 5000
  while ((await logged()).length < 2 && Date.now() < end) await new Promise((done) => setTimeout(done, 50))
  t.same(await logged(), [{ user_key: 'ada' }, { user_key: 'bob' }])
})
