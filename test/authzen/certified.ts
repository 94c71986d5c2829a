import type { Test } from 'tap'
import { buildTestApp, type Client } from '../helpers/app.ts'

type Env = NodeJS.ProcessEnv
type Fields = Record<string, unknown>
export type Answer = {
  decision: boolean
  context?: { reason?: string; error?: { status: number; message: string } }
}
export type Found = { page?: { next_token: string }; results: Record<string, string>[] }

export const EVALUATION = '/access/v1/evaluation'
export const EVALUATIONS = '/access/v1/evaluations'
export const SEARCHES = ['subject', 'resource', 'action'] as const
export type Searched = (typeof SEARCHES)[number]

export const user = (id: string, properties?: Fields) => ({
  type: 'user',
  id,
  ...(properties && { properties }),
})
export const record = (id: string, properties?: Fields) => ({
  type: 'record',
  id,
  ...(properties && { properties }),
})
export const action = (name: string, properties?: Fields) => ({ name, ...(properties && { properties }) })

/** The application with the people, records and rules of the certification, loaded over its own API. */
export async function certified(t: Test, env?: Env) {
  const postern = await buildTestApp(t, { ...(env && { env }) })
  await postern.root.post('/api/v1/policy/templates/authzen-certification').then(succeeded)
  return { ...postern, ...asking(postern.root) }
}

/** Asks as somebody; an answer that is not 200 ends the test. */
export function asking(client: Client) {
  const ask = async <T>(url: string, body: unknown): Promise<T> =>
    succeeded(await client.post(url, body)).json<T>()
  return {
    evaluate: async (subject: unknown, what: unknown, resource: unknown, more: Fields = {}) =>
      await ask<Answer>(EVALUATION, { subject, action: what, resource, ...more }),
    evaluateAll: async (body: unknown) =>
      (await ask<{ evaluations: Answer[] }>(EVALUATIONS, body)).evaluations,
    search: async (searched: Searched, body: unknown) =>
      await ask<Found>(`/access/v1/search/${searched}`, body),
  }
}

export function succeeded<T extends { statusCode: number; body: string }>(response: T): T {
  if (response.statusCode >= 300) throw new Error(`${response.statusCode} ${response.body}`)
  return response
}

/** Makes the policy of an environment what the document says, over the API. */
export const applied = async (client: Client, document: Fields, headers?: Record<string, string>) =>
  succeeded(await client.post('/api/v1/policy', { version: 1, ...document }, headers))
