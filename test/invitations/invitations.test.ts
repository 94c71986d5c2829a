import t from 'tap'
import { SYSTEM } from '../../src/principal.ts'
import { anApiKey, anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type Client, type Person } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { letSessionsAge } from '../helpers/factors.ts'
import { matchEach } from '../helpers/matching.ts'
import { mailServer, tokenIn } from '../helpers/smtp.ts'

const NEW_PASSWORD = 'a pass phrase of somebody new'

type Invitation = { id: string; email: string; status: string }

const inbox = await mailServer(t)
const postern = await buildTestApp(t, {
  env: {
    SMTP_URL: inbox.url,
    MAIL_FROM: 'Postern <no-reply@postern.test>',
    USERS_OPEN_REGISTRATION: 'false',
  },
})
const { anonymous, root, person, services } = postern
const { pool } = services.database

let made = 0
const newEmail = (): string => `invited-${++made}@postern.test`
const codeOf = (response: { json(): unknown }) => (response.json() as { type: string }).type.split('/').at(-1)

/** An account, its administrator, and a role of the application. */
async function scene() {
  const accountId = await postern.account()
  const admin = await person('ACCOUNT_ADMIN', { accountId })
  const role = await root.post('/api/v1/roles', { name: `role-${++made}`, scopes: ['post:read'] })
  return { accountId, admin, roleId: role.json<{ id: string }>().id, url: urlOf(accountId) }
}

const urlOf = (accountId: string): string => `/api/v1/accounts/${accountId}/invitations`

/** Invites, and returns what was answered and what was mailed. */
async function invite(client: Client, url: string, email: string, roleId: string) {
  const response = await client.post(url, { email, role_id: roleId })
  if (response.statusCode !== 201) throw new Error(response.body)
  return { invitation: response.json<Invitation>(), token: await tokenFor(email) }
}

async function tokenFor(email: string): Promise<string> {
  await services.jobs.runDue()
  return tokenIn(inbox.to(email).at(-1))
}

const accept = async (token: string, client = anonymous, fields: object = { password: NEW_PASSWORD }) =>
  await client.post('/api/v1/invitations/accept', { token, ...fields })
const inspect = async (token: string) => await anonymous.post('/api/v1/invitations/inspect', { token })

const signIn = async (email: string, account?: string, password = NEW_PASSWORD) =>
  await anonymous.post('/api/v1/auth/login', { email, password, ...(account && { account }) })

const heldBy = async (userId: string) =>
  (await root.get(`/api/v1/users/${userId}/roles`)).json<{ role_id: string; account_id: string | null }[]>()

t.test('somebody new is at home in the account, has the role, and an email that is proven', async (t) => {
  const { accountId, admin, roleId, url } = await scene()
  const email = newEmail()

  const { invitation, token } = await invite(admin.client, url, email, roleId)
  const seen = await inspect(token)
  const accepted = await accept(token, anonymous, { password: NEW_PASSWORD, full_name: 'Grace Hopper' })

  t.match(invitation, { email, status: 'pending', invited_by: { type: 'user', id: admin.id } })
  t.match(seen.json(), { email, needs_sign_in: false, role: { name: String }, account: { name: String } })
  t.equal(accepted.statusCode, 200)
  const { user_id } = accepted.json<{ user_id: string }>()
  t.match(accepted.json(), { account_id: accountId, is_new_user: true, role: { id: roleId } })
  t.match((await root.get(`/api/v1/users/${user_id}`)).json(), {
    email,
    full_name: 'Grace Hopper',
    account_id: accountId,
    user_role: { role_id: roleId },
  })
  t.equal((await signIn(email)).json().scope, 'post:read')
  const { rows } = await pool.query(
    'select email_verified_at is not null as verified from user_credentials where user_id = $1',
    [user_id],
  )
  t.same(rows, [{ verified: true }])
  const shown = await admin.client.get(`${url}/${invitation.id}`)
  t.match(shown.json(), { status: 'accepted', accepted_by: user_id })
})

