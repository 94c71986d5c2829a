import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t from 'tap'
import { faultFinder } from '../../src/cli/input.ts'
import { newId } from '../../src/ids.ts'
import { createProgressBar } from '../../src/terminal.ts'
import {
  type ImportOptions,
  NOTHING_DONE,
  newImportRun,
  type Refusal,
} from '../../src/user-import/progress.ts'
import { ImportedUserSchema, readPeople } from '../../src/user-import/records.ts'
import { openRefusals } from '../../src/user-import/resume.ts'
import { type ColumnNames, readCsv, readJsonLines } from '../../src/user-import/source.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { onServer } from '../helpers/database.ts'
import { matchEach } from '../helpers/matching.ts'
import { runPostern } from '../helpers/processes.ts'
import { FOREIGN_HASHES, HASHED } from '../passwords/hashes.ts'

const BCRYPT = FOREIGN_HASHES['passlib bcrypt'] ?? ''

/** Imports a text; what was refused, and what came of the rest. */
async function importText(
  { services }: TestApp,
  text: string | Buffer,
  options: Partial<ImportOptions> & { columns?: ColumnNames; kind?: 'csv' | 'jsonl' } = {},
) {
  const { columns = new Map(), kind = 'csv', ...others } = options
  const refusals: Refusal[] = []
  const source = (kind === 'csv' ? readCsv : readJsonLines)(Readable.from([Buffer.from(text)]), columns)
  const { line, ...counts } = await services.userImport.run(
    readPeople(source, faultFinder(ImportedUserSchema)),
    {
      onConflict: 'skip',
      isDryRun: false,
      createsAccounts: false,
      from: NOTHING_DONE,
      onRefused: async (refused) => void refusals.push(...refused),
      onProgress: async () => {},
      ...others,
    },
  )
  return { line, counts, refusals }
}

const counted = (created: number, updated: number, unchanged: number, refused: number) => ({
  created,
  updated,
  unchanged,
  refused,
})

async function userOf({ root }: TestApp, email: string) {
  const [user] = (await root.get(`/api/v1/users?email=${encodeURIComponent(email)}`)).json<
    { id: string; key: string; account_id: string | null; is_active: boolean; full_name: string | null }[]
  >()
  return user
}

const rolesOf = async ({ root }: TestApp, id: string) =>
  (await root.get(`/api/v1/users/${id}/roles`))
    .json<{ role: { name: string }; account_id: string | null; is_primary: boolean }[]>()
    .map(({ role, account_id, is_primary }) => [role.name, account_id, is_primary])

