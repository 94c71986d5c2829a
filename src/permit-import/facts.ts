import { isDeepStrictEqual } from 'node:util'
import type { Static } from 'typebox'
import { normalizeEmail } from '../case-folding.ts'
import { isUnstorable } from '../db/errors.ts'
import { AppError, fail } from '../errors.ts'
import { grouped } from '../grouping.ts'
import type { Model } from '../model.ts'
import type { Caller } from '../principal.ts'
import type { SyncedUser } from '../users/service.ts'
import type { Names } from './sets.ts'
import {
  AssignmentShape,
  Email,
  fieldOf,
  fitting,
  InstanceShape,
  type Json,
  Label,
  type LeaveOut,
  type LeftOut,
  shown,
  TenantShape,
  Text,
  TupleShape,
  UserShape,
} from './shapes.ts'

/** How something of the source stands here. */
export type Standing = 'new' | 'changed' | 'unchanged'

export type Placed<T> = { item: T; standing: Standing }

/** One kind of facts: how it is read, compared and written. */
export type Copier<T> = {
  kind: string
  /** The item, or undefined after it was left out. */
  read(value: unknown): T | undefined
  nameOf(item: T): string
  /** How each of them stands here, in the same order. */
  standingsOf(items: readonly T[]): Promise<Standing[]>
  /** True for what is written in a transaction of its own. */
  isAlone?(placed: Placed<T>): boolean
  /** All of them or none; of those that are alone, one. @throws AppError */
  write(items: readonly Placed<T>[]): Promise<void>
  /** What of a refused item may be written all the same. */
  lessThan?(item: T, refusal: AppError): T | undefined
}

type Dependencies = {
  model: Model
  caller: Caller
  names: Names
  leaveOut: LeaveOut
  /** What was left out so far, before this process too. */
  leftOut: readonly LeftOut[]
}

const INACTIVE = 'is not active there; what was copied before stays'
const PENDING = 'is pending there: invite the person here'

type Tenant = { key: string; name: string; description?: string; attributes: Json | null }
type Instance = Static<typeof InstanceShape>
type Tuple = Static<typeof TupleShape>
type Assignment = Static<typeof AssignmentShape>
export type Membership = { user: string; tenant: string }

