import { eq, sql } from 'drizzle-orm'
import type { Database, Tx } from '../db/client.ts'
import { prune } from '../db/prune.ts'
import { policyChanges, policyVersions } from '../db/schema.ts'

/**
 * Holds the environment's policy version until the transaction ends: of two transactions that do so, the second
 * sees what the first has left. Raising the version is the business of triggers.
 */
export async function lockPolicyVersion(environmentId: string, tx: Tx): Promise<void> {
  await tx
    .select({ version: policyVersions.version })
    .from(policyVersions)
    .where(eq(policyVersions.environmentId, environmentId))
    .for('update')
}

/** How many people the environment has who are not deleted: a number that triggers keep. No such environment: 0. */
export async function countPeople(environmentId: string, { db }: Pick<Database, 'db'>): Promise<number> {
  const [row] = await db
    .select({ people: policyVersions.people })
    .from(policyVersions)
    .where(eq(policyVersions.environmentId, environmentId))
  return row?.people ?? 0
}

/** Things of the default environment that are cached outside the policy: by id, and revoked access tokens by `jti`. */
export type CredentialKind = 'api_key' | 'client' | 'token'

/** What one transaction changed: ids and keys of what caches must forget. */
export type Change = {
  version: number
  kind: 'policy' | 'user' | 'account' | 'instance' | CredentialKind | 'everything'
  refs: readonly string[]
}

/** Where an environment stands, as one snapshot of the database saw it. */
export type Progress = {
  /** `undefined`: there is no such environment. */
  version: number | undefined
  /** All changes after the version that was asked from; `undefined` when they are no longer all there. */
  changes: readonly Change[] | undefined
}

/** Beyond so many versions it is cheaper to begin anew. */
const MOST_VERSIONS = 1000

/**
 * SQL of the two columns that `progressOf` reads: the version of environment `environment` in the statement's own
 * snapshot, and the changes since version `known` (null: none are wanted).
 */
export const progressColumns = (environment: string, known: string): string => `
  (select version from policy_versions where environment_id = ${environment}) as version,
  (select json_agg(json_build_array(c.version, c.kind, c.refs) order by c.version)
    from policy_changes c join policy_versions v on v.environment_id = c.environment_id
    where c.environment_id = ${environment} and c.version > ${known} and c.version <= v.version
      and v.version - ${known} <= ${MOST_VERSIONS}) as changes`

/** The columns of `progressColumns`. */
export type ProgressRow = {
  version: string | null
  changes: [version: number, kind: Change['kind'], refs: string[]][] | null
}

/** What the columns say to a cache that stands at version `known`. */
export function progressOf(row: ProgressRow, known: number | undefined): Progress {
  if (row.version === null) return { version: undefined, changes: undefined }
  const version = Number(row.version)
  const changes = (row.changes ?? []).map(([at, kind, refs]) => ({ version: at, kind, refs }))
  // Each version has a row at least; one that has none was pruned, or raised by hand.
  const isComplete =
    known !== undefined && new Set(changes.map((change) => change.version)).size === version - known
  return { version, changes: isComplete ? changes : undefined }
}

/** What is followed: an environment, and the version up to which its changes are known. */
export type Known = { environmentId: string; version: number | undefined }

export type VersionsRepository = ReturnType<typeof createVersionsRepository>

/** The statements that tell how far environments are, and what has changed in them. */
export function createVersionsRepository({ db, pool, prepare }: Database) {
  return {
    /** How far each environment is by now, in one statement. */
    async readProgress(known: readonly Known[]): Promise<Progress[]> {
      const { rows } = await pool.query<ProgressRow & { place: string }>({
        text: `select k.place, ${progressColumns('k.environment_id', 'k.version')}
          from unnest($1::uuid[], $2::bigint[]) with ordinality as k(environment_id, version, place)`,
        values: [known.map((one) => one.environmentId), known.map((one) => one.version ?? null)],
        ...(prepare && { name: 'policy_progress' }),
      })
      const found: Progress[] = known.map(() => ({ version: undefined, changes: undefined }))
      for (const row of rows) {
        const place = Number(row.place) - 1
        found[place] = progressOf(row, known[place]?.version)
      }
      return found
    },

    /** Has every process that listens hear `payload`. */
    async notify(channel: string, payload: string): Promise<void> {
      await db.execute(sql`select pg_notify(${channel}, ${payload})`)
    },

    /** Removes changes older than ten minutes; whoever still lacks them begins anew. */
    async pruneChanges(signal?: AbortSignal): Promise<void> {
      await prune(db, policyChanges, sql`${policyChanges.createdAt} < now() - interval '10 minutes'`, signal)
    },
  }
}