t.test('postern users import', async (t) => {
  const app = await buildTestApp(t)
  const folder = await mkdtemp(join(tmpdir(), 'postern-test-'))
  t.teardown(async () => await rm(folder, { recursive: true, force: true }))
  const env = { DATABASE_URL: app.databaseUrl, SECRET_KEY }
  const path = (name: string) => join(folder, name)
  const run = async (args: readonly string[], input?: string) =>
    await runPostern(t, ['users', 'import', ...args], { env, ...(input !== undefined && { input }) })

  await t.test(
    'takes the users of the FastAPI service over, who then sign in with their passwords',
    async (t) => {
      // As \copy users to 'users.csv' csv header writes that table.
      const users = [
        'created_at,updated_at,id,full_name,email,phone_number,hashed_password,is_active,account_id',
        `2022-03-04 05:06:07.891011+00,2023-01-01 00:00:00+00,5b0ad5a6-8f34-4b52-8a3c-6f1ee0d3d2a1,"Lovelace, Ada",Ada@example.com,+44 20 7946 0000,${BCRYPT},t,${app.home}`,
        `2022-03-05 05:06:07+00,2023-01-01 00:00:00+00,6b0ad5a6-8f34-4b52-8a3c-6f1ee0d3d2a2,,grace@example.com,,${BCRYPT},f,`,
        `2022-03-06 05:06:07+00,2023-01-01 00:00:00+00,7b0ad5a6-8f34-4b52-8a3c-6f1ee0d3d2a3,Eve,ada@EXAMPLE.com,,${BCRYPT},t,`,
      ]
      await writeFile(path('users.csv'), `${users.join('\n')}\n`)
      const columns = ['--columns', 'id=key,hashed_password=password_hash,account_id=account,updated_at=']

      const rehearsed = await run([path('users.csv'), ...columns, '--dry-run'])
      const none = await userOf(app, 'ada@example.com')
      const done = await run([
        path('users.csv'),
        ...columns,
        '--resume',
        path('resume'),
        '--report',
        path('refused'),
      ])
      const again = await run([path('users.csv'), ...columns, '--resume', path('resume')])
      const ada = await userOf(app, 'ada@example.com')

      t.strictSame(
        [rehearsed.code, rehearsed.stdout],
        [0, '3 to create, 0 to update, 0 there already, 0 refused.\n'],
      )
      t.equal(none, undefined, 'a dry run writes nothing')
      t.strictSame(
        [done.code, done.stdout, done.stderr],
        [0, '2 created, 0 updated, 1 there already, 0 refused.\n', ''],
      )
      t.equal(again.stdout, done.stdout, 'nothing is done twice')
      t.match(ada, {
        key: '5b0ad5a6-8f34-4b52-8a3c-6f1ee0d3d2a1',
        full_name: 'Lovelace, Ada',
        phone_number: '+44 20 7946 0000',
        account_id: app.home,
        created_at: '2022-03-04T05:06:07.891Z',
      })
      t.ok(await app.signIn('ada@example.com', HASHED))
      t.equal(
        (await app.anonymous.post('/api/v1/auth/login', { email: 'grace@example.com', password: HASHED }))
          .statusCode,
        401,
        'who was inactive stays so',
      )
      t.equal(await readFile(path('refused'), 'utf8'), '')
    },
  )
  await t.test(
    'tells of refused lines, without what is secret in them, and refuses what is wrongly typed',
    async (t) => {
      const people = [
        { email: 'x1@postern.test', password_hash: '5f4dcc3b5aa765d61d8327deb882cf99' },
        { email: 'x2@postern.test', password: 'hunter2hunter2hunter2' },
        { email: 'x3@postern.test', password: 'a password of their own' },
      ]
      const input = `${people.map((person) => JSON.stringify(person)).join('\n')}\nno json\n`

      const done = await run(['-', '--format', 'jsonl', '--report', path('refused')], input)
      const report = (await readFile(path('refused'), 'utf8')).trim().split('\n')
      const misuses = [
        await run(['people.txt']),
        await run(['people.csv', '--columns', 'id=nothing']),
        await run(['people.csv', '--on-conflict', 'maybe']),
      ]

      t.equal(done.stdout, '1 created, 0 updated, 0 there already, 3 refused.\n')
      t.strictSame(
        report.map((line) => JSON.parse(line)),
        [
          { line: 1, reason: 'password_hash is in no known format' },
          { line: 2, reason: 'password repeats the same few characters' },
          { line: 4, reason: 'is no JSON object' },
        ],
      )
      t.notMatch(done.stderr + report.join(''), /hunter2|5f4dcc/)
      t.strictSame(
        misuses.map(({ code }) => code),
        [2, 2, 2],
      )
      t.ok(await app.signIn('x3@postern.test', 'a password of their own'))
    },
  )
})

t.test('a progress bar is drawn on a terminal, and nowhere else', async (t) => {
  const drawnOn = (isTTY: boolean): string => {
    const written: string[] = []
    const bar = createProgressBar({ isTTY, write: (text) => written.push(text) })
    bar.show(0.5, 'line 500')
    bar.show(0.6, 'too soon')
    bar.end()
    return written.join('')
  }

  t.equal(drawnOn(true), `\r\u001B[K[${'#'.repeat(12)}${'.'.repeat(12)}]  50 %  line 500\r\u001B[K`)
  t.equal(drawnOn(false), '')
})

