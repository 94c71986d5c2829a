// oidc-provider with an adapter over the same Postgres; started by bench/oauth2.ts, with its packages beside it.
import { generateKeyPairSync } from 'node:crypto'
import { pathToFileURL } from 'node:url'
import pg from 'pg'

const { PORT, DATABASE_URL, PEERS, SECRET } = process.env
const { default: Provider } = await import(pathToFileURL(`${PEERS}/oidc-provider/lib/index.js`).href)
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 })
await pool.query(`create table if not exists bench_oidc (
  id text primary key, payload jsonb not null, grant_id text, expires_at timestamptz, consumed_at timestamptz)`)

/** As the package's example for a relational database has it, with prepared statements. */
class Adapter {
  constructor(model) {
    this.model = model
  }
  key(id) {
    return `${this.model}:${id}`
  }
  async upsert(id, payload, expiresIn) {
    await pool.query({
      name: 'upsert',
      text: `insert into bench_oidc (id, payload, grant_id, expires_at) values ($1, $2, $3, now() + $4::int * interval '1 second')
        on conflict (id) do update set payload = excluded.payload, expires_at = excluded.expires_at`,
      values: [this.key(id), payload, payload.grantId, expiresIn ?? 86_400],
    })
  }
  async find(id) {
    const { rows } = await pool.query({
      name: 'find',
      text: 'select payload, consumed_at from bench_oidc where id = $1 and expires_at > now()',
      values: [this.key(id)],
    })
    return rows[0] && { ...rows[0].payload, ...(rows[0].consumed_at && { consumed: true }) }
  }
  async consume(id) {
    await pool.query({
      name: 'consume',
      text: 'update bench_oidc set consumed_at = now() where id = $1',
      values: [this.key(id)],
    })
  }
  async destroy(id) {
    await pool.query('delete from bench_oidc where id = $1', [this.key(id)])
  }
  async revokeByGrantId(grantId) {
    await pool.query('delete from bench_oidc where grant_id = $1', [grantId])
  }
  async findByUid() {}
  async findByUserCode() {}
}

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const issuer = `http://127.0.0.1:${PORT}`
const provider = new Provider(issuer, {
  adapter: Adapter,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'bench', alg: 'ES256', use: 'sig' }] },
  clients: [
    {
      client_id: 'bench',
      client_secret: SECRET,
      grant_types: ['client_credentials', 'refresh_token', 'authorization_code'],
      redirect_uris: ['https://bench.test/callback'],
      id_token_signed_response_alg: 'ES256',
    },
  ],
  scopes: ['openid', 'offline_access', 'post:read'],
  rotateRefreshToken: true,
  issueRefreshToken: () => true,
  findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'urn:bench:jwt',
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => ({
        scope: 'post:read',
        audience: resource,
        accessTokenTTL: 900,
        ...(resource === 'urn:bench:opaque'
          ? { accessTokenFormat: 'opaque' }
          : { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }),
      }),
    },
  },
})
provider.on('server_error', (_ctx, error) => console.error(error))

/** Refresh tokens as sign-ins would have left them. */
async function refreshTokens(count) {
  const client = await provider.Client.find('bench')
  const tokens = []
  for (let made = 0; made < count; made++) {
    const grant = new provider.Grant({ clientId: 'bench', accountId: `user-${made}` })
    grant.addOIDCScope('offline_access')
    grant.addResourceScope('urn:bench:jwt', 'post:read')
    const token = new provider.RefreshToken({
      client,
      accountId: `user-${made}`,
      grantId: await grant.save(),
      scope: 'offline_access post:read',
      resource: 'urn:bench:jwt',
      gty: 'authorization_code',
      authTime: Math.floor(Date.now() / 1000),
    })
    tokens.push(await token.save())
  }
  return tokens
}

const handle = provider.callback()
const { createServer } = await import('node:http')
createServer(async (request, response) => {
  const url = new URL(request.url, issuer)
  if (url.pathname === '/bench/refresh-tokens') {
    response.end(JSON.stringify(await refreshTokens(Number(url.searchParams.get('count')))))
    return
  }
  handle(request, response)
}).listen(Number(PORT), '127.0.0.1')
