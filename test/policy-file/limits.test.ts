import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { isProblem } from '../helpers/hostile.ts'

const many = <T>(count: number, entry: T): Record<string, T> =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, entry]))

t.test('a file defines no more of anything than the API lets one define', async (t) => {
  const { root } = await buildTestApp(t)
  const Post = { actions: ['read'] }

  for (const [what, file] of [
    ['resources', { resources: many(1001, {}) }],
    ['roles', { roles: many(2001, {}) }],
    ['attributes of users', { user_attributes: many(501, 'string') }],
    ['actions', { resources: { Post: { actions: many(1001, {}) } } }],
    ['action groups', { resources: { Post: { action_groups: many(201, []) } } }],
    ['attributes', { resources: { Post: { attributes: many(501, 'string') } } }],
    ['relations', { resources: { Post: { relations: many(201, 'Post') } } }],
    ['roles of a resource', { resources: { Post: { roles: many(201, {}) } } }],
  ] as const) {
    isProblem(t, await root.post('/api/v1/policy', { version: 1, ...file }), 'limit_reached', what)
  }
  t.notOk((await root.get('/api/v1/policy')).json<{ resources?: object }>().resources, 'nothing was written')
  const most = await root.post('/api/v1/policy', { version: 1, resources: { ...many(999, {}), Post } })
  t.equal(most.statusCode, 200, most.body.slice(0, 200))
})
