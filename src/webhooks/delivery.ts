import { request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import type { Addresses } from './addresses.ts'

/** How a receiver answered, or why it did not. */
export type Answer = { status: number; error: undefined } | { status: undefined; error: string }

const MAX_ANSWER_BYTES = 1024

/**
 * POSTs a body, on a connection of its own. Redirects are answers like others; of the body of the answer no more than
 * a kilobyte is read, and none of it is kept.
 * @returns never later than after `timeoutMs`; a fault is an answer, nothing is thrown
 */
export async function post(
  url: string,
  body: string,
  headers: Record<string, string>,
  { addresses, timeoutMs, signal }: { addresses: Addresses; timeoutMs: number; signal: AbortSignal },
): Promise<Answer> {
  const fault = addresses.faultOf(url)
  if (fault) return { status: undefined, error: `the URL ${fault}` }
  return await new Promise((resolve) => {
    const settle = (answer: Answer): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
      resolve(answer)
      request.destroy()
    }
    const refuse = (error: unknown): void =>
      settle({ status: undefined, error: sentenceOf(error).slice(0, 200) })
    const stop = (): void => refuse(new Error('it was cut off'))
    const start = url.startsWith('https:') ? requestHttps : requestHttp
    const request = start(url, {
      method: 'POST',
      agent: false,
      lookup: addresses.lookup,
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        'user-agent': 'postern-webhooks',
        ...headers,
      },
    })
    request.on('error', refuse)
    request.on('response', (response) => {
      const status = response.statusCode ?? 0
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > MAX_ANSWER_BYTES) settle({ status, error: undefined })
      })
      response.on('end', () => settle({ status, error: undefined }))
      response.on('error', refuse)
    })
    request.end(body)
    // Not the `signal` of the request: one that is made of others may be collected as garbage before it aborts.
    const timer = setTimeout(() => refuse(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs)
    signal.addEventListener('abort', stop)
    if (signal.aborted) stop()
  })
}

function sentenceOf(error: unknown): string {
  if (!(error instanceof Error)) return 'the request failed'
  return error.message || ('code' in error ? String(error.code) : error.name)
}
