import { SYSTEM } from '../principal.ts'
import type { ErasureRepository } from './repository.ts'
import type { ErasureService } from './service.ts'

type Dependencies = {
  erasure: Pick<ErasureRepository, 'listDue' | 'sweep'>
  /** The service of an environment. */
  erasureOf: (environmentId: string) => Pick<ErasureService, 'eraseDeleted'>
  graceDays: number
}

const AT_ONCE = 100

/**
 * Returns what erases everybody, of all environments, whose deletion is USER_DELETION_GRACE_DAYS ago, and what has come
 * after the erasure of others. Somebody who cannot be erased keeps nobody else from it; it then throws in the end, and
 * tries again the next time. When its signal is aborted, it stops by throwing the reason.
 */
export function createEraseDeleted({ erasure, erasureOf, graceDays }: Dependencies) {
  return async (signal?: AbortSignal): Promise<void> => {
    const failures: unknown[] = []
    for (;;) {
      signal?.throwIfAborted()
      const due = await erasure.listDue(graceDays, AT_ONCE, failures.length)
      for (const { id, environmentId } of due)
        await erasureOf(environmentId)
          .eraseDeleted(SYSTEM, id)
          .catch((error: unknown) => failures.push(error))
      if (due.length < AT_ONCE) break
    }
    await erasure.sweep()
    if (failures.length > 0) throw new AggregateError(failures, 'some who were deleted could not be erased')
  }
}
