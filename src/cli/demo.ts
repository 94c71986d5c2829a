import { readFileSync } from 'node:fs'
import Type, { type Static } from 'typebox'
import { StartupError } from '../errors.ts'
import { Email, Key, Password, Permission, PersonName } from '../http/schemas.ts'
import { SYSTEM } from '../principal.ts'
import type { Services } from '../services.ts'
import { faultsOf } from './input.ts'

const strict = { additionalProperties: false }

const DemoSchema = Type.Object(
  {
    /** Of every demo user. */
    password: Password,
    accounts: Type.Array(Type.Object({ key: Key, name: Type.String(), description: Type.String() }, strict)),
    /** Roles of the application; the resources and actions in their scopes are declared on the way. */
    roles: Type.Array(
      Type.Object({ key: Key, description: Type.String(), scopes: Type.Array(Permission) }, strict),
    ),
    users: Type.Array(
      Type.Object(
        {
          email: Email,
          name: PersonName,
          /** Key of the home account. */
          account: Key,
          /** Key of the primary role, which holds in the home account. */
          role: Type.Optional(Key),
          /** Roles in this or other accounts; those make the user a member there. */
          further_roles: Type.Optional(Type.Array(Type.Object({ account: Key, role: Key }, strict))),
        },
        strict,
      ),
    ),
  },
  strict,
)

/** Accounts, roles and people to try things with. */
export type Demo = Static<typeof DemoSchema>

/** What was missing and has been made. */
export type DemoChanges = { accounts: number; roles: number; users: number; assignments: number }

const FILE = new URL('../../seeds/demo.json', import.meta.url)

/** @throws StartupError when the file is not what it should be */
export function readDemo(): Demo {
  const demo: unknown = JSON.parse(readFileSync(FILE, 'utf8'))
  const [fault] = faultsOf(DemoSchema, demo)
  if (fault !== undefined) throw new StartupError(`seeds/demo.json is not right: ${fault}.`)
  // The validator has just held it against the schema.
  return demo as Demo
}

/**
 * Makes what is missing of the demo data and changes nothing that is there. Whoever calls it makes sure that
 * nobody else does at the same time.
 */
export async function loadDemo(services: Services, demo: Demo): Promise<DemoChanges> {
  const accounts = await ensureAll(demo.accounts, async (account) => await ensureAccount(services, account))
  const roles = await ensureAll(demo.roles, async (role) => await ensureRole(services, role))
  const users = await ensureAll(demo.users, async (user) => await ensureUser(services, user, demo.password))
  const held = demo.users.flatMap((user) => [
    ...(user.role === undefined ? [] : [{ email: user.email, role: user.role, account: undefined }]),
    ...(user.further_roles ?? []).map((further) => ({ email: user.email, ...further })),
  ])
  const assignments = await ensureAll(held, async (one) => await ensureAssignment(services, one))
  return { accounts, roles, users, assignments }
}

/** How many of `wanted` were missing. One after the other, so that ids are in the order of the file. */
async function ensureAll<T>(wanted: readonly T[], ensure: (one: T) => Promise<boolean>): Promise<number> {
  let made = 0
  for (const one of wanted) if (await ensure(one)) made++
  return made
}

async function ensureAccount({ accounts }: Services, account: Demo['accounts'][number]): Promise<boolean> {
  if (await accounts.findByKeyOrId(account.key)) return false
  await accounts.createAccount(SYSTEM, account)
  return true
}

async function ensureRole({ roles }: Services, role: Demo['roles'][number]): Promise<boolean> {
  if (await roles.findRoleByKey(role.key)) return false
  const { key, description, scopes } = role
  await roles.createRole(SYSTEM, { key, name: key, description, permissions: scopes })
  return true
}

async function ensureUser(
  services: Services,
  { email, name, account }: Demo['users'][number],
  password: string,
): Promise<boolean> {
  const { users } = services
  if (await users.findByEmailOrId(email)) return false
  const accountId = (await accountOf(services, account)).id
  await users.createUser(SYSTEM, { email, fullName: name, password, accountId })
  return true
}

type HeldRole = { email: string; role: string; account: string | undefined }

/** A role in the home account is the primary one. */
async function ensureAssignment(services: Services, held: HeldRole): Promise<boolean> {
  const { roles, users } = services
  const user = (await users.findByEmailOrId(held.email)) ?? missing(`user ${held.email}`)
  const role = (await roles.findRoleByKey(held.role)) ?? missing(`role ${held.role}`)
  const present = await roles.listAssignments(user.id)
  if (held.account === undefined) {
    if (present.some(({ isPrimary }) => isPrimary)) return false
    await roles.assignPrimary(SYSTEM, user.id, role.id)
    return true
  }
  const accountId = (await accountOf(services, held.account)).id
  if (present.some((one) => one.role.id === role.id && one.accountId === accountId)) return false
  await roles.assignFurther(SYSTEM, user.id, role.id, accountId)
  return true
}

async function accountOf({ accounts }: Services, key: string) {
  return (await accounts.findByKeyOrId(key)) ?? missing(`account ${key}`)
}

function missing(what: string): never {
  throw new StartupError(`seeds/demo.json names a ${what} that does not exist.`)
}
