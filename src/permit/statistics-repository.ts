import { and, eq, isNull, sql } from 'drizzle-orm'
import type { Database } from '../db/client.ts'
import { accounts, decisionLog, resources, roles, setRules } from '../db/schema.ts'
import { countPeople } from '../policy/versions.ts'

/** How much there is in an environment. Built-in definitions and what was deleted do not count. */
export type Statistics = {
  roles: number
  users: number
  policies: number
  resources: number
  tenants: number
  has_decision_logs: boolean
}

/** Counts what is in one environment. */
export function createStatisticsRepository({ db }: Database, environmentId: string) {
  return {
    async readStatistics(): Promise<Statistics> {
      const [ofRoles, ofUsers, policies, ofResources, tenants, logged] = await Promise.all([
        db.$count(roles, and(eq(roles.environmentId, environmentId), eq(roles.isBuiltin, false))),
        countPeople(environmentId, { db }),
        db.$count(setRules, eq(setRules.environmentId, environmentId)),
        db.$count(resources, and(eq(resources.environmentId, environmentId), eq(resources.isBuiltin, false))),
        db.$count(accounts, and(eq(accounts.environmentId, environmentId), isNull(accounts.deletedAt))),
        db
          .select({ one: sql<number>`1` })
          .from(decisionLog)
          .where(eq(decisionLog.environmentId, environmentId))
          .limit(1),
      ])
      return {
        roles: ofRoles,
        users: ofUsers,
        policies,
        resources: ofResources,
        tenants,
        has_decision_logs: logged.length > 0,
      }
    },
  }
}
