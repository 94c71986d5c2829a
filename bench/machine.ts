import { readFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import pg from 'pg'

const packages = ['fastify', 'fast-jwt', 'drizzle-orm', 'pg', 'argon2']

/** The machine and the versions that the figures belong to. */
export async function describeMachine(databaseUrl: string): Promise<string> {
  const client = new pg.Client({ connectionString: databaseUrl })
  await client.connect()
  const { rows } = await client.query<{ server_version: string }>('show server_version')
  await client.end()
  const { length, 0: cpu } = cpus()
  return [
    new Date().toISOString().slice(0, 10),
    `${length} × ${cpu?.model ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    `Node ${process.versions.node}, Postgres ${rows[0]?.server_version}`,
    packages.map((name) => `${name} ${versionOf(name)}`).join(', '),
  ].join('\n')
}

function versionOf(name: string): string {
  const manifest = readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url), 'utf8')
  return (JSON.parse(manifest) as { version: string }).version
}