t.test(
  'somebody who is here becomes a member when signed in, and stays at home where they are',
  async (t) => {
    const { accountId, admin, roleId, url } = await scene()
    const ada = await person('GUEST')
    const { token } = await invite(admin.client, url, ada.email.replace('person', 'Person'), roleId)

    t.match((await inspect(token)).json(), { needs_sign_in: true })
    t.equal(codeOf(await accept(token)), 'invitation_needs_sign_in')
    const accepted = await accept(token, ada.client, {})

    t.match(accepted.json(), { user_id: ada.id, is_new_user: false })
    t.match((await root.get(`/api/v1/users/${ada.id}`)).json(), { account_id: postern.home })
    t.match((await heldBy(ada.id))[1], { role: { id: roleId }, account_id: accountId })
    t.equal((await heldBy(ada.id)).length, 2)
    t.equal((await signIn(ada.email, accountId, PASSWORD)).json().scope, 'post:read')
    t.equal((await signIn(ada.email, undefined, PASSWORD)).statusCode, 200)
  },
)

t.test('ASVS 8.2.2: nobody accepts what is meant for another', async (t) => {
  const { admin, roleId, url } = await scene()
  const [ada, eve] = [await person('GUEST'), await person('GUEST')]
  const { token } = await invite(admin.client, url, ada.email, roleId)
  const machine = await anApiKey(postern)

  t.equal(codeOf(await accept(token, eve.client)), 'invitation_is_for_another')
  t.equal((await accept(token, postern.as('no.such.token'))).statusCode, 401)
  t.equal((await accept(token, machine.client)).statusCode, 403)
  t.equal((await accept(token, ada.client, {})).statusCode, 200)
})

t.test('whoever must change the password or enrol a factor first does so before accepting', async (t) => {
  const { admin, roleId, url } = await scene()
  const ada = await person('GUEST')
  const { token } = await invite(admin.client, url, ada.email, roleId)
  await services.users.updateUser(
    SYSTEM,
    ada.id,
    { password: NEW_PASSWORD, mustChangePassword: true },
    undefined,
  )
  const limited = (await signIn(ada.email)).json<{ access_token: string }>().access_token

  t.equal(codeOf(await accept(token, postern.as(limited), {})), 'password_change_required')

  const strict = await postern.account()
  const grace = await person('GUEST', { accountId: strict })
  const hers = await invite(admin.client, url, grace.email, roleId)
  await root.patch(`/api/v1/accounts/${strict}`, { is_mfa_required: true })
  const withOneFactor = postern.as(await postern.signIn(grace.email))
  t.equal(codeOf(await accept(hers.token, withOneFactor, {})), 'mfa_enrolment_required')
})

t.test('a password is asked of people who are new, and it has to be a good one', async (t) => {
  const { admin, roleId, url } = await scene()
  const email = newEmail()
  const { token } = await invite(admin.client, url, email, roleId)

  for (const fields of [{}, { password: 'short' }, { password: `${email} ${email}` }])
    t.equal((await accept(token, anonymous, fields)).statusCode, 422)
  t.equal((await accept(token)).statusCode, 200)
})

t.test('a link is good once, and of two who use it at the same time one wins', async (t) => {
  const { admin, roleId, url } = await scene()
  const { token } = await invite(admin.client, url, newEmail(), roleId)

  const answers = await Promise.all([accept(token), accept(token)])

  t.equal(answers.filter(({ statusCode }) => statusCode === 200).length, 1)
  t.ok(answers.some(({ statusCode }) => statusCode === 404 || statusCode === 409))
  t.equal(codeOf(await accept(token)), 'invitation_not_found')
  t.equal(codeOf(await inspect(token)), 'invitation_not_found')

  const ada = await person('GUEST')
  const { token: hers } = await invite(admin.client, url, ada.email, roleId)
  const twice = await Promise.all([accept(hers, ada.client, {}), accept(hers, ada.client, {})])
  t.same(twice.map(({ statusCode }) => statusCode).sort(), [200, 404])
})

