import { presentSigningKey } from '../keys/schemas.ts'
import { SYSTEM } from '../principal.ts'
import { print } from '../terminal.ts'
import { columns, defineCommand } from './command.ts'
import { withSetUpServices } from './runtime.ts'

const JSON_FLAG = { json: { description: 'Print JSON, as the API answers it' } } as const

export const listKeys = defineCommand({
  path: 'keys list',
  summary: 'List the keys that sign access tokens',
  flags: JSON_FLAG,
  examples: ['postern keys list'],
  async run({ json }) {
    await withSetUpServices(async ({ keys }) => {
      const rows = (await keys.listKeys()).map(presentSigningKey)
      if (json) return print(JSON.stringify(rows, undefined, 2))
      const lines = rows.map((key) => {
        const since = key.retired_at ?? key.activated_at ?? `from ${key.activates_at}`
        return [key.kid, `${key.algorithm}  ${key.state}  ${since}`] as const
      })
      for (const line of columns(lines)) print(line)
    })
  },
})

export const rotateKeys = defineCommand({
  path: 'keys rotate',
  summary: 'Have another key sign access tokens',
  details: [
    'The next key is published at once and signs six minutes later, when every verifier can know it; the one before',
    'verifies its tokens until they have expired. With --force, for a key that others may know, all keys are withdrawn:',
    'every token issued until now is refused here within seconds, elsewhere when the key set is read again.',
  ],
  flags: { force: { description: 'Withdraw all keys, and sign with a new one at once' }, ...JSON_FLAG },
  examples: ['postern keys rotate', 'postern keys rotate --force'],
  async run({ force = false, json }) {
    await withSetUpServices(async ({ keys }) => {
      const key = presentSigningKey(await keys.rotate(SYSTEM, { force }))
      if (json) return print(JSON.stringify(key, undefined, 2))
      if (force) print(`Withdrew the keys until now: ${key.kid} signs access tokens.`)
      else print(`The key ${key.kid} signs access tokens from ${key.activates_at} on.`)
    })
  },
})
