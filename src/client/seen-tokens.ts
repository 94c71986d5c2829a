/**
 * Remembers something for each of the tokens seen last: at least `size` of them, at most twice as many. Keyed by the
 * whole token, so that what differs in one character is another one.
 */
export function createSeenTokens<T>(size: number) {
  let recent = new Map<string, T>()
  let older = new Map<string, T>()

  function add(token: string, value: T): void {
    if (size <= 0) return
    if (recent.size >= size) {
      older = recent
      recent = new Map()
    }
    recent.set(token, value)
  }

  return {
    find(token: string): T | undefined {
      const found = recent.get(token)
      if (found !== undefined || older.size === 0) return found
      const before = older.get(token)
      if (before !== undefined) add(token, before)
      return before
    },

    add,

    forget(token: string): void {
      recent.delete(token)
      older.delete(token)
    },
  }
}
