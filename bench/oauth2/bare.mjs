// What the machine itself takes; started by bench/oauth2.ts. No framework, and of Postgres one row for whoever asks for it.
import { generateKeyPairSync, randomUUID, sign } from 'node:crypto'
import { createServer } from 'node:http'
import pg from 'pg'

/** So many that a request costs this server about what a token costs Postern. */
const SIGNATURES = 5

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const key = { key: privateKey, dsaEncoding: 'ieee-p1363' }
const claims = Buffer.alloc(300, 'x')
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 })
await pool.query(
  'create table bench_bare (id uuid primary key, written_at timestamptz not null default now())',
)

function answer(response) {
  const signatures = Array.from({ length: SIGNATURES }, () =>
    sign('sha256', claims, key).toString('base64url'),
  )
  const body = JSON.stringify({ signatures })
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body)
}

createServer((request, response) => {
  request.resume().on('end', async () => {
    if (request.url === '/written')
      await pool.query({
        name: 'write',
        text: 'insert into bench_bare (id) values ($1)',
        values: [randomUUID()],
      })
    answer(response)
  })
}).listen(Number(process.env.PORT), '127.0.0.1')
