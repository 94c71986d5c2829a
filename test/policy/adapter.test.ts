import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { buildTestApp } from '../helpers/app.ts'
import { policyAdapterContract } from './adapter-contract.ts'
import { storePolicy } from './loading.ts'
import { buildPermit, buildUserOf, POLICY } from './permit-double.ts'

t.test('the local engine', async (t) => {
  await policyAdapterContract(t, async (t) => {
    const postern = await buildTestApp(t)
    await storePolicy(postern.services, DEFAULT_ENVIRONMENT, POLICY)
    return {
      postern,
      adapter: postern.services.modelOf(DEFAULT_ENVIRONMENT).decisions,
      settled: async () => {},
    }
  })
})

t.test('Permit, through its SDK', async (t) => {
  await policyAdapterContract(t, async (t) => {
    const permit = await buildPermit(t)
    const postern = await buildUserOf(t, permit, { POLICY_ENGINE: 'permit', PERMIT_TIMEOUT_MS: '20000' })
    return {
      postern,
      adapter: postern.services.modelOf(DEFAULT_ENVIRONMENT).decisions,
      settled: postern.settled,
    }
  })
})
