import { serve } from '../serve.ts'
import { defineCommand } from './command.ts'

export const serveCommand = defineCommand({
  path: 'serve',
  summary: 'Start the service and serve until SIGTERM or Ctrl-C',
  details: [
    'All settings are environment variables; docs/configuration.md lists them. Without DATABASE_URL it starts an',
    'embedded Postgres in DATA_DIR. The first start makes the first account and its super admin.',
  ],
  flags: {},
  examples: ['PORT=8080 postern serve'],
  run: serve,
})