t.test('links that were revoked, replaced or made up, or have expired, open nothing', async (t) => {
  const { accountId, admin, roleId, url } = await scene()
  const [first, second, third] = [
    await invite(admin.client, url, newEmail(), roleId),
    await invite(admin.client, url, newEmail(), roleId),
    await invite(admin.client, url, newEmail(), roleId),
  ]

  t.equal((await admin.client.delete(`${url}/${first.invitation.id}`)).statusCode, 204)
  t.equal((await admin.client.post(`${url}/${second.invitation.id}/resend`)).statusCode, 200)
  await pool.query("update account_invitations set expires_at = now() - interval '1 second' where id = $1", [
    third.invitation.id,
  ])

  for (const token of [first.token, second.token, third.token, 'made-up'])
    t.equal(codeOf(await accept(token)), 'invitation_not_found')
  t.equal(codeOf(await admin.client.post(`${url}/${first.invitation.id}/resend`)), 'invitation_is_closed')
  t.equal(codeOf(await admin.client.delete(`${url}/${first.invitation.id}`)), 'invitation_is_closed')
  t.equal((await accept(await tokenFor(second.invitation.email))).statusCode, 200, 'the new link works')
  const expired = await admin.client.get(`${url}?status=expired&total=true`)
  matchEach(t, expired.json(), [{ id: third.invitation.id, status: 'expired' }])
  t.equal(expired.headers['x-total-count'], '1')

  const again = await invite(admin.client, url, third.invitation.email, roleId)
  await services.accounts.updateAccount(SYSTEM, accountId, { isActive: false }, undefined)
  t.equal(codeOf(await accept(again.token)), 'invitation_not_found', 'nor those to accounts that are off')
})

t.test('C.3: an address that is known here and one that is not are invited alike', async (t) => {
  const { admin, roleId, url } = await scene()
  const [known, unknown] = [(await person('GUEST')).email, newEmail()]
  const answers = []
  for (const email of [known, unknown]) answers.push(await admin.client.post(url, { email, role_id: roleId }))

  const [one = {}, other = {}] = answers.map((answer) => answer.json<Record<string, unknown>>())
  t.same(
    answers.map(({ statusCode }) => statusCode),
    [201, 201],
  )
  t.same(Object.keys(one), Object.keys(other))
  const subjects = []
  for (const email of [known, unknown]) {
    await services.jobs.runDue()
    subjects.push(inbox.to(email).at(-1)?.headers['subject'])
  }
  t.ok(subjects[0])
  t.equal(subjects[0], subjects[1])
  t.equal(codeOf(await admin.client.post(url, { email: known, role_id: roleId })), 'invitation_exists')
})

t.test('nobody invites with a role beyond their own, nor to another account', async (t) => {
  const { admin, roleId, url } = await scene()
  const elsewhere = await scene()
  const body = { email: newEmail(), role_id: roleId }
  const [superAdmin, guest] = [await postern.roleId('SUPER_ADMIN'), await person('GUEST')]
  const machine = await anApiKey(postern)
  const builtin = { email: newEmail(), role_id: await postern.roleId('GUEST') }

  t.equal(codeOf(await admin.client.post(url, { ...body, role_id: superAdmin })), 'grant_exceeds_own')
  t.equal(codeOf(await admin.client.post(url, { ...body, role_id: admin.id })), 'role_not_found')
  t.equal(codeOf(await admin.client.post(elsewhere.url, body)), 'account_not_found')
  t.equal(codeOf(await guest.client.post(url, body)), 'insufficient_scope')
  t.equal(codeOf(await machine.client.post(url, builtin)), 'grant_exceeds_own')
  t.equal((await machine.client.post(url, body)).statusCode, 201, 'a machine gives roles of the application')
  const environment = await anEnvironment(postern)
  t.equal(codeOf(await root.get(url, inEnvironment(environment.name))), 'account_not_found')
})

