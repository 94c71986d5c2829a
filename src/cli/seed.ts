import { type Config, loadConfig } from '../config.ts'
import { withStartLock } from '../db/migrate.ts'
import { StartupError } from '../errors.ts'
import { setUp } from '../setup.ts'
import { print } from '../terminal.ts'
import { defineCommand, UsageError } from './command.ts'
import { type DemoChanges, loadDemo, readDemo } from './demo.ts'
import { withServices } from './runtime.ts'

export const seedCommand = defineCommand({
  path: 'seed',
  summary: 'Fill the database with what the service needs, and with demo data if asked to',
  details: [
    'Applies migrations and makes the built-in roles, the first account and its super admin, as the first start',
    'does. Whatever is there already is left as it is.',
  ],
  flags: {
    demo: { description: 'Also load seeds/demo.json: two accounts, a blog with its roles, a dozen users' },
    force: { description: 'Load demo data even with ENVIRONMENT=prod' },
  },
  examples: ['postern seed --demo'],
  async run({ demo, force }) {
    const config = loadConfig()
    if (force && !demo) throw new UsageError('--force goes with --demo')
    if (demo && !force) refuseProduction(config)
    await withServices(config, async (services, directUrl) => {
      const { migrated, firstSuperAdmin } = await setUp(services, directUrl)
      for (const name of migrated) print(`Applied ${name}.sql`)
      if (firstSuperAdmin) {
        const { email, password } = firstSuperAdmin
        print(`Made the first account and its super admin ${email}.`)
        if (password !== undefined) print(`Password: ${password}   (shown only now)`)
      }
      if (demo) {
        const data = readDemo()
        const made = await withStartLock(directUrl, async () => await loadDemo(services, data))
        printDemo(made, data.password)
      } else if (!firstSuperAdmin && migrated.length === 0) print('Nothing to do: everything is there.')
    })
  },
})

/** Its users have a password that everybody knows. */
function refuseProduction({ environment }: Config): void {
  if (environment !== 'prod') return
  throw new StartupError(
    'ENVIRONMENT is prod, and everybody knows the password of the demo users: give --force to load them all the same.',
  )
}

function printDemo({ accounts, roles, users, assignments }: DemoChanges, password: string): void {
  if (accounts + roles + users + assignments === 0) {
    print('Nothing to do: the demo data is there.')
    return
  }
  print(
    `Loaded demo data: ${accounts} accounts, ${roles} roles, ${users} users, ${assignments} role assignments.`,
  )
  print(`Every demo user signs in with the password: ${password}`)
}
