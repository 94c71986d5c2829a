import { type Config, loadConfig } from '../../src/config.ts'

export const SECRET_KEY = 'a secret key that only the tests have'
export const SUPER_ADMIN_EMAIL = 'root@postern.test'
export const PASSWORD = 'correct horse battery staple'

/** The configuration of tests: hashes are cheap, so that a sign-in takes a millisecond. */
export function testConfig(env: NodeJS.ProcessEnv = {}): Config {
  const config = loadConfig({
    ENVIRONMENT: 'test',
    LOG_LEVEL: 'silent',
    PUBLIC_URL: 'http://postern.test',
    FIRST_SUPER_ADMIN_EMAIL: SUPER_ADMIN_EMAIL,
    FIRST_SUPER_ADMIN_PASSWORD: PASSWORD,
    FIRST_SUPER_ADMIN_ACCOUNT_NAME: 'Head Office',
    SECRET_KEY,
    HASH_QUEUE: '1000',
    DATABASE_POOL_MAX: '5',
    // Room for these is taken at once, for each app.
    POLICY_CACHE_USERS: '1000',
    POLICY_CACHE_INSTANCES: '1000',
    ...env,
  })
  return { ...config, passwords: { ...config.passwords, memoryKib: 1024 } }
}
