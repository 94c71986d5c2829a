import t from 'tap'
import { createServices } from '../../src/services.ts'
import { freshDatabase } from '../helpers/database.ts'
import { SECRET_KEY, testConfig } from '../helpers/config.ts'
t.test('x', async (t) => {
  const { url } = await freshDatabase(t)
  const s = createServices(testConfig(), { databaseUrl: url, secretKey: SECRET_KEY })
  let a = performance.now()
  for (let i = 0; i < 10; i++)
  await s.database.pool.query(`insert into audit_events (id, environment_id, action, outcome, actor_type, details, personal_commitment)
    select gen_random_uuid(), (select id from environments limit 1), 'user.updated', 'success', 'system', '{"fields":["email"]}', null from generate_series(1, 10000)`)
  console.error('insert', Math.round(performance.now() - a))
  a = performance.now(); await s.auditChain.seal(); console.error('seal', Math.round(performance.now() - a))
  a = performance.now(); const v = await s.auditChain.verify(); console.error('verify', Math.round(performance.now() - a), v.fault, v.state.events, Math.round(process.memoryUsage().rss/1e6))
  a = performance.now(); let n = 0; for await (const x of s.auditChain.exportLines({})) n += x.length; console.error('export', Math.round(performance.now() - a), n)
  await s.close()
})
