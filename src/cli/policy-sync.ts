import { setTimeout as sleep } from 'node:timers/promises'
import { StartupError } from '../errors.ts'
import { MIRROR_TASK } from '../jobs/mirror-repository.ts'
import type { QueueState } from '../jobs/repository.ts'
import { PermitRefusalError, PermitUnavailableError } from '../policy/permit-client.ts'
import { print } from '../terminal.ts'
import { defineCommand } from './command.ts'
import { withSetUpServices } from './runtime.ts'

const LOOK_AGAIN_MS = 200

export const policySync = defineCommand({
  path: 'policy sync',
  summary: 'Make Permit hold the users, accounts and role assignments that are stored here',
  details: [
    'Changes reach Permit by themselves; this goes through all of them again, and may be repeated. With',
    'POLICY_GUARD=permit it first writes the built-in resources and roles. Exit code 1 when something could not be',
    'taken over yet: it is tried again, by the server too.',
  ],
  flags: { status: { description: 'Only say what waits' } },
  examples: ['postern policy sync', 'postern policy sync --status'],
  async run({ status }) {
    await withSetUpServices(async ({ permit, jobs: { runDue } }) => {
      if (!permit) {
        throw new StartupError(
          'Permit is not used: set POLICY_ENGINE, POLICY_GUARD or POLICY_SHADOW to permit first.',
        )
      }
      const { jobs } = permit
      if (!status) {
        await orExplain(permit.syncBuiltins)
        await jobs.enqueue([{ kind: 'everything' }])
        await runDue([MIRROR_TASK])
        // A server at work may have taken some of the jobs.
        while (hasUntried(await jobs.queueState())) {
          await sleep(LOOK_AGAIN_MS)
          await runDue([MIRROR_TASK])
        }
      }
      const state = await jobs.queueState()
      printState(state)
      if (!status && state.failed > 0) throw new StartupError(`${state.failed} could not be taken over yet.`)
    })
  },
})

const hasUntried = ({ pending, failed }: QueueState): boolean => pending > failed

function printState({ pending, failed, oldestAt, errors }: QueueState): void {
  if (pending === 0) {
    print('Permit has everything.')
    return
  }
  print(`${pending} waiting, of which ${failed} failed before; the oldest since ${oldestAt?.toISOString()}.`)
  for (const error of errors) print(`  ${error}`)
}

async function orExplain(sync: () => Promise<void>): Promise<void> {
  try {
    await sync()
  } catch (error) {
    if (!(error instanceof PermitUnavailableError || error instanceof PermitRefusalError)) throw error
    throw new StartupError(`${error.message}. Check PERMIT_API_URL and PERMIT_API_KEY.`, { cause: error })
  }
}
