import { buildApp } from './app.js'

const {
  ISSUER = 'http://127.0.0.1:8000',
  AUDIENCE = ISSUER,
  POSTERN_URL = ISSUER,
  POSTERN_API_KEY,
  HOST = '127.0.0.1',
  PORT = '3000',
} = process.env

const app = await buildApp({
  issuer: ISSUER,
  audience: AUDIENCE,
  jwksUri: `${POSTERN_URL}/.well-known/jwks.json`,
  ...(POSTERN_API_KEY && {
    feed: { url: `${POSTERN_URL}/api/v1/revocations`, apiKey: POSTERN_API_KEY },
  }),
  onError: (error) => process.stderr.write(`${error}\n`),
})
const address = await app.listen({ host: HOST, port: Number(PORT) })
process.stdout.write(`Posts at ${address}/posts, for tokens of ${ISSUER}\n`)

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => void app.close())
