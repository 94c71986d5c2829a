import { SYSTEM } from '../principal.ts'
import { print } from '../terminal.ts'
import { defineCommand } from './command.ts'
import { withSetUpServices } from './runtime.ts'

export const endSessions = defineCommand({
  path: 'sessions end',
  summary: 'End the sessions of everybody',
  details: [
    'Everybody has to sign in again. Access tokens are refused here at once, and elsewhere within a second by whoever',
    'follows the revocations; others take them until they expire, unless "postern keys rotate --force" withdraws the keys.',
  ],
  flags: { all: { required: true, description: 'Those of everybody, yours included' } },
  examples: ['postern sessions end --all'],
  async run() {
    await withSetUpServices(async ({ sessions }) => {
      print(`Ended ${await sessions.endEverySession(SYSTEM)} sessions.`)
    })
  },
})
