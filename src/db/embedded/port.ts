import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { EmbeddedError } from './errors.ts'
import type { ServerFiles } from './layout.ts'

/** The last port, so that a restarted server is found where it was; otherwise any free one. */
export async function preferredPort(files: ServerFiles): Promise<number> {
  const options = await readFile(join(files.data, 'postmaster.opts'), 'utf8').catch(() => '')
  const last = Number(/"port=(\d+)"/.exec(options)?.[1])
  return (last > 0 && (await tryListen(last))) || (await freePort())
}

/** @throws EmbeddedError when there is none */
export async function freePort(): Promise<number> {
  const port = await tryListen(0)
  if (port === undefined) throw new EmbeddedError('No TCP port is free on 127.0.0.1: set DATABASE_URL.')
  return port
}

async function tryListen(port: number): Promise<number | undefined> {
  return await new Promise((resolve) => {
    const probe = createServer().once('error', () => resolve(undefined))
    probe.listen(port, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' ? address?.port : undefined))
    })
  })
}
