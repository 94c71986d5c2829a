import type { MirroredAssignment, PolicyMirror } from '../policy/adapter.ts'
import { PermitRefusalError } from '../policy/permit-client.ts'
import { builtinRoleInPermit, EVERYWHERE, isOfGuard } from '../policy/permit-names.ts'
import type { MirrorRepository, MirrorSubject, StoredAssignment, StoredUser } from './mirror-repository.ts'

/** What is taken over to Permit. */
export type MirrorScope = {
  /** Roles of the application, for the engine or the shadow. */
  application: boolean
  /** Roles of this service itself, for the guard. */
  builtin: boolean
}

type Dependencies = { jobs: MirrorRepository; mirror: PolicyMirror; scope: MirrorScope }

const PAGE = 1000
/** A job that takes longer is given up and tried again, so that the others have their turn. */
const LONGEST_JOB_MS = 60_000

/**
 * Makes Permit equal to what is stored now. Nothing is taken from the job but a name, so that jobs may be repeated,
 * left out or mixed up. Roles that only Permit has ever known are left as they are.
 */
export function createMirrorToPermit({ jobs, mirror, scope }: Dependencies) {
  async function mirrorEverything(): Promise<void> {
    for (const kind of ['account', 'user'] as const) {
      for (let after: string | undefined; ; ) {
        const ids = await jobs.listIds(kind, after, PAGE)
        await jobs.enqueue(ids.map((ref) => ({ kind, ref })))
        if (ids.length < PAGE) break
        after = ids.at(-1)
      }
    }
  }

  async function mirrorAccount(ref: string): Promise<void> {
    const account = await jobs.findAccount(ref)
    // The name of the tenant that stands for every account is no account's.
    if ((account?.key ?? ref) === EVERYWHERE) return
    if (account?.isDeleted === false) await mirror.createTenant(account)
    else await removeAccount(account?.key ?? ref)
    // Nobody holds anything in an account that is not active.
    if (account)
      await jobs.enqueue((await jobs.listHolderIds(account.id)).map((id) => ({ kind: 'user', ref: id })))
  }

  async function mirrorUser(ref: string, assertInTime: () => void): Promise<void> {
    const user = await jobs.findUser(ref)
    if (!user?.isActive) {
      await removeUser(user?.key ?? ref)
      return
    }
    const held = await jobs.listAssignments(user.id)
    await mirror.syncUser(user)
    const wanted = await wantedOf(user, held)
    const actual = await mirror.listAssignments(user.key)
    const isOurs = await ownership()
    for (const assignment of actual) {
      assertInTime()
      if (isOurs(assignment) && !wanted.has(nameOf(assignment))) await mirror.unassignRole(assignment)
    }
    const present = new Set(actual.map(nameOf))
    for (const [name, assignment] of wanted) {
      assertInTime()
      if (!present.has(name)) await assign(assignment)
    }
    const nextEnd = Math.min(...held.map(({ expiresAt }) => expiresAt?.getTime() ?? Number.POSITIVE_INFINITY))
    if (Number.isFinite(nextEnd)) await jobs.enqueueAt(new Date(nextEnd), user.id)
  }

  /**
   * Somebody else may have the key by now, and a job of their own; who got it meanwhile and may have been removed with
   * it is looked at again.
   */
  async function removeUser(key: string): Promise<void> {
    const isTaken = async (): Promise<boolean> => (await jobs.findUser(key))?.isActive === true
    if (await isTaken()) return
    await mirror.deleteUser(key)
    if (await isTaken()) await jobs.enqueue([{ kind: 'user', ref: key }])
  }

  async function removeAccount(key: string): Promise<void> {
    const isTaken = async (): Promise<boolean> => (await jobs.findAccount(key))?.isDeleted === false
    if (await isTaken()) return
    await mirror.deleteTenant(key)
    if (await isTaken()) await jobs.enqueue([{ kind: 'account', ref: key }])
  }

  /** Permit may not know the account yet, whose own job can be later. */
  async function assign(assignment: MirroredAssignment): Promise<void> {
    try {
      await mirror.assignRole(assignment)
    } catch (error) {
      if (!(error instanceof PermitRefusalError && error.status === 404)) throw error
      const account = await jobs.findAccount(assignment.tenant)
      if (account) await mirror.createTenant(account)
      await mirror.assignRole(assignment)
    }
  }

  /** By name, what the user holds, as Permit shall have it. */
  async function wantedOf(
    { key }: StoredUser,
    held: readonly StoredAssignment[],
  ): Promise<Map<string, MirroredAssignment>> {
    const isEverywhere = (one: StoredAssignment) => one.account === null && !one.isBuiltin
    const accounts = scope.application && held.some(isEverywhere) ? await jobs.listActiveAccountKeys() : []
    const wanted = held.flatMap((one): MirroredAssignment[] => {
      const { role, isBuiltin, account, instance } = one
      if (account === EVERYWHERE || (!isBuiltin && isOfGuard(role))) return []
      if (isBuiltin) {
        return scope.builtin
          ? [{ user: key, role: builtinRoleInPermit(role), tenant: account ?? EVERYWHERE }]
          : []
      }
      if (!scope.application) return []
      if (account === null) return accounts.map((tenant) => ({ user: key, role, tenant }))
      return [{ user: key, role, tenant: account, ...(instance !== null && { instance }) }]
    })
    return new Map(wanted.map((assignment) => [nameOf(assignment), assignment]))
  }

  /** Which assignments in Permit are ours to take away. */
  async function ownership(): Promise<(assignment: MirroredAssignment) => boolean> {
    const known = new Set(scope.application ? await jobs.listRoleNames() : [])
    return ({ role, instance }) => {
      if (instance === undefined && isOfGuard(role)) return scope.builtin
      return known.has(instance === undefined ? role : `${instance.slice(0, instance.indexOf(':'))}#${role}`)
    }
  }

  return {
    /** @throws PermitUnavailableError, PermitRefusalError */
    async run(subject: MirrorSubject): Promise<void> {
      const startedAt = Date.now()
      const assertInTime = (): void => {
        if (Date.now() - startedAt > LONGEST_JOB_MS) throw new Error('the job took too long')
      }
      switch (subject.kind) {
        case 'everything':
          return await mirrorEverything()
        case 'account':
          return await mirrorAccount(subject.ref)
        case 'user':
          return await mirrorUser(subject.ref, assertInTime)
      }
    },
  }
}

const nameOf = ({ role, tenant, instance }: MirroredAssignment): string =>
  JSON.stringify([role, tenant, instance ?? null])
