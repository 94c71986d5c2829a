import { eq, sql } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import { policyVersions } from '../db/schema.ts'

/**
 * Raises the version of the environment's policy and facts. The last statement of each transaction that writes
 * either, so that commit order is version order; a trigger tells the other processes.
 */
export async function raisePolicyVersion(environmentId: string, tx: Tx): Promise<number> {
  const [row] = await tx
    .update(policyVersions)
    .set({ version: sql`${policyVersions.version} + 1` })
    .where(eq(policyVersions.environmentId, environmentId))
    .returning({ version: policyVersions.version })
  if (!row) throw new Error(`environment ${environmentId} has no policy version`)
  return row.version
}
