import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { runPostern, spawnPostern } from '../helpers/processes.ts'

t.test('openapi prints the document, with the public URL, and needs no database', async (t) => {
  const { code, stdout, stderr } = await runPostern(t, ['openapi'], {
    env: { PUBLIC_URL: 'https://auth.example.com' },
  })
  const document = JSON.parse(stdout) as { openapi: string; paths: object }

  t.strictSame([code, stderr], [0, ''])
  t.match(document, { openapi: '3.1.0', servers: [{ url: 'https://auth.example.com' }] })
  t.hasProp(document.paths, '/api/v1/users')
})

t.test('openapi --output writes it to a file', async (t) => {
  const folder = t.testdir()
  const { code, stdout } = await runPostern(t, ['openapi', '--output', join(folder, 'api.json')])

  t.strictSame([code, stdout], [0, ''])
  t.match(JSON.parse(await readFile(join(folder, 'api.json'), 'utf8')), { openapi: '3.1.0' })
  t.match(await runPostern(t, ['openapi', '--output', join(folder, 'no', 'api.json')]), {
    code: 1,
    stderr: /^\S+ cannot be written: [^\n]+\.\n$/,
  })
})

t.test('a reader who goes away is no fault', async (t) => {
  const { child, ended } = spawnPostern(t, ['openapi'])
  const reader = spawn('head', ['-c', '10'], { stdio: ['pipe', 'ignore', 'ignore'] })
  reader.stdin.on('error', () => child.stdout?.destroy())
  child.stdout?.pipe(reader.stdin)
  await once(reader, 'close')
  child.stdout?.destroy()

  t.match(await ended, { code: 0, stderr: '' })
})