t.test('an import', async (t) => {
  const app = await buildTestApp(t)
  const { root, home, services } = app

  await t.test('gives home accounts, roles and attributes, with an audit row for each', async (t) => {
    const text = [
      'key,email,first_name,last_name,account,role,roles,attributes,email_verified,must_change,password_hash',
      `emp-1,one@postern.test,Uno,One,default,ADMIN,ACCOUNT_MANAGER;GUEST,"{""level"": 3}",yes,true,${BCRYPT}`,
      'emp-2,,Due,,,,,,,,',
    ].join('\r\n')

    const { counts, line } = await importText(app, `\uFEFF${text}\r\n`)
    const one = (await userOf(app, 'one@postern.test')) ?? { id: '' }
    const events = (await root.get(`/api/v1/audit-events?target_id=${one.id}`)).json<
      { action: string; actor_type: string }[]
    >()
    const [, two] = (await root.get('/api/v1/users?q=emp-')).json<
      { email: string | null; full_name: string }[]
    >()

    t.strictSame([counts, line], [counted(2, 0, 0, 0), 3])
    t.match(one, { key: 'emp-1', full_name: 'Uno One', account_id: home, attributes: { level: 3 } })
    t.strictSame(await rolesOf(app, one.id), [
      ['ADMIN', null, true],
      ['ACCOUNT_MANAGER', home, false],
      ['GUEST', home, false],
    ])
    t.strictSame(events.map(({ action, actor_type }) => `${actor_type} ${action}`).sort(), [
      ...['system role.assigned', 'system role.assigned', 'system role.assigned', 'system user.created'],
    ])
    t.match(two, { email: null, full_name: 'Due' })
    const { rows } = await services.database.pool.query(
      'select must_change, email_verified_at is not null as verified from user_credentials where user_id = $1',
      [one.id],
    )
    t.strictSame(rows, [{ must_change: true, verified: true }])
  })

  await t.test('refuses a line for what is wrong with it, and no other line', async (t) => {
    const employee = await userOf(app, 'one@postern.test')
    const lines: [fields: object, reason: RegExp][] = [
      [{}, /neither key nor email/],
      [{ email: 'no address' }, /email must match format/],
      [{ email: 'a1@postern.test', account: 'nowhere' }, /no account "nowhere"/],
      [{ email: 'a2@postern.test', role: 'NOBODY' }, /no role "NOBODY"/],
      [{ email: 'a3@postern.test', role: 'ACCOUNT_ADMIN' }, /held in an account, and none is given/],
      [{ email: 'a4@postern.test', password: PASSWORD, password_hash: BCRYPT }, /both/],
      [{ key: 'a5', password_hash: BCRYPT }, /no email/],
      [{ email: 'a6@postern.test', password: 'too short' }, /at least 15/],
      [{ email: 'a7@postern.test', password: 'a7-POSTERN-a7@postern.test' }, /little more/],
      [{ email: 'a8@postern.test', created_at: '2999-01-01T00:00:00Z' }, /future/],
      [{ email: 'a9@postern.test', full_name: 'nul \0 nul' }, /cannot be stored/],
      [{ email: 'b1@postern.test', attributes: { deep: ['\ud800'] } }, /cannot be stored/],
      [{ email: 'b2@postern.test', colour: 'red' }, /"colour" is no field/],
      [{ email: 'b3@postern.test', is_active: 'perhaps' }, /is_active must be boolean/],
      [{ key: employee?.id }, /the id of another user/],
      [{ key: 'emp-2', email: SUPER_ADMIN_EMAIL }, /the key of one user and the email of another/],
      [{ email: 'b4@postern.test', password_hash: `$2b$31$${'a'.repeat(53)}` }, /costs more/],
    ]
    const good = lines.map((_, n) => ({ email: `good${n}@postern.test`, full_name: null }))
    const text = lines.flatMap(([fields], n) => [JSON.stringify(fields), JSON.stringify(good[n])]).join('\n')

    const { counts, refusals } = await importText(app, text, { kind: 'jsonl' })

    t.strictSame(counts, counted(good.length, 0, 0, lines.length))
    for (const [n, [fields, reason]] of lines.entries()) {
      t.match(refusals[n], { line: 2 * n + 1, reason }, JSON.stringify(fields))
    }
  })

  await t.test('reads CSV that is broken in places', async (t) => {
    const text = [
      'email,full_name',
      'c1@postern.test,"two',
      'lines"',
      'c2@postern.test',
      '',
      'c3@postern.test,a,b',
      '"c4"@postern.test,x',
      'c5@postern.test,ok',
    ].join('\n')

    const { refusals } = await importText(app, text)
    const latin1 = await importText(app, Buffer.from('email,full_name\nc6@postern.test,Andr\xe9', 'latin1'))

    t.strictSame(
      refusals.slice(0, 2).map(({ line }) => line),
      [4, 6],
    )
    t.match(await userOf(app, 'c1@postern.test'), { full_name: 'two\nlines' })
    matchEach(t, latin1.refusals, [{ line: 2, reason: 'is not in UTF-8' }])
    await t.rejects(importText(app, 'email,colour\nx,y'), /column "colour" is not known/)
    await t.rejects(
      importText(app, 'email,Mail\nx,y', { columns: new Map([['Mail', 'email']]) }),
      /Two columns are the field email/,
    )
    await t.rejects(importText(app, ''), /empty/)
  })

  await t.test('meets people who are there already as it was told to', async (t) => {
    const csv = (...rows: string[]) =>
      ['key,email,full_name,is_active,role,account,password_hash,email_verified', ...rows].join('\n')
    const line = `,met@postern.test,Met,t,,default,${BCRYPT},`
    const changed = `,met@postern.test,Met Again,f,ACCOUNT_ADMIN,default,${FOREIGN_HASHES['werkzeug pbkdf2']},t`

    const first = await importText(app, csv(line, 'k,new1@postern.test,,,,,,'))
    const skipped = await importText(app, csv(changed))
    const met = (await userOf(app, 'met@postern.test')) ?? { id: '' }
    await t.rejects(
      importText(app, csv(changed), { onConflict: 'fail' }),
      /Line 2 is about a user who is there already/,
    )
    t.match(await userOf(app, 'met@postern.test'), { full_name: 'Met', is_active: true })
    const rehearsed = await importText(app, csv(changed), { onConflict: 'update', isDryRun: true })
    const updated = await importText(app, csv(changed), { onConflict: 'update' })
    const unchanged = await importText(app, csv(changed), { onConflict: 'update' })

    t.strictSame([first.counts, skipped.counts], [counted(2, 0, 0, 0), counted(0, 0, 1, 0)])
    t.strictSame(
      [rehearsed.counts, updated.counts, unchanged.counts],
      [counted(0, 1, 0, 0), counted(0, 1, 0, 0), counted(0, 0, 1, 0)],
    )
    t.match(await userOf(app, 'met@postern.test'), { full_name: 'Met Again', is_active: false })
    t.strictSame(await rolesOf(app, met.id), [['ACCOUNT_ADMIN', home, true]])
    await services.database.pool.query('update users set is_active = true where id = $1', [met.id])
    t.ok(await app.signIn('met@postern.test', HASHED), 'the password stays that which it was')

    const root1 = `,${SUPER_ADMIN_EMAIL},,f,,,,`
    const last = await importText(app, csv(root1, 'other,met@postern.test,,,,,,'), { onConflict: 'update' })
    matchEach(t, last.refusals, [
      { line: 2, reason: /super admin/i },
      { line: 3, reason: 'has the email of a user with another key' },
    ])
  })

  await t.test('makes accounts where it may, and goes on where it stopped', async (t) => {
    const text = [
      'email,account',
      ...Array.from({ length: 30 }, (_, n) => `d${n}@postern.test,Acme & Söhne`),
      'd99@postern.test,日本',
    ].join('\n')

    const refused = await importText(app, text)
    const made = await importText(app, text, { createsAccounts: true })
    const resumed = await importText(app, text, { from: { ...NOTHING_DONE, line: 31, created: 30 } })
    const [account] = (await root.get('/api/v1/accounts?key=acme-sohne')).json<
      { id: string; name: string }[]
    >()

    t.equal(refused.counts.refused, 31)
    t.strictSame(made.counts, counted(30, 0, 0, 1))
    t.match(account, { name: 'Acme & Söhne' })
    t.equal((await userOf(app, 'd29@postern.test'))?.account_id, account?.id)
    t.strictSame(resumed.counts, counted(30, 0, 0, 1), 'only the last line was looked at')
  })

  await t.test('that was killed before it had noted how far it was does nothing twice', async (t) => {
    const created = '2024-01-31T10:20:30Z'
    const text = [
      'email,created_at',
      `e1@postern.test,${created}`,
      `no address,${created}`,
      'e2@postern.test,',
      `e3@postern.test,${created}`,
    ].join('\n')
    const options = { run: newImportRun(), onConflict: 'fail' as const }
    const killed = { ...options, onProgress: async () => await Promise.reject(new Error('killed')) }
    await t.rejects(importText(app, text, killed), /killed/)

    const again = await importText(app, `${text}\ne4@postern.test,`, options)

    t.strictSame(again.counts, counted(4, 0, 0, 1))
    await t.rejects(
      importText(app, text, { ...options, run: newImportRun() }),
      /there already/,
      'another import finds them',
    )
  })
  await t.test('tells of each refused line once', async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'postern-test-'))
    t.teardown(async () => await rm(folder, { recursive: true, force: true }))
    const path = join(folder, 'refused')
    const refusals = [1, 5, 7].map((line) => ({ line, reason: 'ist schön' }))
    const written = async () => (await readFile(path, 'utf8')).trim().split('\n')

    await (await openRefusals(path, NOTHING_DONE))(refusals)
    await writeFile(path, '{"line": 9, "rea', { flag: 'a' })
    await openRefusals(path, { ...NOTHING_DONE, line: 5 })

    t.strictSame(
      (await written()).map((line) => JSON.parse(line)),
      refusals.slice(0, 2),
    )
    await openRefusals(path, NOTHING_DONE)
    t.strictSame(await written(), [''])
  })
})

