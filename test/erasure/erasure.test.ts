import t from 'tap'
import { SYSTEM } from '../../src/principal.ts'
import { anApiKey, anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { isProblem, NO_SUCH_ID } from '../helpers/hostile.ts'
import { matchEach } from '../helpers/matching.ts'
import { buildPermit, buildUserOf } from '../policy/permit-double.ts'

const WHERE = { 'x-forwarded-for': '203.0.113.77' }

/** Somebody of whom every table knows something. */
async function ada(postern: TestApp) {
  const { root, anonymous, services, roleId, account, home } = postern
  const { pool } = services.database
  const there = await account()
  await anonymous.post(
    '/api/v1/auth/login',
    { email: 'Ada@personal.test', password: 'a guess of her own' },
    WHERE,
  )
  const { id } = (
    await root.post('/api/v1/users', {
      key: 'ada-personal-key',
      email: 'ada@personal.test',
      password: PASSWORD,
      full_name: 'Ada Personal',
      first_name: 'AdaPersonal',
      last_name: 'LovelacePersonal',
      phone_number: '+44 7700 900123',
      attributes: { nickname: 'personal-countess' },
      account_id: home,
    })
  ).json<{ id: string }>()
  await root.patch(`/api/v1/users/${id}`, { email: 'ada.king@personal.test' })
  await root.post('/api/v1/user-roles', { user_id: id, role_id: await roleId('ACCOUNT_ADMIN') })
  await root.post(`/api/v1/users/${id}/roles`, { role_id: await roleId('GUEST'), account_id: there })
  const signedIn = await anonymous.post(
    '/api/v1/auth/login',
    { email: 'ada.king@personal.test', password: PASSWORD },
    { ...WHERE, 'user-agent': 'personal-browser' },
  )
  const client = postern.as(signedIn.json<{ access_token: string }>().access_token)
  await client.patch('/api/v1/users/me', { phone_number: '+44 7700 900124' }, WHERE)
  await client.post(`/api/v1/accounts/${home}/users`, { user_id: postern.rootId }, WHERE)
  await root.post('/api/v1/resources', {
    key: 'user',
    relations: [{ key: 'friend', subject_resource: 'user' }],
  })
  await root.post('/api/v1/relationship-tuples', {
    subject: 'user:ada-personal-key',
    relation: 'friend',
    object: 'user:grace',
    account: 'default',
  })
  await pool.query(
    `with person as (select id, environment_id from users where id = $1),
      factor as (insert into totp_factors (id, environment_id, user_id, secret_sealed, confirmed_at)
        select gen_random_uuid(), environment_id, id, 'sealed-personal-secret', now() from person),
      code as (insert into recovery_codes (environment_id, user_id, code_hash)
        select environment_id, id, 'personal-code-hash' from person),
      passkey as (insert into passkeys (id, environment_id, user_id, credential_id, public_key, device_type, name)
        select gen_random_uuid(), environment_id, id, 'personal-credential', 'personal-public-key', 'multiDevice',
          'personal laptop' from person),
      challenge as (insert into challenges (id, environment_id, kind, user_id, token_hash, expires_at)
        select gen_random_uuid(), environment_id, 'mfa', id, 'personal-challenge', now() + interval '1 minute' from person),
      link as (insert into mail_tokens (id, environment_id, user_id, kind, token_hash, expires_at)
        select gen_random_uuid(), environment_id, id, 'password_reset', 'personal-token', now() + interval '1 minute' from person),
      invitation as (insert into account_invitations (id, environment_id, account_id, role_id, email, email_normalized,
          token_hash, invited_by_type, expires_at)
        select gen_random_uuid(), environment_id, $2, $3, email, lower(email), email, 'system', now() + interval '1 day'
        from person, unnest(array['Ada.King@personal.test', 'ada@personal.test']) email),
      invite as (insert into user_invites (id, environment_id, key, email, email_normalized, role_id, account_id)
        select gen_random_uuid(), environment_id, 'invite', 'Ada.King@personal.test', 'ada.king@personal.test', $3, $2 from person)
    insert into decision_log (id, environment_id, user_key, action, resource, is_allowed, reason)
      select gen_random_uuid(), environment_id, 'ada-personal-key', 'read', 'document:1', false, 'x' from person`,
    [id, there, await roleId('GUEST')],
  )
  return { id, client, there }
}

/** What is personal about her, wherever it stands. */
const PERSONAL = /personal|203\.0\.113\.77|7700 900|Lovelace/i

/** Every row of every table that says something personal. */
async function traces({ services }: TestApp): Promise<string[]> {
  const { pool } = services.database
  const { rows: tables } = await pool.query<{ name: string }>(`
    select tablename as name from pg_tables where schemaname = 'public'
      and tablename not like 'kept_%'
      -- what caches are told; removed after ten minutes
      and tablename <> 'policy_changes'`)
  const found = await Promise.all(
    tables.map(async ({ name }) => {
      const { rows } = await pool.query<{ text: string }>(`select t::text as text from ${name} t`)
      return rows.filter(({ text }) => PERSONAL.test(text)).map(({ text }) => `${name}: ${text}`)
    }),
  )
  return found.flat()
}

t.test('erasing a user', async (t) => {
  const postern = await buildTestApp(t, { env: { TRUST_PROXY: 'loopback' } })
  const { root, rootId, person, services, anonymous, roleId } = postern
  const { id, client } = await ada(postern)

  await t.test('C.5: is for those who may delete the user', async (t) => {
    const admin = await person('ADMIN')
    const accountAdmin = await person('ACCOUNT_ADMIN')
    const { client: machine } = await anApiKey(postern)

    isProblem(t, await admin.client.post(`/api/v1/users/${rootId}/erase`), 'grant_exceeds_own')
    isProblem(t, await accountAdmin.client.post(`/api/v1/users/${id}/erase`), 'insufficient_scope')
    isProblem(t, await machine.post(`/api/v1/users/${id}/erase`), 'user_is_protected')
    isProblem(t, await root.post(`/api/v1/users/${rootId}/erase`), 'last_super_admin')
    isProblem(t, await root.post(`/api/v1/users/${NO_SUCH_ID}/erase`), 'user_not_found')
    isProblem(t, await anonymous.post(`/api/v1/users/${id}/erase`), 'authentication_required')
    t.ok((await traces(postern)).length > 15, 'nothing was changed')
  })

  await t.test('leaves nothing personal in any table, and the trail as it was sealed', async (t) => {
    await services.auditChain.checkpoint()
    const before = await services.auditChain.verify()

    const response = await root.post(`/api/v1/users/${id}/erase`)

    t.equal(response.statusCode, 204)
    t.same(await traces(postern), [])
    await services.auditChain.seal()
    const { fault, state } = await services.auditChain.verify()
    t.equal(fault, undefined)
    t.ok(state.erased > before.state.erased)
    const [event] = (await root.get(`/api/v1/audit-events?target_id=${id}`)).json<{ action: string }[]>()
    t.match(event, { action: 'user.erased', actor_id: rootId, outcome: 'success' })
  })

  await t.test('ends everything of theirs, and keeps the id', async (t) => {
    const { pool } = services.database
    const { rows } = await pool.query('select * from users where id = $1', [id])

    isProblem(t, await client.get('/api/v1/users/me'), 'invalid_token')
    isProblem(t, await root.get(`/api/v1/users/${id}`), 'user_not_found')
    isProblem(t, await root.post(`/api/v1/users/${id}/restore`), 'user_not_found')
    isProblem(t, await root.get(`/api/v1/users/${id}/export`), 'user_not_found')
    matchEach(t, rows, [
      { id, key: id, email: null, full_name: null, attributes: null, account_id: null, search_text: '' },
    ])
  })

  await t.test('may be asked for again, and does nothing then', async (t) => {
    const count = async () => (await services.database.pool.query('select from audit_events')).rowCount
    const before = await count()

    t.equal((await root.post(`/api/v1/users/${id}/erase`)).statusCode, 204)
    t.equal(await count(), before)
  })

  await t.test(
    'takes along what was written at the same time, however late that is looked for',
    async (t) => {
      const { pool } = services.database
      await services.eraseDeleted()
      for (const days of [0, 7]) {
        await pool.query(
          `with event as (insert into audit_events (id, environment_id, action, outcome, actor_type, target_type, target_id, details)
            select gen_random_uuid(), environment_id, 'sign_in.refused', 'refused', 'anonymous', 'user', id, '{}' from users
            where id = $1 returning id),
          own as (insert into audit_events (id, environment_id, action, outcome, actor_type, actor_id, details)
            select gen_random_uuid(), environment_id, 'access.refused', 'refused', 'user', id, '{}' from users
            where id = $1 returning id),
          apart as (insert into audit_personal_data select id, $1, 'salt', '{"email": "ada.king@personal.test"}' from event),
          address as (insert into audit_personal_data select id, null, 'salt', '{"address": "203.0.113.77"}' from own)
        insert into sessions (id, environment_id, user_id, client_id, address, expires_at)
          select gen_random_uuid(), environment_id, id, 'first-party', '203.0.113.77', now() + interval '1 day' from users
          where id = $1`,
          [id],
        )
        await pool.query(`update users set erased_at = erased_at - make_interval(days => $2) where id = $1`, [
          id,
          days,
        ])
        await pool.query(
          `update settings set value = (now() - make_interval(days => $1))::text where name = 'erasures_swept_until'`,
          [days],
        )
        t.equal((await traces(postern)).length, 3)

        await services.eraseDeleted()

        t.same(await traces(postern), [])
      }
    },
  )

  await t.test('finds addresses as sign-in does, and none that were never theirs', async (t) => {
    const refused = async (email: string) =>
      await anonymous.post('/api/v1/auth/login', { email, password: 'no password of anybody' })
    const known = async (email: string) =>
      (
        await services.database.pool.query(`select from audit_personal_data where data ->> 'email' = $1`, [
          email,
        ])
      ).rowCount
    await refused('ÉVA@maiden.test')
    await refused('stranger@maiden.test')
    await refused('next@maiden.test')
    const { id: eva } = await services.users.createUser(SYSTEM, {
      email: 'éva@maiden.test',
      password: PASSWORD,
    })
    for (const email of ['next@maiden.test', 'eva@maiden.test'])
      t.equal((await root.patch(`/api/v1/users/${eva}`, { email })).statusCode, 200)
    const { id: next } = (
      await root.post('/api/v1/users', { email: 'Next@maiden.test', password: PASSWORD })
    ).json<{ id: string }>()
    await services.audit.append({
      action: 'user.email_change_requested',
      caller: SYSTEM,
      target: { type: 'user', id: eva },
      personal: { email_before: 'eva@maiden.test', email_after: 'stranger@maiden.test' },
    })
    const environment = await anEnvironment(postern)
    const elsewhere = inEnvironment(environment.name)
    const { id: other } = await services
      .modelOf(environment.id)
      .users.createUser(SYSTEM, { email: 'Éva@maiden.test' })

    t.equal((await root.send('POST', `/api/v1/users/${other}/erase`, undefined, elsewhere)).statusCode, 204)
    t.equal(await known('ÉVA@maiden.test'), 1, 'an environment is not another one')
    t.equal((await root.post(`/api/v1/users/${eva}/erase`)).statusCode, 204)

    t.equal(await known('ÉVA@maiden.test'), 0)
    t.equal(await known('stranger@maiden.test'), 1, 'it was only asked for')
    t.equal(await known('next@maiden.test'), 1, 'somebody else has it by now')
    t.equal((await root.post(`/api/v1/users/${next}/erase`)).statusCode, 204)
    t.equal(await known('next@maiden.test'), 0)
  })

  await t.test('makes the email and the key free', async (t) => {
    const body = { email: 'ada.king@personal.test', key: 'ada-personal-key', password: PASSWORD }
    t.equal((await root.post('/api/v1/users', body)).statusCode, 201)
  })

  await t.test('happens by itself when the time after a deletion is over', async (t) => {
    const { pool } = services.database
    const [gone, recent, restored] = [await person('GUEST'), await person('GUEST'), await person('GUEST')]
    for (const { id: userId } of [gone, recent, restored]) await root.delete(`/api/v1/users/${userId}`)
    await pool.query(`update users set deleted_at = now() - interval '31 days' where id = any($1)`, [
      [gone.id, restored.id],
    ])
    await root.post(`/api/v1/users/${restored.id}/restore`)

    await services.eraseDeleted()

    const { rows } = await pool.query<{ id: string; email: string | null }>(
      'select id, email from users where id = any($1)',
      [[gone.id, recent.id, restored.id]],
    )
    t.same(
      new Map(rows.map((row) => [row.id, row.email])),
      new Map([
        [gone.id, null],
        [recent.id, recent.email],
        [restored.id, restored.email],
      ]),
    )
    const [erased, ...earlier] = (await root.get(`/api/v1/audit-events?target_id=${gone.id}`)).json()
    t.match(erased, { action: 'user.erased', actor_type: 'system' })
    t.same(
      earlier.map(({ action }: { action: string }) => action),
      ['user.deleted', 'session.created', 'role.assigned', 'user.created'],
    )
  })

  await t.test(
    'is not stopped by a role that was held everywhere, as long as another super admin stays',
    async (t) => {
      const other = await person('SUPER_ADMIN')
      t.equal((await root.post(`/api/v1/users/${other.id}/erase`)).statusCode, 204)
      t.same(
        (await root.get(`/api/v1/users?role_id=${await roleId('SUPER_ADMIN')}`))
          .json<{ id: string }[]>()
          .map((one) => one.id),
        [rootId],
      )
    },
  )
})

t.test('what is stored about a user', async (t) => {
  const postern = await buildTestApp(t, { env: { TRUST_PROXY: 'loopback' } })
  const { root, rootId, person, anonymous } = postern
  const { id, client, there } = await ada(postern)
  const exported = await root.get(`/api/v1/users/${id}/export`)
  const document = exported.json<Record<string, Record<string, unknown>[]>>()

  await t.test('is one document', async (t) => {
    t.equal(exported.statusCode, 200)
    t.match(document, {
      user: {
        id,
        key: 'ada-personal-key',
        email: 'ada.king@personal.test',
        attributes: { nickname: 'personal-countess' },
      },
      credentials: { has_password: true, must_change: false },
      totp: [{ confirmed_at: String }],
      recovery_codes: [{ used_at: null }],
      passkeys: [{ name: 'personal laptop', credential_id: 'personal-credential' }],
      sessions: [{ address: '203.0.113.77', user_agent: 'personal-browser' }],
      links_sent: [{ kind: 'password_reset' }],
      invitations: [{ account_id: there, role: 'GUEST', email: 'Ada.King@personal.test' }],
      invites: [{ email: 'Ada.King@personal.test' }],
      instances: [{ instance: 'user:ada-personal-key' }],
      relationships: [{ subject: 'user:ada-personal-key', relation: 'friend', object: 'user:grace' }],
      decisions: [{ resource: 'document:1', is_allowed: false }],
    })
    t.same(document['roles']?.map((held) => held['role']).sort(), ['ACCOUNT_ADMIN', 'GUEST'])
    t.same(document['accounts']?.map((account) => account['id']).sort(), [postern.home, there].sort())
    const actions = document['audit_events']?.map((event) => event['action'])
    for (const action of [
      'user.created',
      'user.updated',
      'role.assigned',
      'session.created',
      'access.refused',
      'user.exported',
    ])
      t.ok(actions?.includes(action), action)
  })

  await t.test('holds no secret, and nothing personal of others', async (t) => {
    t.notMatch(exported.body, /argon2|sealed-personal|code-hash|public-key|personal-token|personal-challenge/)
    const byOthers = document['audit_events']?.filter((event) => event['actor_id'] === rootId) ?? []
    t.ok(byOthers.length > 2)
    t.ok(byOthers.every((event) => !('address' in ((event['personal'] as object | null) ?? {}))))
    t.match(
      byOthers.find((event) => event['action'] === 'user.updated'),
      { personal: { email_before: 'ada@personal.test', email_after: 'ada.king@personal.test' } },
    )
  })

  await t.test('is for themselves', async (t) => {
    const own = (await client.get('/api/v1/users/me/export')).json<typeof document>()
    t.same(Object.keys(own), Object.keys(document))
    t.same(own['user'], document['user'])
    isProblem(t, await anonymous.get('/api/v1/users/me/export'), 'authentication_required')
  })

  await t.test(
    'C.5: is for those whose permissions reach everywhere, and as far as the user’s do',
    async (t) => {
      const admin = await person('ADMIN')
      const { client: machine } = await anApiKey(postern)

      t.equal((await admin.client.get(`/api/v1/users/${id}/export`)).statusCode, 200)
      isProblem(t, await admin.client.get(`/api/v1/users/${rootId}/export`), 'grant_exceeds_own')
      isProblem(t, await client.get(`/api/v1/users/${id}/export`), 'insufficient_scope')
      isProblem(t, await machine.get(`/api/v1/users/${id}/export`), 'user_is_protected')
      isProblem(t, await root.get(`/api/v1/users/${NO_SUCH_ID}/export`), 'user_not_found')
    },
  )

  await t.test('can be asked for until it is erased', async (t) => {
    await root.delete(`/api/v1/users/${id}`)
    t.match((await root.get(`/api/v1/users/${id}/export`)).json(), { user: { id, deleted_at: String } })
  })
})

t.test('restoring a deleted user', async (t) => {
  const postern = await buildTestApp(t)
  const { root, rootId, person, signIn, anonymous, home } = postern
  const restore = async (id: string, client = root) => await client.post(`/api/v1/users/${id}/restore`)

  await t.test('gives back the account, the roles and the sign-in', async (t) => {
    const user = await person('ACCOUNT_ADMIN')
    const before = (await root.get(`/api/v1/users/${user.id}`)).json<object>()
    await root.delete(`/api/v1/users/${user.id}`)
    isProblem(
      t,
      await anonymous.post('/api/v1/auth/login', { email: user.email, password: PASSWORD }),
      'invalid_credentials',
    )

    const restored = await restore(user.id)

    t.equal(restored.statusCode, 200)
    t.match(restored.json(), { ...before, updated_at: String })
    t.ok(restored.headers['etag'])
    isProblem(t, await user.client.get('/api/v1/users/me'), 'invalid_token')
    t.match((await postern.as(await signIn(user.email)).get('/api/v1/users/me/permissions')).json(), {
      role: 'ACCOUNT_ADMIN',
      account_id: home,
    })
    matchEach(t, (await root.get(`/api/v1/audit-events?target_id=${user.id}&action=user.restored`)).json(), [
      { actor_id: rootId },
    ])
  })

  await t.test('leaves whoever was not active as they were', async (t) => {
    const user = await person('GUEST')
    await root.post(`/api/v1/users/${user.id}/deactivate`)
    await root.delete(`/api/v1/users/${user.id}`)

    t.match((await restore(user.id)).json(), { is_active: false })
    isProblem(
      t,
      await anonymous.post('/api/v1/auth/login', { email: user.email, password: PASSWORD }),
      'invalid_credentials',
    )
  })

  await t.test('leaves out accounts that were deleted meanwhile, with the roles there', async (t) => {
    const [there, synced] = [await postern.account(), await postern.account()]
    const user = await person('ACCOUNT_ADMIN', { accountId: there })
    const other = await person('GUEST', { accountId: synced })
    const guest = { role_id: await postern.roleId('GUEST'), account_id: home }
    t.equal((await root.post(`/api/v1/users/${user.id}/roles`, guest)).statusCode, 201)
    await root.delete(`/api/v1/users/${user.id}`)
    t.equal((await root.delete(`/api/v1/accounts/${there}`)).statusCode, 204)
    await root.delete(`/api/v1/users/${other.id}`)
    await postern.services.accounts.deleteSynced(SYSTEM, synced)

    for (const { id } of [user, other]) t.match((await restore(id)).json(), { id, account_id: null })

    t.match((await root.get(`/api/v1/users/${user.id}/roles`)).json(), { length: 1, 0: guest })
    matchEach(t, (await root.get(`/api/v1/audit-events?target_id=${user.id}&action=user.restored`)).json(), [
      { details: { deleted_account_ids: [there] } },
    ])
    t.ok(await signIn(user.email))
  })

  await t.test('is refused when somebody else has the email or key by now', async (t) => {
    const [first, second] = [await person('GUEST'), await person('GUEST')]
    await root.patch(`/api/v1/users/${second.id}`, { key: 'second-key' })
    for (const { id } of [first, second]) await root.delete(`/api/v1/users/${id}`)
    await person('GUEST', { email: first.email })
    await root.post('/api/v1/users', { email: 'other@postern.test', password: PASSWORD, key: 'second-key' })

    isProblem(t, await restore(first.id), 'email_taken')
    isProblem(t, await restore(second.id), 'user_key_taken')
    isProblem(t, await root.get(`/api/v1/users/${first.id}`), 'user_not_found')
  })

  await t.test('C.5: is for those who may delete the user', async (t) => {
    const admin = await person('ADMIN')
    const accountAdmin = await person('ACCOUNT_ADMIN')
    const other = await person('SUPER_ADMIN')
    const { client: machine } = await anApiKey(postern)
    isProblem(t, await restore(other.id), 'user_not_deleted')
    await root.delete(`/api/v1/users/${other.id}`)

    isProblem(t, await restore(other.id, admin.client), 'grant_exceeds_own')
    isProblem(t, await restore(other.id, accountAdmin.client), 'insufficient_scope')
    isProblem(t, await restore(other.id, machine), 'user_is_protected')
    isProblem(t, await restore(NO_SUCH_ID), 'user_not_found')
    isProblem(t, await restore(other.id, anonymous), 'authentication_required')
  })
})

t.test('deleting oneself', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, services, anonymous } = postern

  await t.test('C.4: signs out everywhere, and can be undone by an administrator', async (t) => {
    const user = await person('GUEST')
    const elsewhere = postern.as(await postern.signIn(user.email))

    const response = await user.client.delete('/api/v1/users/me')

    t.equal(response.statusCode, 204)
    for (const client of [user.client, elsewhere])
      isProblem(t, await client.get('/api/v1/users/me'), 'invalid_token')
    isProblem(
      t,
      await anonymous.post('/api/v1/auth/login', { email: user.email, password: PASSWORD }),
      'invalid_credentials',
    )
    matchEach(t, (await root.get(`/api/v1/audit-events?target_id=${user.id}&action=user.deleted`)).json(), [
      { actor_id: user.id },
    ])
    t.equal((await root.post(`/api/v1/users/${user.id}/restore`)).statusCode, 200)
  })

  await t.test('C.4: asks for the password again when that is long ago', async (t) => {
    const user = await person('GUEST')
    await services.database.pool.query(
      `update sessions set authenticated_at = now() - interval '1 hour' where user_id = $1`,
      [user.id],
    )

    isProblem(t, await user.client.delete('/api/v1/users/me'), 'reauthentication_required')
    t.equal((await root.get(`/api/v1/users/${user.id}`)).statusCode, 200)
  })

  await t.test('is not for the last super admin, nor for machines', async (t) => {
    const { client: machine } = await anApiKey(postern)
    isProblem(t, await root.delete('/api/v1/users/me'), 'last_super_admin')
    isProblem(t, await machine.delete('/api/v1/users/me'), 'insufficient_scope')
    isProblem(t, await anonymous.delete('/api/v1/users/me'), 'authentication_required')
    t.equal((await root.get('/api/v1/users/me')).statusCode, 200)
  })

  await t.test('is off with USERS_SELF_DELETION=false', async (t) => {
    const { person: other } = await buildTestApp(t, { env: { USERS_SELF_DELETION: 'false' } })
    isProblem(t, await (await other('GUEST')).client.delete('/api/v1/users/me'), 'self_deletion_disabled')
  })
})

