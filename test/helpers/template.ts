import { createServices } from '../../src/services.ts'
import { setUp } from '../../src/setup.ts'
import { SECRET_KEY, testConfig } from './config.ts'

/** Brings the template database, of which every test database is a copy, to the state that tests begin with. */
export async function prepareTemplate(url: string): Promise<void> {
  const services = createServices(testConfig(), { databaseUrl: url, secretKey: SECRET_KEY })
  await setUp(services, url)
  await services.close()
}
