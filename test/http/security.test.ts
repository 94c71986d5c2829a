import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'

t.test('browsers of a named origin may call the API and read its headers', async (t) => {
  const { app } = await buildTestApp(t, {
    env: { CORS_ORIGINS: 'https://app.example.com, https://admin.example.com' },
  })

  const preflight = await app.inject({
    method: 'OPTIONS',
    url: '/api/v1/users/me',
    headers: {
      origin: 'https://admin.example.com',
      'access-control-request-method': 'PATCH',
      'access-control-request-headers': 'authorization,if-match',
    },
  })
  const answer = await app.inject({ url: '/api/v1/users/me', headers: { origin: 'https://app.example.com' } })

  t.equal(preflight.statusCode, 204)
  t.equal(preflight.headers['access-control-allow-origin'], 'https://admin.example.com')
  t.match(preflight.headers['access-control-allow-methods'], /PATCH/)
  t.match(preflight.headers['access-control-allow-headers'], /if-match/)
  t.equal(answer.headers['access-control-allow-origin'], 'https://app.example.com')
  t.match(answer.headers['access-control-expose-headers'], /etag.*link.*location/)
  t.notOk(answer.headers['access-control-allow-credentials'], 'no cookies are taken along')
})

t.test('browsers of other origins are told nothing', async (t) => {
  const { app } = await buildTestApp(t, { env: { CORS_ORIGINS: 'https://app.example.com' } })

  for (const origin of [
    'https://evil.example',
    'https://app.example.com.evil.example',
    'null',
    'http://app.example.com',
  ]) {
    const answer = await app.inject({ url: '/health', headers: { origin } })
    t.notOk(answer.headers['access-control-allow-origin'], origin)
  }
})

t.test('without CORS_ORIGINS no browser of another origin may call', async (t) => {
  const { app } = await buildTestApp(t)

  const answer = await app.inject({ url: '/health', headers: { origin: 'https://app.example.com' } })

  t.notOk(answer.headers['access-control-allow-origin'])
})

t.test('every answer carries the headers that browsers obey', async (t) => {
  const { app } = await buildTestApp(t)

  for (const url of ['/health', '/api/v1/users/me', '/nowhere']) {
    const { headers } = await app.inject({ url })
    t.match(headers['content-security-policy'], /default-src 'none'/, url)
    t.equal(headers['x-content-type-options'], 'nosniff', url)
    t.equal(headers['referrer-policy'], 'no-referrer', url)
    t.notOk(headers['x-powered-by'], url)
  }
})

t.test('an API answer is not for shared caches when it holds a token', async (t) => {
  const { anonymous, person } = await buildTestApp(t)
  const { email } = await person()

  const login = await anonymous.post('/api/v1/auth/login', {
    email,
    password: 'correct horse battery staple',
  })

  t.equal(login.headers['cache-control'], 'no-store')
})