t.test('a machine erases whom it keeps', async (t) => {
  const postern = await buildTestApp(t)
  const { client: machine } = await anApiKey(postern)
  const { id } = (await machine.post('/api/v1/users', { key: 'synced' })).json<{ id: string }>()

  t.match((await machine.get(`/api/v1/users/${id}/export`)).json(), { user: { key: 'synced' } })
  t.equal((await machine.post(`/api/v1/users/${id}/erase`)).statusCode, 204)
  isProblem(t, await machine.get(`/api/v1/users/${id}`), 'user_not_found')
})

t.test('an erasure reaches Permit as the end of the user', async (t) => {
  const permit = await buildPermit(t)
  const postern = await buildUserOf(t, permit, { POLICY_ENGINE: 'permit', PERMIT_BREAKER_FAILURES: '1000' })
  const { id } = (
    await postern.root.post('/api/v1/users', { email: 'a@personal.test', key: 'ada', password: PASSWORD })
  ).json<{ id: string }>()
  const known = async () =>
    (await permit.postern.root.get('/api/v1/users?key=ada'))
      .json<{ email: string }[]>()
      .map(({ email }) => email)
  await postern.settled()
  t.same(await known(), ['a@personal.test'])

  await postern.root.post(`/api/v1/users/${id}/erase`)
  await postern.settled()

  t.same(await known(), [])
})
