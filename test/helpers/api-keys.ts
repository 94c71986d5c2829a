import type { Client, TestApp } from './app.ts'

export type IssuedKey = { id: string; key: string; key_hint: string; client: Client }

/** An API key that root has made, and a client that presents it. */
export async function anApiKey(
  { root, as }: TestApp,
  fields: Record<string, unknown> = {},
): Promise<IssuedKey> {
  const response = await root.post('/api/v1/api-keys', { name: 'test', access: 'full', ...fields })
  if (response.statusCode !== 201) throw new Error(response.body)
  const issued = response.json<Omit<IssuedKey, 'client'>>()
  return { ...issued, client: as(issued.key) }
}

/** An environment of its own, by `project/key`. */
export async function anEnvironment(
  { root }: TestApp,
  fields: Record<string, unknown> = {},
): Promise<{ id: string; name: string }> {
  const key = `env-${crypto.randomUUID()}`
  const response = await root.post('/api/v1/environments', { key, name: 'Test', ...fields })
  if (response.statusCode !== 201) throw new Error(response.body)
  const { id, project, ...made } = response.json<{ id: string; project: string; key: string }>()
  return { id, name: `${project}/${made.key}` }
}

/** The header that names an environment. */
export const inEnvironment = (name: string) => ({ 'postern-environment': name })
