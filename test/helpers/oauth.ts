import type { InjectOptions } from 'fastify'
import type { TestApp } from './app.ts'

export type RegisteredClient = { client_id: string; client_secret: string; etag: string }

/** A client that root has made: confidential, for client_credentials unless `fields` say otherwise. */
export async function aClient(
  { root }: TestApp,
  fields: Record<string, unknown> = {},
): Promise<RegisteredClient> {
  const response = await root.post('/api/v1/clients', { name: 'test', ...fields })
  if (response.statusCode !== 201) throw new Error(response.body)
  return { ...response.json<RegisteredClient>(), etag: String(response.headers.etag) }
}

/** The header of RFC 6749 §2.3.1. */
export const basic = ({ client_id, client_secret }: RegisteredClient) => ({
  authorization: `Basic ${Buffer.from(`${client_id}:${client_secret}`).toString('base64')}`,
})

type Parameters = Record<string, string> | [string, string][]

/** Sends a form. */
export const sendForm = async (
  { app }: TestApp,
  url: string,
  parameters: Parameters,
  headers: Record<string, string> = {},
) =>
  await app.inject({
    method: 'POST',
    url,
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
    payload: new URLSearchParams(parameters).toString(),
  })

type Sent = { method: string; headers: Record<string, string>; body?: unknown }

/** `fetch` as libraries take it, answered by the application without a network. */
export const fetchOf =
  ({ app }: TestApp) =>
  async (input: string, init: Sent): Promise<Response> => {
    const url = new URL(input)
    const body = init.body === undefined || init.body === null ? undefined : String(init.body)
    const response = await app.inject({
      method: init.method as NonNullable<InjectOptions['method']>,
      url: `${url.pathname}${url.search}`,
      headers: init.headers,
      ...(body !== undefined && { payload: body }),
    })
    const headers = Object.entries(response.headers).flatMap(([name, value]) =>
      [value].flat().map((one): [string, string] => [name, String(one)]),
    )
    return new Response(response.body === '' ? null : response.body, {
      status: response.statusCode,
      headers,
    })
  }
