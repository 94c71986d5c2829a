import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { bodyExampleOf, contractOf, type Operation } from '../helpers/contract.ts'
import { NO_SUCH_ID } from '../helpers/hostile.ts'

const HOSTILE: unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e308,
  Number.MAX_SAFE_INTEGER + 2,
  '',
  ' ',
  'a',
  'a\0b',
  '\ud800',
  '\u202e\ufeff',
  '😀'.repeat(300),
  'x'.repeat(20_000),
  "' or 1=1; --",
  '%_\\',
  '{{7*7}}',
  '../../etc/passwd',
  'null',
  '1e400',
  '-0',
  NO_SUCH_ID.toUpperCase(),
  '2016-12-31T23:59:60Z',
  '9999-12-31T23:59:59-23:59',
  [],
  [null],
  ['a:b', 'a:b', {}],
  Array.from({ length: 2000 }, () => [[]]),
  {},
  { toString: 1, valueOf: 2, hasOwnProperty: 3 },
  { $ne: null, length: 1e9 },
  { type: 'x', '': { '': {} } },
]

t.test('nothing that a client sends gives a 500, and every answer is in the document', async (t) => {
  const postern = await buildTestApp(t, {
    env: {
      LOGIN_MAX_FAILURES: '100',
      LOGIN_MAX_FAILURES_PER_ADDRESS: '100000',
      REGISTRATIONS_PER_ADDRESS: '100000',
    },
  })
  const { person, signIn, as, root } = postern
  const contract = await contractOf(t, postern)
  // Whoever sends it may do everything, and may be locked out by what is sent.
  const attacker = await person('SUPER_ADMIN')
  const account = await postern.account()
  const role = (await root.post('/api/v1/roles', { name: 'victim' })).json<{ id: string }>().id
  const victim = await person('GUEST', { accountId: account })
  const ids: Record<string, string> = {
    user_id: victim.id,
    account_id: account,
    role_id: role,
    assignment_id: NO_SUCH_ID,
    code: 'x',
  }
  const pathOf = (path: string) => path.replaceAll(/\{(\w+)\}/g, (_, name: string) => ids[name] ?? NO_SUCH_ID)
  let client = contract.checked(attacker.client)

  for (const { name, method, path, operation } of contract.operations) {
    await t.test(name, async (t) => {
      let requests = 0
      const send = async (url: string, body?: unknown, headers?: Record<string, string>) => {
        requests++
        const response = await client.send(method, url, body, headers)
        if (response.statusCode === 401 && path !== '/api/v1/auth/login')
          client = contract.checked(as(await signIn(attacker.email)))
      }

      for (const parameter of operation.parameters ?? []) {
        for (const value of HOSTILE.filter((one) => typeof one !== 'object').map(String)) {
          if (parameter.in === 'query')
            await send(
              `${pathOf(path)}?${new URLSearchParams({ [parameter.name]: value })}`,
              bodyOf(operation),
            )
          if (parameter.in === 'header' && /^[\x20-\x7e]*$/.test(value))
            await send(pathOf(path), bodyOf(operation), { [parameter.name]: value.slice(0, 8000) })
          if (parameter.in === 'path' && value !== '')
            await send(
              pathOf(
                path.replace(`{${parameter.name}}`, encodeURIComponent(value.toWellFormed().slice(0, 1500))),
              ),
              bodyOf(operation),
            )
        }
      }
      const [type = '', media] = Object.entries(operation.requestBody?.content ?? {})[0] ?? []
      for (const property of Object.keys(media?.schema?.properties ?? {})) {
        for (const value of HOSTILE) {
          const body = { ...bodyOf(operation), [property]: value }
          if (type === 'application/json') await send(pathOf(path), body)
          else
            await send(
              pathOf(path),
              new URLSearchParams(
                Object.entries(body).map(
                  ([key, one]) =>
                    [key, typeof one === 'object' ? JSON.stringify(one) : String(one)] as [string, string],
                ),
              ).toString(),
              { 'content-type': type },
            )
        }
      }
      for (const value of type === 'application/json' ? HOSTILE : []) {
        await send(pathOf(path), JSON.stringify(value), { 'content-type': type })
      }
      t.ok(requests >= 0, `${requests} requests`)
    })
  }

  t.ok((await root.get('/health/ready')).statusCode === 200)

  function bodyOf(operation: Operation): Record<string, unknown> | undefined {
    const example = bodyExampleOf(operation)
    if (!example) return undefined
    const own = Object.keys(example).filter((key) => key in ids)
    return { ...example, ...Object.fromEntries(own.map((key) => [key, ids[key]])) }
  }
})
