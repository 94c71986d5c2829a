import type { InjectOptions, LightMyRequestResponse } from 'fastify'
import type { Test } from 'tap'
import type { App } from '../../src/app.ts'
import type { Method } from './app.ts'

export const NO_SUCH_ID = '0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40'

/** Path segments that are no UUID, percent-encoded. */
export const BAD_IDS = [
  'x',
  '0',
  'null',
  'undefined',
  `${NO_SUCH_ID}0`,
  NO_SUCH_ID.replaceAll('-', ''),
  `urn:uuid:${NO_SUCH_ID}`,
  `{${NO_SUCH_ID}}`,
  `%20${NO_SUCH_ID}`,
  `${NO_SUCH_ID}%00`,
  '%00',
  '%F0%9F%94%A5',
  '..%2F..%2Fetc%2Fpasswd',
  '__proto__',
  "1'%20or%20'1'%3D'1",
  'a'.repeat(1024),
]

type Target = { app: App; token: string; method: Method; url: string }

/** Sends bodies that are no body of any route here: each must be refused as the kind of fault it is. */
export async function refusesBadBodies(t: Test, { app, token, method, url }: Target): Promise<void> {
  const send = async (payload: string, contentType: string | undefined = 'application/json') => {
    const headers = { authorization: `Bearer ${token}`, ...(contentType && { 'content-type': contentType }) }
    return await app.inject({ method, url, headers, payload } satisfies InjectOptions)
  }
  const deep = `${'{"attributes":'.repeat(20_000)}1${'}'.repeat(20_000)}`
  const deepList = `{"scopes":[${'['.repeat(20_000)}${']'.repeat(20_000)},${'['.repeat(20_000)}${']'.repeat(20_000)}]}`

  for (const [what, response, code] of [
    ['broken JSON', await send('{'), 'malformed_request'],
    ['no JSON', await send('name=x'), 'malformed_request'],
    ['an empty body', await send(''), 'validation_failed'],
    ['__proto__', await send('{"__proto__":{"is_active":true}}'), 'malformed_request'],
    ['constructor.prototype', await send('{"constructor":{"prototype":{}}}'), 'malformed_request'],
    ['plain text', await send('{}', 'text/plain'), 'unsupported_media_type'],
    ['XML', await send('<a/>', 'application/xml'), 'unsupported_media_type'],
    ['a form', await send('name=x', 'application/x-www-form-urlencoded'), 'unsupported_media_type'],
    ['a file', await send('--x--', 'multipart/form-data; boundary=x'), 'unsupported_media_type'],
    ['a content type that is none', await send('{}', 'json'), 'unsupported_media_type'],
    ['more than the limit', await send(JSON.stringify({ name: 'x'.repeat(1_048_577) })), 'payload_too_large'],
    ['an array', await send('[]'), 'validation_failed'],
    ['a text', await send('"x"'), 'validation_failed'],
    ['a number', await send('5'), 'validation_failed'],
    ['null', await send('null'), 'validation_failed'],
    ['an empty object', await send('{}'), 'validation_failed'],
    ['an unknown field', await send('{"nobody_knows_me":1}'), 'validation_failed'],
    ['an unknown field with a slash and a tilde', await send('{"a/b~c":1}'), 'validation_failed'],
    ['deep objects', await send(deep), 'validation_failed'],
    ['deep arrays', await send(deepList), 'validation_failed'],
  ] as const) {
    isProblem(t, response, code, what)
  }
  t.ok(pointersOf(await send('{"a/b~c":1}')).includes('/body/a~1b~0c'), 'pointers are escaped (RFC 6901 §4)')
}

/** Asserts that the answer is the problem document of `code`, and says nothing of the inside. */
export function isProblem(t: Test, response: LightMyRequestResponse, code: string, what = code): void {
  const body = parsed(response)

  t.equal(body['type'], `/problems/${code}`, what, { body: response.body.slice(0, 300) })
  t.equal(body['status'], response.statusCode, `${what}: status`)
  t.equal(body['instance'], response.headers['x-request-id'], `${what}: instance`)
  t.match(response.headers['content-type'], /^application\/problem\+json/, `${what}: content type`)
  t.notMatch(response.body, /node_modules|\.ts:|select |insert |\$argon2/i, `${what}: nothing of the inside`)
}

/** The JSON pointers of a validation problem. */
export const pointersOf = (response: LightMyRequestResponse): string[] =>
  (parsed(response)['errors'] as { pointer: string }[] | undefined)?.map(({ pointer }) => pointer) ?? []

function parsed(response: LightMyRequestResponse): Record<string, unknown> {
  try {
    return response.json<Record<string, unknown>>()
  } catch {
    return {}
  }
}
