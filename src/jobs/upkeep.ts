import type { Jobs, ScheduledWork } from './service.ts'

const HOUR_SECONDS = 3600

/** What is cleared away, by the name of its job. Each is short or works in parts, and may be done twice. */
export type Upkeep = Readonly<Record<string, ScheduledWork>>

/** Has each done once an hour, by one process of all that serve. */
export function scheduleUpkeep(jobs: Jobs, upkeep: Upkeep): void {
  for (const [name, work] of Object.entries(upkeep)) jobs.schedule(name, HOUR_SECONDS, work)
}