t.test('the query of the migration guide gives accounts and roles', async (t) => {
  const app = await buildTestApp(t)
  const guide = await readFile(new URL('../../docs/migrating-from-fastapi.md', import.meta.url), 'utf8')
  const query = /psql "\$OLD_DATABASE_URL" --csv -c "([^"]+)" > users\.csv/.exec(guide)?.[1] ?? ''
  const [ada, grace, root] = [newId(), newId(), newId()]
  const rows = await onServer(app.databaseUrl, async (client) => {
    await client.query(`create schema original; set search_path to original;
      create table accounts (id uuid primary key, name text not null);
      create table roles (id uuid primary key, name text not null);
      create table users (id uuid primary key, email text, full_name text, phone_number text, is_active boolean,
        created_at timestamptz, hashed_password text, account_id uuid);
      create table user_roles (user_id uuid, role_id uuid, account_id uuid);
      insert into accounts values (gen_random_uuid(), 'Analytical "Engines", Ltd');
      insert into roles values (gen_random_uuid(), 'ACCOUNT_ADMIN'), (gen_random_uuid(), 'SUPER_ADMIN');
      insert into users select '${ada}', 'ada@example.com', 'Lovelace, Ada', '+44 20 7946 0000', true,
        '2022-03-04 05:06:07+00', '${BCRYPT}', id from accounts;
      insert into users values ('${grace}', 'grace@example.com', null, null, false, now(), '${BCRYPT}', null);
      insert into users values ('${root}', 'boss@example.com', null, null, true, now(), '${BCRYPT}', null);
      insert into user_roles select '${ada}', id from roles where name = 'ACCOUNT_ADMIN';
      insert into user_roles select '${root}', id from roles where name = 'SUPER_ADMIN';`)
    // Every value in the text form that psql prints.
    return await client.query<string[]>({
      text: `${query} order by u.email`,
      rowMode: 'array',
      types: { getTypeParser: () => String },
    })
  })
  const field = (value: string | null): string => (value === null ? '' : `"${value.replaceAll('"', '""')}"`)
  const lines = [rows.fields.map(({ name }) => name), ...rows.rows].map((row) => row.map(field).join(','))

  const imported = await importText(app, `${lines.join('\n')}\n`, { createsAccounts: true })

  t.same(imported.refusals, [])
  t.strictSame(imported.counts, counted(3, 0, 0, 0))
  const [account] = (await app.root.get('/api/v1/accounts?key=analytical-engines-ltd')).json<
    { id: string; name: string }[]
  >()
  t.match(account, { name: 'Analytical "Engines", Ltd' })
  const found = await userOf(app, 'ada@example.com')
  t.match(found, { key: ada, full_name: 'Lovelace, Ada', account_id: account?.id, is_active: true })
  t.same(await rolesOf(app, found?.id ?? ''), [['ACCOUNT_ADMIN', account?.id, true]])
  t.match(await userOf(app, 'grace@example.com'), { account_id: null, is_active: false })
  t.same(await rolesOf(app, (await userOf(app, 'boss@example.com'))?.id ?? ''), [['SUPER_ADMIN', null, true]])
  const admin = app.as(await app.signIn('ada@example.com', HASHED))
  t.equal((await admin.get(`/api/v1/accounts/${account?.id}/users`)).statusCode, 200)
})
