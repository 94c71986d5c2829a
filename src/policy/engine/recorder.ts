import type { Facts } from './model.ts'

/** Names of what was looked for and not loaded. */
export type Missing = {
  readonly users: ReadonlySet<string>
  readonly tenants: ReadonlySet<string>
  readonly instances: ReadonlySet<string>
}

/** Facts that write down what is missing of them. What was decided over them holds only when `isComplete`. */
export type Recorder = { readonly facts: Facts; readonly missing: Missing; isComplete(): boolean }

/**
 * Facts as those given, which remember every name that they answered `undefined` to. Whoever finds something missing
 * loads it and asks again, until nothing is.
 */
export function createRecorder(facts: Facts): Recorder {
  const users = new Set<string>()
  const tenants = new Set<string>()
  const instances = new Set<string>()

  function noted<T>(ref: string, found: T | undefined, missing: Set<string>): T | undefined {
    if (found === undefined) missing.add(ref)
    return found
  }

  return {
    facts: {
      user: (ref) => noted(ref, facts.user(ref), users),
      tenant: (ref) => noted(ref, facts.tenant(ref), tenants),
      instance: (ref) => noted(ref, facts.instance(ref), instances),
    },
    missing: { users, tenants, instances },
    isComplete: () => users.size === 0 && tenants.size === 0 && instances.size === 0,
  }
}