/** The kinds of facts, under the rules of Permit's own bulk requests to this service. */
export function createCopiers({ model, caller, names, leaveOut, leftOut }: Dependencies) {
  const { permit, permitBulk, permitImport, permitInstances, accounts, usersRepository } = model
  let pending: ReadonlySet<string> | undefined

  /** Known once all people were read, which is before the first assignment. */
  function isPending(membership: string): boolean {
    pending ??= new Set(
      leftOut.filter(({ reason }) => reason === PENDING).map(({ kind, name }) => `${kind} ${name}`),
    )
    return pending.has(`membership ${shown(membership)}`)
  }

  const tenants: Copier<Tenant> = {
    kind: 'tenant',
    read(value) {
      const item = fitting(this.kind, TenantShape, value, leaveOut)
      if (!item) return undefined
      if (item.is_active === false) return left(this.kind, item.key, INACTIVE)
      const at = { kind: this.kind, name: item.key }
      const description = fieldOf(at, 'description', Text, item.description, leaveOut)
      return {
        key: item.key,
        name: fieldOf(at, 'name', Label, item.name, leaveOut) ?? item.key,
        ...(description !== undefined && { description }),
        attributes: item.attributes ?? null,
      }
    },
    nameOf: ({ key }) => key,
    async standingsOf(items) {
      const found = byKey(await permitImport.listAccounts(items.map(({ key }) => key)))
      return items.map(({ key, ...fields }) => standingOf(found.get(key), (here) => isSaid(fields, here)))
    },
    isAlone: ({ standing }) => standing === 'changed',
    async write(items) {
      for (const { item, standing } of items) {
        if (standing === 'new') continue
        const { key, ...changes } = item
        await accounts.updateAccount(caller, (await permit.getAccount(key)).id, changes, undefined)
      }
      const made = items.filter(({ standing }) => standing === 'new')
      await permitBulk.createTenants(
        caller,
        made.map(({ item }) => ({ description: null, ...item })),
      )
    },
  }

  const users: Copier<SyncedUser> = {
    kind: 'user',
    read(value) {
      const item = fitting(this.kind, UserShape, value, leaveOut)
      if (!item) return undefined
      if (item.is_active === false) return left(this.kind, item.key, INACTIVE)
      const at = { kind: this.kind, name: item.key }
      const said = (field: 'email' | 'first_name' | 'last_name', schema: typeof Label) =>
        item[field] === '' ? undefined : fieldOf(at, field, schema, item[field], leaveOut)
      const [email, firstName, lastName] = [
        said('email', Email),
        said('first_name', Label),
        said('last_name', Label),
      ]
      return {
        key: item.key,
        ...(email !== undefined && { email }),
        ...(firstName !== undefined && { firstName }),
        ...(lastName !== undefined && { lastName }),
        attributes: item.attributes ?? {},
      }
    },
    nameOf: ({ key }) => key,
    async standingsOf(items) {
      const found = byKey(await permitImport.listUsers(items.map(({ key }) => key)))
      return items.map(({ key, email, ...fields }) =>
        standingOf(
          found.get(key),
          (here) =>
            (email == null || normalizeEmail(email) === normalizeEmail(here.email ?? '')) &&
            isSaid(fields, { ...here, attributes: here.attributes ?? {} }),
        ),
      )
    },
    async write(items) {
      await permitBulk.replaceUsers(
        caller,
        items.map(({ item }) => ({ user: item, grants: [] })),
      )
    },
    lessThan({ email, ...item }, { code }) {
      if (email == null || (code !== 'email_taken' && code !== 'user_is_protected')) return undefined
      const reason =
        code === 'email_taken' ? 'somebody else has the email here' : 'can sign in here, and keeps the email'
      leaveOut({ kind: this.kind, name: item.key, reason: `its email was left away: ${reason}` })
      return item
    },
  }

  const memberships: Copier<Membership> = {
    kind: 'membership',
    read: (value) => value as Membership,
    nameOf: ({ user, tenant }) => `${user} ${tenant}`,
    async standingsOf(items) {
      const found = await permitImport.listMemberships(items.map(({ user }) => user))
      const here = new Set(found.map(this.nameOf))
      return items.map((item) => (here.has(this.nameOf(item)) ? 'unchanged' : 'new'))
    },
    isAlone: () => true,
    async write(items) {
      for (const { item } of items) {
        const account = await permit.getAccount(item.tenant)
        const { id } = (await usersRepository.findUserByKey(item.user)) ?? fail('user_not_found')
        await accounts.addMember(caller, account.id, id)
      }
    },
  }

  const things: Copier<Instance> = {
    kind: 'instance',
    read(value) {
      const item = fitting(this.kind, InstanceShape, value, leaveOut)
      if (!item || names.resources.has(item.resource)) return item
      return left(this.kind, this.nameOf(item), `is of a resource that is not there: ${item.resource}`)
    },
    nameOf: ({ resource, key }) => `${resource}:${key}`,
    async standingsOf(items) {
      const rows = await permitImport.listInstances(items.map(({ key }) => key))
      const found = new Map(rows.map((row) => [row.name, row]))
      return items.map((item) =>
        standingOf(
          found.get(this.nameOf(item)),
          ({ account, attributes }) =>
            account === item.tenant && isDeepStrictEqual(attributes ?? {}, item.attributes ?? {}),
        ),
      )
    },
    async write(items) {
      await permitInstances.replaceInstances(
        caller,
        items.map(({ item }) => ({ ...item, attributes: item.attributes ?? undefined })),
      )
    },
  }

  const relationships: Copier<Tuple> = {
    kind: 'relationship',
    read(value) {
      const item = fitting(this.kind, TupleShape, value, leaveOut)
      if (!item) return undefined
      const relation = `${typeOf(item.object)}#${item.relation}`
      if (names.relations.get(relation) === typeOf(item.subject)) return item
      return left(this.kind, this.nameOf(item), `is by a relation that is not there: ${relation}`)
    },
    nameOf: ({ subject, relation, object }) => `${subject} ${relation} ${object}`,
    async standingsOf(items) {
      const found = await permitImport.listTuples({
        subjects: items.map(({ subject }) => keyIn(subject)),
        objects: items.map(({ object }) => keyIn(object)),
      })
      const here = new Set(found.map(this.nameOf))
      return items.map((item) => (here.has(this.nameOf(item)) ? 'unchanged' : 'new'))
    },
    async write(items) {
      await permitInstances.createTuples(
        caller,
        items.map(({ item }) => ({ ...item, tenant: item.tenant ?? undefined })),
      )
    },
  }

  const assignments: Copier<Assignment> = {
    kind: 'assignment',
    read(value) {
      const item = fitting(this.kind, AssignmentShape, value, leaveOut)
      if (!item) return undefined
      const { role, resource_instance: instance, tenant } = item
      const named = instance == null ? role : `${typeOf(instance)}#${role}`
      if (!names.roles.has(named))
        return left(this.kind, this.nameOf(item), `is of a role that is not there: ${named}`)
      if (item.is_active === false)
        return left(this.kind, this.nameOf(item), 'is of somebody, or in a tenant, not active there')
      if (item.expires_at != null)
        return left(this.kind, this.nameOf(item), `ends at ${shown(item.expires_at)}, and would not end here`)
      if (tenant != null && isPending(`${item.user} ${tenant}`))
        return left(this.kind, this.nameOf(item), 'is of a membership that is pending there')
      return instance == null && tenant == null ? left(this.kind, this.nameOf(item), 'names no tenant') : item
    },
    nameOf: ({ user, role, tenant, resource_instance: instance }) => `${user} ${role} ${instance ?? tenant}`,
    async standingsOf(items) {
      const held = await permitImport.listGrants(items.map(({ user }) => user))
      const here = new Set(
        held.map(({ instance, ...grant }) => this.nameOf({ ...grant, resource_instance: instance })),
      )
      return items.map((item) => (here.has(this.nameOf(item)) ? 'unchanged' : 'new'))
    },
    async write(items) {
      const byUser = grouped(items, ({ item }) => item.user)
      // Nothing is said of the people but their keys, so that nothing of theirs is written.
      await permitBulk.replaceUsers(
        caller,
        [...byUser].map(([key, own]) => ({
          user: { key },
          grants: own.map(({ item: { role, tenant, resource_instance: instance } }) => ({
            role,
            tenant: tenant ?? undefined,
            instance: instance ?? undefined,
          })),
        })),
      )
    },
  }

  function left(kind: string, name: string, reason: string): undefined {
    leaveOut({ kind, name, reason })
    return undefined
  }

  return { tenants, users, memberships, things, relationships, assignments }
}

