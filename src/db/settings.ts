import { eq } from 'drizzle-orm'
import type { Executor } from './client.ts'
import { settings } from './schema.ts'

/** What the database says of itself under this name. */
export async function readSetting(ex: Executor, name: string): Promise<string | undefined> {
  const [row] = await ex.select({ value: settings.value }).from(settings).where(eq(settings.name, name))
  return row?.value
}

/** Keeps a value under a name, instead of the one before. */
export async function writeSetting(ex: Executor, name: string, value: string): Promise<void> {
  await ex
    .insert(settings)
    .values({ name, value })
    .onConflictDoUpdate({ target: settings.name, set: { value } })
}
