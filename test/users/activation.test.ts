import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'

t.test('deactivation and reactivation heed If-Match', async (t) => {
  const { root, person, account } = await buildTestApp(t)
  const { id } = await person()
  const accountId = await account()
  const paths = [`/api/v1/users/${id}`, `/api/v1/accounts/${accountId}`]

  for (const path of paths) {
    const { etag = '' } = (await root.get(path)).headers
    const stale = await root.post(`${path}/deactivate`, undefined, { 'if-match': '"999"' })
    const unchanged = await root.get(path)
    const current = await root.post(`${path}/deactivate`, undefined, { 'if-match': etag })
    const again = await root.post(`${path}/reactivate`, undefined, { 'if-match': etag })

    t.equal(stale.statusCode, 412, path)
    t.equal(unchanged.json<{ is_active: boolean }>().is_active, true, path)
    t.equal(current.statusCode, 200, path)
    t.equal(current.json<{ is_active: boolean }>().is_active, false, path)
    t.equal(again.statusCode, 412, path)
  }
})