/** Whether everything that the source says is so here. */
const isSaid = (fields: Json, found: Json): boolean =>
  Object.entries(fields).every(([name, value]) => isDeepStrictEqual(found[name], value))

const standingOf = <T>(found: T | undefined, isSame: (found: T) => boolean): Standing =>
  found === undefined ? 'new' : isSame(found) ? 'unchanged' : 'changed'

const byKey = <T extends { key: string }>(rows: readonly T[]) => new Map(rows.map((row) => [row.key, row]))

const keyIn = (instance: string): string => instance.slice(instance.indexOf(':') + 1)
const typeOf = (instance: string): string => instance.slice(0, instance.indexOf(':'))

/**
 * The tenants that an active person belongs to without a role there that will be copied and says so. Pending memberships
 * are left out, whatever goes with them.
 */
export function membershipsOf(value: unknown, { roles }: Names, leaveOut: LeaveOut): Membership[] {
  const user = fitting('user', UserShape, value, () => {})
  if (!user || user.is_active === false) return []
  return (user.associated_tenants ?? []).flatMap(({ tenant, status, roles: held }) => {
    if (status === 'pending') {
      leaveOut({ kind: 'membership', name: `${user.key} ${tenant}`, reason: PENDING })
      return []
    }
    return held?.some((role) => roles.has(role)) ? [] : [{ user: user.key, tenant }]
  })
}

/**
 * Writes what can be written: all at once or, when that is refused, in halves, down to those that are refused by
 * themselves.
 * @returns those that were left out
 */
export async function writeAll<T>(
  copier: Copier<T>,
  items: readonly Placed<T>[],
  leaveOut: LeaveOut,
): Promise<Placed<T>[]> {
  const together = items.filter((one) => !copier.isAlone?.(one))
  const refused = await writeTogether(copier, together, leaveOut)
  for (const one of items)
    if (copier.isAlone?.(one)) refused.push(...(await writeTogether(copier, [one], leaveOut)))
  return refused
}

async function writeTogether<T>(
  copier: Copier<T>,
  items: readonly Placed<T>[],
  leaveOut: LeaveOut,
): Promise<Placed<T>[]> {
  const [first] = items
  if (!first) return []
  try {
    await copier.write(items)
    return []
  } catch (error) {
    if (!(error instanceof AppError || isUnstorable(error))) throw error
    if (items.length === 1) return await writeLess(copier, first, error, leaveOut)
  }
  const middle = Math.ceil(items.length / 2)
  return [
    ...(await writeTogether(copier, items.slice(0, middle), leaveOut)),
    ...(await writeTogether(copier, items.slice(middle), leaveOut)),
  ]
}

async function writeLess<T>(
  copier: Copier<T>,
  refused: Placed<T>,
  error: unknown,
  leaveOut: LeaveOut,
): Promise<Placed<T>[]> {
  const less = error instanceof AppError ? copier.lessThan?.(refused.item, error) : undefined
  if (less !== undefined) {
    const [standing] = await copier.standingsOf([less])
    if (standing === 'unchanged') return []
    const stillRefused = await writeTogether(copier, [{ ...refused, item: less }], leaveOut)
    return stillRefused.length === 0 ? [] : [refused]
  }
  const reason = error instanceof AppError ? reasonOf(error) : 'holds text that cannot be stored'
  leaveOut({ kind: copier.kind, name: copier.nameOf(refused.item), reason })
  return [refused]
}

/** What was wrong with the one thing that was written. */
function reasonOf({ message, errors: [fault] = [] }: AppError): string {
  const text = fault ? `${fault.pointer.split('/').at(-1)} ${fault.detail}` : message
  return `${text.charAt(0).toLowerCase()}${text.slice(1)}`
}