t.test('ASVS 7.5.3: who invites an administrator has authenticated recently', async (t) => {
  const { admin, roleId, url } = await scene()
  const ours = await postern.roleId('ACCOUNT_ADMIN')
  const { invitation, token } = await invite(admin.client, url, newEmail(), ours)
  await letSessionsAge(postern, admin.id, 601)
  const email = newEmail()

  const refused = await admin.client.post(url, { email, role_id: ours })
  const resent = await admin.client.post(`${url}/${invitation.id}/resend`)
  const harmless = await admin.client.post(url, { email, role_id: roleId })

  t.equal(codeOf(refused), 'reauthentication_required')
  t.equal(codeOf(resent), 'reauthentication_required')
  t.equal(harmless.statusCode, 201, 'a role of the application; and the first one has left nothing')
  t.equal((await accept(token)).statusCode, 200, 'what was given in time is taken whenever it pleases')
})

t.test('ASVS 8.2.2: invitations to another account are not there', async (t) => {
  const { admin, roleId, url } = await scene()
  const other = await scene()
  const { invitation, token } = await invite(admin.client, url, newEmail(), roleId)
  const attacks = (client: Client, place: string) => [
    client.get(place),
    client.get(`${place}/${invitation.id}`),
    client.post(`${place}/${invitation.id}/resend`),
    client.delete(`${place}/${invitation.id}`),
  ]

  const answers = await Promise.all(attacks(other.admin.client, url))
  const through = await Promise.all(attacks(other.admin.client, other.url).slice(1))

  for (const answer of answers) t.equal(codeOf(answer), 'account_not_found')
  for (const answer of through) t.equal(codeOf(answer), 'invitation_not_found')
  t.equal((await accept(token)).statusCode, 200)
})

t.test('what the inviter may give is looked at again when it is taken', async (t) => {
  const { accountId, roleId, url, admin } = await scene()
  const lost: [why: string, take: (inviter: Person) => Promise<unknown>][] = [
    ['has lost the role', async ({ id }) => await root.delete(`/api/v1/user-roles/${id}`)],
    ['is not active', async ({ id }) => await root.post(`/api/v1/users/${id}/deactivate`)],
    ['is gone', async ({ id }) => await root.delete(`/api/v1/users/${id}`)],
  ]

  for (const [why, take] of lost) {
    const inviter = await person('ACCOUNT_ADMIN', { accountId })
    const { invitation, token } = await invite(inviter.client, url, newEmail(), roleId)
    await take(inviter)

    t.equal(codeOf(await accept(token)), 'invitation_is_void', why)
    t.equal((await signIn(invitation.email)).statusCode, 401, 'and nobody was made')
    t.equal((await admin.client.post(`${url}/${invitation.id}/resend`)).statusCode, 200)
    t.equal((await accept(await tokenFor(invitation.email))).statusCode, 200, 'until somebody else invites')
  }

  const machine = await anApiKey(postern)
  const { token } = await invite(machine.client, url, newEmail(), roleId)
  await root.delete(`/api/v1/api-keys/${machine.id}`)
  t.equal(codeOf(await accept(token)), 'invitation_is_void', 'of machines too')
})

