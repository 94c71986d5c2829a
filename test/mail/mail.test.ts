import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { StartupError } from '../../src/errors.ts'
import { durationInWords } from '../../src/mail/service.ts'
import { loadMailTemplates } from '../../src/mail/templates.ts'
import { createServices } from '../../src/services.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD, testConfig } from '../helpers/config.ts'
import { isProblem } from '../helpers/hostile.ts'
import { matchEach } from '../helpers/matching.ts'
import { runPostern } from '../helpers/processes.ts'
import { mailServer } from '../helpers/smtp.ts'

const COMMON = { service: 'app.postern.test', app_url: 'https://app.postern.test', time: 'now' }
const LINK = { link: 'https://app.postern.test/?a=1&b=2#token=x', expires_in: '1 hour' }

async function templatesDir(t: Test, files: Record<string, string>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-mails-'))
  t.teardown(async () => await rm(folder, { recursive: true }))
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text)
  return folder
}

t.test('templates', async (t) => {
  await t.test('a mail has a subject, a text and the same as HTML', async (t) => {
    const mail = loadMailTemplates(undefined)('password-reset', LINK, COMMON)

    t.equal(mail.subject, 'Set a new password for app.postern.test')
    t.match(mail.text, `\n\n${LINK.link}\n\n`)
    t.match(mail.html, '<p><a href="https://app.postern.test/?a=1&amp;b=2#token=x">')
    t.notMatch(`${mail.subject}${mail.text}${mail.html}`, /\{\{|undefined/)
  })

  await t.test('what others have named is no markup, no header and no placeholder', async (t) => {
    const account = '<b>{{link}}</b>\r\nBcc: eve@evil.test\r\n\r\n"quoted"'

    const mail = loadMailTemplates(undefined)('invitation', { ...LINK, account }, COMMON)

    t.equal(mail.subject, 'You are invited to <b>{{link}}</b> Bcc: eve@evil.test "quoted"')
    t.match(mail.html, 'join &lt;b&gt;{{link}}&lt;/b&gt; Bcc: eve@evil.test &quot;quoted&quot; at')
    t.notMatch(mail.text, /\nBcc/)
  })

  await t.test('files replace them one by one', async (t) => {
    const folder = await templatesDir(t, {
      'magic-link.subject.txt': 'Anmelden bei {{ service }}\n',
      'magic-link.html': '<a href="{{link}}">{{expires_in}}</a>',
      'password-changed.txt': 'Geändert, {{time}}\n\n{{app_url}}\n',
    })
    const render = loadMailTemplates(folder)

    const link = render('magic-link', LINK, COMMON)
    t.equal(link.subject, 'Anmelden bei app.postern.test')
    t.equal(link.html, '<a href="https://app.postern.test/?a=1&amp;b=2#token=x">1 hour</a>')
    t.match(link.text, /^To sign in/)
    const changed = render('password-changed', {}, COMMON)
    t.equal(changed.text, 'Geändert, now\n\nhttps://app.postern.test\n')
    t.match(changed.html, '<p>Geändert, now</p>\n<p>https://app.postern.test</p>')
  })

  await t.test('a file that cannot work refuses the start', async (t) => {
    const typo = await templatesDir(t, { 'magic-link.txt': '{{link}} {{exipres_in}}' })
    const noLink = await templatesDir(t, { 'magic-link.html': '<p>Hello</p>' })
    const misnamed = await templatesDir(t, { 'magiclink.txt': '{{link}}' })

    t.throws(() => loadMailTemplates(typo), /magic-link.txt names \{\{exipres_in\}\}; there are \{\{link\}\}/)
    t.throws(() => loadMailTemplates(noLink), /magic-link.html must contain \{\{link\}\}/)
    t.throws(() => loadMailTemplates(misnamed), /There is no mail that magiclink.txt could be a template of/)
    t.throws(() => loadMailTemplates(join(misnamed, 'nowhere')), StartupError)
  })

  t.same([600, 3600, 7200, 86_400].map(durationInWords), ['10 minutes', '1 hour', '2 hours', '1 day'])
})

t.test('configuration of mails that cannot work is refused', async (t) => {
  const faults: [NodeJS.ProcessEnv, RegExp][] = [
    [{ SMTP_URL: 'smtp://mail.test' }, /MAIL_FROM must be set too with SMTP_URL/],
    [{ SMTP_URL: 'http://mail.test' }, /SMTP_URL must begin with smtp:\/\/ or smtps:\/\/, and name a host$/m],
    [{ MAIL_FROM: 'Ada\r\nBcc: x@y.test <a@b.test>' }, /MAIL_FROM must be an address/],
    [{ MAGIC_LINK_PATH: '/sign-in' }, /MAGIC_LINK_PATH must begin with a slash and contain \{token\}/],
    [{ EMAIL_VERIFICATION: 'required' }, /SMTP_URL must be set too with EMAIL_VERIFICATION=required/],
  ]
  for (const [env, sentence] of faults) t.throws(() => testConfig(env), sentence)
  t.equal(testConfig().mail.appUrl, 'http://postern.test')
})

t.test('mails are sent by jobs', async (t) => {
  const inbox = await mailServer(t)
  const warnings: string[] = []
  let now = new Date('2026-11-20T10:00:00Z')
  const { services, config, databaseUrl } = await buildTestApp(t, {
    env: {
      SMTP_URL: inbox.url,
      MAIL_FROM: 'Postern <no-reply@postern.test>',
      PUBLIC_URL: 'https://postern.test',
    },
    clock: { now: () => now },
    warn: (details, message) => warnings.push(`${message} ${JSON.stringify(details)}`),
  })
  const { jobs, mailer, database } = services
  const send = async (to: string, expiresAt?: Date) =>
    await mailer.send(
      { to, template: 'password-reset', data: LINK, ...(expiresAt && { expiresAt }) },
      database.db,
    )
  const waiting = async () =>
    (
      await database.pool.query<{ attempts: number; last_error: string | null; payload: object }>(
        'select attempts, last_error, payload from graphile_worker._private_jobs order by id',
      )
    ).rows
  const again = async () => {
    await database.pool.query('update graphile_worker._private_jobs set run_at = now()')
    await jobs.runDue()
  }
  const outcomes = async () => {
    const metric = services.metrics.registry.getSingleMetric('postern_mails_total')
    const { values } = (await metric?.get()) ?? { values: [] }
    return Object.fromEntries(values.map(({ labels, value }) => [labels['outcome'], value]))
  }
  t.beforeEach(() => {
    inbox.mails.length = 0
    warnings.length = 0
  })

  await t.test('one arrives in both forms, for one recipient, from nobody who would answer', async (t) => {
    await send('ada@postern.test')
    const [job] = await waiting()
    t.notMatch(JSON.stringify(job), /ada@|token=|password/, 'the job says nothing of what is in it')

    await jobs.runDue()

    const [mail] = inbox.mails
    t.match(mail, { from: 'no-reply@postern.test', to: ['ada@postern.test'] })
    t.match(mail?.headers, {
      from: 'Postern <no-reply@postern.test>',
      to: 'ada@postern.test',
      subject: 'Set a new password for postern.test',
      'auto-submitted': 'auto-generated',
      'message-id': /^<[0-9a-f-]{36}@postern.test>$/,
    })
    t.match(mail?.text, LINK.link)
    t.match(mail?.html, /<a href=/)
    t.same(await waiting(), [])
  })

  await t.test('an address is one recipient, whatever it looks like', async (t) => {
    for (const to of [
      'ada@postern.test, eve@evil.test',
      'ada@postern.test\r\nRCPT TO:<eve@evil.test>',
      '"eve@evil.test"@postern.test',
      'Eve <eve@evil.test>',
    ])
      await send(to)

    await jobs.runDue()

    t.same(inbox.mails, [])
    t.same(await waiting(), [])
    t.match(warnings.join('\n'), /a mail could not be sent.*cannot be sent to/)
    t.notMatch(warnings.join('\n'), /eve|ada/)
  })

  await t.test(
    'what the server refuses for now is tried again, and what it refuses for good is not',
    async (t) => {
      inbox.refuse({ at: 'RCPT', code: 451 }, { at: 'DATA', code: 452 })
      await send('bea@postern.test')
      await jobs.runDue()
      matchEach(t, await waiting(), [{ attempts: 1, last_error: /answered 451 to RCPT TO/ }])
      t.notMatch(JSON.stringify(await waiting()), /somebody@/, 'the words of the server may name people')
      await again()
      matchEach(t, await waiting(), [{ attempts: 2, last_error: /answered 452 to DATA/ }])
      await again()
      t.same(inbox.to('bea@postern.test').length, 1)

      for (const at of ['RCPT', 'DATA'] as const) {
        inbox.refuse({ at, code: 550 })
        await send('nobody@postern.test')
        await jobs.runDue()
        t.same(await waiting(), [])
      }
      t.same(inbox.to('nobody@postern.test'), [])
      t.notMatch(warnings.join('\n'), /somebody@|nobody@/)
      t.match(await outcomes(), { delayed: 2, refused: 6 })
    },
  )

  await t.test('who cannot open a mail leaves it to a process that can', async (t) => {
    const newer = createServices(config, {
      databaseUrl,
      secretKey: 'another secret key that only this test has',
    })
    t.teardown(async () => await newer.close())
    const mail = { to: 'eva@postern.test', template: 'password-reset', data: LINK } as const
    await newer.mailer.send(mail, database.db)
    await jobs.runDue()
    matchEach(t, await waiting(), [{ attempts: 1, last_error: /sealed under another SECRET_KEY/ }])

    await database.pool.query('update graphile_worker._private_jobs set run_at = now()')
    await newer.jobs.runDue(['send_mail'])
    t.same(
      inbox.mails.map(({ to }) => to),
      [['eva@postern.test']],
    )
    t.same(await waiting(), [])
  })

  await t.test('while the server is away mails wait, but not longer than their links live', async (t) => {
    await inbox.stop()
    await send('cyd@postern.test')
    await send('late@postern.test', new Date(now.getTime() + 3_600_000))
    await jobs.runDue()
    matchEach(t, await waiting(), [
      { last_error: /ECONNREFUSED|ESOCKET/ },
      { last_error: /ECONNREFUSED|ESOCKET/ },
    ])

    const back = await mailServer(t, inbox.port)
    now = new Date(now.getTime() + 3_600_000)
    await again()

    t.same(
      back.mails.map(({ to }) => to),
      [['cyd@postern.test']],
    )
    t.same(await waiting(), [])
    t.match(await outcomes(), { expired: 1 })
  })

  await t.test('after the last try a mail is given up, and nothing of it stays', async (t) => {
    await send('dan@postern.test')
    await database.pool.query('update graphile_worker._private_jobs set attempts = max_attempts - 1')
    await jobs.runDue()

    t.same(await waiting(), [])
    t.match(await outcomes(), { given_up: 1 })
  })
})

t.test('with ENVIRONMENT=dev and no mail server, links are printed', async (t) => {
  const printed: { to: string; text: string }[] = []
  const { services } = await buildTestApp(t, {
    env: { ENVIRONMENT: 'dev' },
    logMail: (mail) => printed.push(mail),
  })

  await services.mailer.send(
    { to: 'ada@postern.test', template: 'magic-link', data: LINK },
    services.database.db,
  )
  await services.jobs.runDue()

  matchEach(t, printed, [{ to: 'ada@postern.test', text: LINK.link }])
  t.match(services.mailer.warning, /printed to this log/)
})

t.test('with ENVIRONMENT=prod and no mail server nothing is printed, and the start says so', async (t) => {
  const printed: unknown[] = []
  const app = await buildTestApp(t, { env: { ENVIRONMENT: 'prod' }, logMail: (mail) => printed.push(mail) })
  const { email, client } = await app.person('GUEST')

  const asked = await app.anonymous.post('/api/v1/auth/password-reset', { email })
  const changed = await client.post('/api/v1/auth/change-password', {
    current_password: PASSWORD,
    new_password: 'another long enough password',
  })
  await app.services.jobs.runDue()

  isProblem(t, asked, 'mail_not_configured')
  t.equal(changed.statusCode, 204, changed.body)
  t.same(printed, [])
  t.match(app.services.mailer.warning, /answers 503 mail_not_configured/)
})

t.test('the command line sends a test mail and says what came of it', async (t) => {
  const inbox = await mailServer(t)
  const env = { SMTP_URL: inbox.url, MAIL_FROM: 'no-reply@postern.test' }
  const mailTest = async (address: string) => await runPostern(t, ['mail', 'test', address], { env })

  t.match(await mailTest('ada@postern.test'), { code: 0, stdout: /^127\.0\.0\.1:\d+ took it: 250 / })
  t.equal(inbox.to('ada@postern.test').length, 1)
  inbox.refuse({ at: 'RCPT', code: 550 })
  const refused = await mailTest('ada@postern.test')
  t.match(refused, { code: 1, stdout: '', stderr: /did not take it: .* 550 not now/ })
  t.match(await mailTest('nobody'), { code: 2, stderr: /nobody is no email address/ })
})
