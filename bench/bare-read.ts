import Fastify from 'fastify'
import { loadConfig } from '../src/config.ts'
import { createDatabase } from '../src/db/client.ts'
import { createUsersRepository } from '../src/users/repository.ts'

const { DATABASE_URL = '', SESSION_ID = '', USER_ID = '', ACCOUNT_ID = null, PORT } = process.env
const database = createDatabase(loadConfig().database, DATABASE_URL)
const users = createUsersRepository(database)

const app = Fastify()
app.get('/', async () => await users.findHolder(SESSION_ID, USER_ID, ACCOUNT_ID, 'none'))
await app.listen({ host: '127.0.0.1', port: Number(PORT) })

process.on('SIGTERM', () => process.exit(0))
