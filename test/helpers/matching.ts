import type { Test } from 'tap'

/**
 * Fails unless a list has one element for each pattern, in order. `t.match` alone is content with a longer list, and
 * with any for `[]`.
 */
export function matchEach(t: Test, found: unknown, patterns: readonly unknown[], message = 'matches each') {
  t.equal(Array.isArray(found) ? found.length : found, patterns.length, message)
  t.match(found, patterns, message)
}
