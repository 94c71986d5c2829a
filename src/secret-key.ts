import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { StartupError } from './errors.ts'

const FILE = 'secret-key'

/**
 * SECRET_KEY as given; else the one that lies in DATA_DIR; else, for the embedded database, a new one that is
 * written there (mode 0600). With a database of the operator's own it must be given.
 * @throws StartupError when it is missing
 */
export async function findSecretKey(options: {
  given: string | undefined
  dataDir: string
  mayGenerate: boolean
}): Promise<string> {
  if (options.given !== undefined) return options.given
  const path = join(options.dataDir, FILE)
  const stored = await readFile(path, 'utf8').catch(() => undefined)
  if (stored?.trim()) return stored.trim()
  if (!options.mayGenerate) {
    throw new StartupError(
      'SECRET_KEY is not set: with DATABASE_URL, set it to at least 32 random characters (openssl rand -base64 32) and keep it.',
    )
  }
  return await generate(options.dataDir, path)
}

async function generate(dataDir: string, path: string): Promise<string> {
  const key = randomBytes(32).toString('base64url')
  await mkdir(dataDir, { recursive: true })
  try {
    await writeFile(path, `${key}\n`, { mode: 0o600, flag: 'wx', flush: true })
    await chmod(path, 0o600)
    return key
  } catch (error) {
    // Another process was faster: its key is the key.
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST')
      return (await readFile(path, 'utf8')).trim()
    throw error
  }
}
