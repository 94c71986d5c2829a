/** Where a breaker stands: `closed` lets calls through, `open` refuses them, `half_open` lets one through to try. */
export type BreakerState = 'closed' | 'open' | 'half_open'

/** The call was not made, because so many before it failed. */
export class CircuitOpenError extends Error {
  override readonly name = 'CircuitOpenError'
}

export type CircuitBreaker = ReturnType<typeof createCircuitBreaker>

type Options = {
  /** So many failures in a row open it. */
  failures: number
  /** So long it stays open before one call may try. */
  openMs: number
  /** A clock that never goes back. */
  now: () => number
}

/** Keeps callers from waiting for something that is down: after some failures, calls are refused at once for a while. */
export function createCircuitBreaker({ failures, openMs, now }: Options) {
  let failed = 0
  let openedAt: number | undefined
  let isTrying = false

  const state = (): BreakerState => {
    if (openedAt === undefined) return 'closed'
    return isTrying || now() - openedAt >= openMs ? 'half_open' : 'open'
  }

  return {
    state,

    /** Milliseconds until a call may be tried; 0 when one may be now. */
    waitMs: (): number => (openedAt === undefined ? 0 : Math.max(0, openedAt + openMs - now())),

    /**
     * What `call` gives. `tells`: whether that says that what was called is well; else it is no sign of anything.
     * @throws CircuitOpenError, or whatever `call` throws
     */
    async run<T>(call: () => Promise<T>, tells: (result: T) => boolean = () => true): Promise<T> {
      const probes = openedAt !== undefined
      if (probes) {
        if (state() === 'open' || isTrying) throw new CircuitOpenError('left alone after failures')
        isTrying = true
      }
      try {
        const result = await call()
        // Of calls that began before it opened, only failures count: they say nothing about now.
        if (tells(result) && (probes || openedAt === undefined)) {
          failed = 0
          openedAt = undefined
        }
        return result
      } catch (error) {
        failed++
        if (probes || failed >= failures) openedAt = now()
        throw error
      } finally {
        if (probes) isTrying = false
      }
    },
  }
}
