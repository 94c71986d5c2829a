import { writeFile } from 'node:fs/promises'
import { buildApp } from '../app.ts'
import { type Config, loadConfig } from '../config.ts'
import { StartupError } from '../errors.ts'
import { createServices } from '../services.ts'
import { print } from '../terminal.ts'
import { defineCommand } from './command.ts'

export const openapiCommand = defineCommand({
  path: 'openapi',
  summary: 'Print the OpenAPI 3.1 document of the API',
  details: ['Needs no database. The running service has it at /api/v1/openapi.json.'],
  flags: { output: { value: 'FILE', description: 'Write it to this file' } },
  examples: ['postern openapi --output openapi.json'],
  async run({ output }) {
    const document = await openapiText(loadConfig())
    if (output === undefined) {
      print(document)
      return
    }
    await writeFile(output, `${document}\n`).catch((error: unknown) => {
      throw new StartupError(`${output} cannot be written: ${(error as Error).message}.`, { cause: error })
    })
  },
})

/** The OpenAPI document as JSON, from the routes; nothing listens and no database is asked. */
export async function openapiText(config: Config): Promise<string> {
  const services = createServices(config, {
    databaseUrl: 'postgres://nobody@127.0.0.1:1/none',
    secretKey: 'for no database, and therefore no secret',
  })
  const app = await buildApp(services, { logger: false })
  try {
    await app.ready()
    return JSON.stringify(app.swagger(), undefined, 2)
  } finally {
    await app.close()
    await services.close()
  }
}
