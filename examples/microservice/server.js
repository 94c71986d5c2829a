import { buildApp } from './app.js'

const {
  ISSUER = 'http://127.0.0.1:8000',
  AUDIENCE,
  JWKS_URL,
  HOST = '127.0.0.1',
  PORT = '3000',
} = process.env

const app = buildApp({
  issuer: ISSUER,
  ...(AUDIENCE && { audience: AUDIENCE }),
  ...(JWKS_URL && { jwksUrl: JWKS_URL }),
})
const address = await app.listen({ host: HOST, port: Number(PORT) })
process.stdout.write(`Posts at ${address}/posts, for tokens of ${ISSUER}\n`)
