import { DEFAULT_ACCOUNT_KEY } from '../accounts/service.ts'
import { StartupError } from '../errors.ts'
import { Email, PersonName } from '../http/schemas.ts'
import { SYSTEM } from '../principal.ts'
import type { Services } from '../services.ts'
import { print } from '../terminal.ts'
import { defineCommand, UsageError } from './command.ts'
import { assertFits } from './input.ts'
import { PASSWORD_FLAGS, readPassword } from './passwords.ts'
import { withSetUpServices } from './runtime.ts'

const PASSWORD_HELP = [
  'Without --password-stdin and --generate-password it asks for the password on the terminal. A password cannot',
  'be an argument, because the list of processes shows those to everybody.',
]

export const createUser = defineCommand({
  path: 'users create',
  summary: 'Create a user',
  details: PASSWORD_HELP,
  flags: {
    email: { value: 'EMAIL', required: true, description: 'What the user signs in with' },
    name: { value: 'NAME', required: true, description: 'Full name' },
    role: { value: 'KEY', description: 'Primary role; default: none' },
    account: { value: 'KEY|ID', description: 'Home account; default: the first account' },
    ...PASSWORD_FLAGS,
  },
  examples: [
    "postern users create --email ada@example.com --name 'Ada Lovelace' --role ACCOUNT_ADMIN --generate-password",
  ],
  async run({ email, name, role: roleKey, account: accountName, ...choice }) {
    assertFits('email', Email, email)
    assertFits('name', PersonName, name)
    const given = await readPassword(choice)
    await withSetUpServices(async (services) => {
      const account = await accountNamed(services, accountName ?? DEFAULT_ACCOUNT_KEY)
      const role = roleKey === undefined ? undefined : await roleNamed(services, roleKey)
      const password = given ?? services.passwords.generate()
      const user = await services.users.createUser(SYSTEM, {
        email,
        fullName: name,
        password,
        accountId: account.id,
      })
      if (role) await services.roles.assignPrimary(SYSTEM, user.id, role.id)
      print(`Created ${email} with the id ${user.id}${role ? ` and the role ${role.key}` : ''}.`)
      if (given === undefined) printGenerated(password)
    })
  },
})

export const setPassword = defineCommand({
  path: 'users set-password',
  summary: 'Set the password of a user',
  details: [
    'The way back in for an administrator without one: it also ends the sessions of the user and the waits after',
    'wrong passwords.',
    '',
    ...PASSWORD_HELP,
  ],
  positionals: ['EMAIL|ID'],
  flags: {
    ...PASSWORD_FLAGS,
    'must-change': { description: 'The user has to choose another one at the next sign-in' },
  },
  examples: ['postern users set-password admin@example.com --generate-password'],
  async run({ 'must-change': mustChange, ...choice }, [emailOrId = '']) {
    const given = await readPassword(choice)
    await withSetUpServices(async (services) => {
      const user = await userNamed(services, emailOrId)
      const password = given ?? services.passwords.generate()
      const update = { password, ...(mustChange && { mustChangePassword: true }) }
      await services.users.updateUser(SYSTEM, user.id, update, undefined)
      if (user.email !== null) await services.auth.forgiveFailures(user.email)
      print(`Set the password of ${user.email ?? user.id} and ended the sessions.`)
      if (!user.isActive) print('The user is not active, and cannot sign in before that changes.')
      if (given === undefined) printGenerated(password)
    })
  },
})

export const unlock = defineCommand({
  path: 'users unlock',
  summary: 'End the waits and stops after wrong passwords and codes of a user',
  details: [
    'After 100 wrong passwords in a row, a password is taken from devices that have signed in before, and from no',
    'others. A new password ends that too.',
  ],
  positionals: ['EMAIL|ID'],
  flags: {},
  examples: ['postern users unlock ada@example.com'],
  async run(_flags, [emailOrId = '']) {
    await withSetUpServices(async (services) => {
      const user = await userNamed(services, emailOrId)
      await services.locks.unlock(SYSTEM, user.id)
      print(`${user.email ?? user.id} can try again.`)
    })
  },
})

export const resetMfa = defineCommand({
  path: 'users reset-mfa',
  summary: 'Remove every second factor of a user who has lost them',
  details: [
    'The way back in for an administrator without one. All sessions of the user end. Whoever must have a second factor',
    'enrols another one at the next sign-in.',
  ],
  positionals: ['EMAIL|ID'],
  flags: {},
  examples: ['postern users reset-mfa admin@example.com'],
  async run(_flags, [emailOrId = '']) {
    await withSetUpServices(async (services) => {
      const user = await userNamed(services, emailOrId)
      await services.factors.resetFactors(SYSTEM, user.id)
      print(`Removed the second factors of ${user.email ?? user.id} and ended the sessions.`)
    })
  },
})

export const grantRole = defineCommand({
  path: 'users grant',
  summary: 'Give a user a role',
  details: [
    'Without --account and --everywhere, the role holds where its default reach says: in the home account, or in',
    'every account.',
  ],
  positionals: ['EMAIL|ID', 'ROLE'],
  flags: {
    account: { value: 'KEY|ID', description: 'The account in which the role holds' },
    everywhere: { description: 'The role holds in every account' },
    primary: { description: 'As the one primary role, in place of the present one' },
  },
  examples: [
    'postern users grant ada@example.com SUPER_ADMIN --primary',
    'postern users grant ada@example.com editor --account acme',
  ],
  async run({ account: accountName, everywhere, primary }, [emailOrId = '', roleKey = '']) {
    if ([accountName, everywhere, primary].filter((choice) => choice !== undefined).length > 1) {
      throw new UsageError(
        'Give one of --account, --everywhere and --primary; where a primary role holds is for the role to say',
      )
    }
    await withSetUpServices(async (services) => {
      const user = await userNamed(services, emailOrId)
      const role = await roleNamed(services, roleKey)
      const account = accountName === undefined ? undefined : await accountNamed(services, accountName)
      const { accountId } = primary
        ? await grantPrimary(services, user.id, role.id)
        : await services.roles.assignFurther(SYSTEM, user.id, role.id, everywhere ? null : account?.id)
      const place = accountId === null ? 'every account' : await accountKey(services, accountId)
      print(`${user.email ?? user.id} now has the role ${role.key} in ${place}.`)
    })
  },
})

async function grantPrimary({ roles }: Services, userId: string, roleId: string) {
  const held = await roles.listAssignments(userId)
  const hasPrimary = held.some((assignment) => assignment.isPrimary)
  return hasPrimary
    ? await roles.changePrimary(SYSTEM, userId, roleId)
    : await roles.assignPrimary(SYSTEM, userId, roleId)
}

async function userNamed({ users }: Services, emailOrId: string) {
  return (await users.findByEmailOrId(emailOrId)) ?? unknown(`There is no user ${emailOrId}.`)
}

async function accountNamed({ accounts }: Services, keyOrId: string) {
  return (await accounts.findByKeyOrId(keyOrId)) ?? unknown(`There is no account ${keyOrId}.`)
}

async function roleNamed({ roles }: Services, key: string) {
  return (
    (await roles.findRoleByKey(key)) ??
    unknown(`There is no role ${key}: GET /api/v1/roles lists the keys of all roles.`)
  )
}

async function accountKey({ accounts }: Services, id: string): Promise<string> {
  return `the account ${(await accounts.getAccount(id)).key}`
}

function unknown(sentence: string): never {
  throw new StartupError(sentence)
}

function printGenerated(password: string): void {
  print(`Password: ${password}   (shown only now)`)
}
