import { eq } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import { policyVersions } from '../db/schema.ts'

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
