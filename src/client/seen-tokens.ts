/** The end of a token, which is that of its signature: enough to look it up by, and hashed much faster than all of it. */
const tailOf = (token: string): string => token.slice(-32)

/**
 * Remembers something for each of the tokens seen last: at least `size` of them, at most twice as many. The whole token
 * is compared, so that what differs in one character is another one.
 */
export function createSeenTokens<T>(size: number) {
  type Seen = { token: string; value: T }
  let recent = new Map<string, Seen>()
  let older = new Map<string, Seen>()

  function keep(seen: Seen): void {
    if (size <= 0) return
    if (recent.size >= size) {
      older = recent
      recent = new Map()
    }
    recent.set(tailOf(seen.token), seen)
  }

  return {
    find(token: string): T | undefined {
      const tail = tailOf(token)
      const found = recent.get(tail)
      if (found) return found.token === token ? found.value : undefined
      const before = older.get(tail)
      if (before?.token !== token) return undefined
      keep(before)
      return before.value
    },

    add: (token: string, value: T): void => keep({ token, value }),

    forget(token: string): void {
      const tail = tailOf(token)
      for (const seen of [recent, older]) if (seen.get(tail)?.token === token) seen.delete(tail)
    },
  }
}