t.test('an account is no way to send mail to strangers', async (t) => {
  const { admin, roleId, url } = await scene()
  const { invitation } = await invite(admin.client, url, newEmail(), roleId)
  const resent = []
  for (let n = 0; n < 10; n++)
    resent.push((await admin.client.post(`${url}/${invitation.id}/resend`)).statusCode)

  t.same(resent, [...Array(9).fill(200), 429])
  const other = await scene()
  const theirs = await other.admin.client.post(other.url, { email: invitation.email, role_id: other.roleId })
  t.equal(theirs.statusCode, 201, 'nor one to keep others from it')
  t.ok((await accept(await tokenFor(invitation.email))).statusCode === 200)

  const crowded = newEmail()
  const count = async () => await services.throttle.isWithin('invitation', `email|${crowded}`, 100, 86_400)
  await Promise.all(Array.from({ length: 100 }, count))
  const silent = await other.admin.client.post(other.url, { email: crowded, role_id: other.roleId })
  await services.jobs.runDue()
  t.equal(silent.statusCode, 201, 'what others have sent there is nobody’s business')
  t.same(inbox.to(crowded), [])

  const { invitation: open, token } = await invite(admin.client, url, newEmail(), roleId)
  const mails = async () => await services.throttle.isWithin('invitation', `email|${open.email}`, 100, 86_400)
  await Promise.all(Array.from({ length: 100 }, mails))
  await pool.query(`update account_invitations set expires_at = now() - interval '1 day' where id = $1`, [
    open.id,
  ])
  const unsent = await admin.client.post(`${url}/${open.id}/resend`)
  t.equal(unsent.statusCode, 200)
  t.match(unsent.json(), { status: 'pending' }, 'nobody learns what others have sent there')
  const { rows } = await pool.query(
    `select 1 from audit_events where action = 'invitation.resent' and target_id = $1`,
    [open.id],
  )
  t.equal(rows.length, 1)
  t.equal(
    (await accept(token)).statusCode,
    200,
    'where no further mail is sent, the link of the last one is good',
  )
})

t.test('C.5 8.2.3: only the very address that was invited counts as confirmed', async (t) => {
  const { admin, roleId, url } = await scene()
  const isVerified = async ({ id }: Person) =>
    (
      await pool.query('select from user_credentials where user_id = $1 and email_verified_at is not null', [
        id,
      ])
    ).rowCount === 1

  for (const [stored, invited, isConfirmed] of [
    ['ursula@straße.de', 'ursula@strasse.de', false],
    ['Vera@postern.test', 'vera@postern.test', true],
  ] as const) {
    const member = await person('GUEST', { email: stored })
    await pool.query('update user_credentials set email_verified_at = null where user_id = $1', [member.id])
    const { token } = await invite(admin.client, url, invited, roleId)

    t.equal((await accept(token, member.client, {})).statusCode, 200)
    t.equal(await isVerified(member), isConfirmed, stored)
  }
})

t.test(
  'neither the token nor the address is in the trail, and the token is not in the database',
  async (t) => {
    const { admin, roleId, url } = await scene()
    const email = newEmail()
    const { invitation, token } = await invite(admin.client, url, email, roleId)

    const { rows: events } = await pool.query(
      `select e.*, p.data from audit_events e left join audit_personal_data p on p.audit_event_id = e.id
     where target_id = $1`,
      [invitation.id],
    )
    const { rows } = await pool.query('select * from account_invitations where id = $1', [invitation.id])

    t.equal(events.length, 1)
    t.notMatch(JSON.stringify(events), email)
    t.notMatch(JSON.stringify(rows), token)
  },
)

t.test('what was decided a month ago is removed, with the address in it', async (t) => {
  const { admin, roleId, url } = await scene()
  const [open, revoked] = [
    await invite(admin.client, url, newEmail(), roleId),
    await invite(admin.client, url, newEmail(), roleId),
  ]
  await admin.client.delete(`${url}/${revoked.invitation.id}`)
  await pool.query("update account_invitations set updated_at = now() - interval '31 days'")

  await services.invitations.prune()

  matchEach(t, (await admin.client.get(url)).json(), [{ id: open.invitation.id }])
  t.equal((await admin.client.get(url)).json<unknown[]>().length, 1)
})

t.test('without a way to send mail nobody is invited', async (t) => {
  const mute = await buildTestApp(t, { databaseUrl: postern.databaseUrl })
  const body = { email: newEmail(), role_id: await mute.roleId('GUEST') }

  const response = await mute.root.post(urlOf(mute.home), body)

  t.equal(response.statusCode, 503)
  t.equal(codeOf(response), 'mail_not_configured')
})
