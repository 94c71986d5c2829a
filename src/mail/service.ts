import type { Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import type { Executor } from '../db/client.ts'
import { AppError } from '../errors.ts'
import { newId } from '../ids.ts'
import type { Attempt, Jobs } from '../jobs/service.ts'
import type { Vault } from '../vault.ts'
import { createSmtp, MailError } from './smtp.ts'
import { loadMailTemplates, type MailData, type MailTemplate } from './templates.ts'

/** A mail that is to be sent. */
export type NewMail<T extends MailTemplate = MailTemplate> = {
  to: string
  template: T
  data: MailData[T]
  /** It is not sent any more from then on, as the link in it is dead. Default: it is tried for some hours. */
  expiresAt?: Date
}

/** What becomes of a mail: the last three are the end of it without its being sent. */
export type MailOutcome = 'sent' | 'delayed' | 'refused' | 'given_up' | 'expired'

/** Pages of the application that links lead to. */
export type LinkedPage = keyof Config['mail']['paths']

/** Takes the place of a mail server. */
export type LogMail = (mail: { to: string; subject: string; text: string }) => void

export type Mailer = ReturnType<typeof createMailer>

type Dependencies = {
  config: Config['mail']
  jobs: Pick<Jobs, 'add' | 'handle'>
  vault: Vault
  clock: Clock
  /** Where mails go while there is no SMTP_URL; absent: nowhere. */
  log: LogMail | undefined
  onMail: (outcome: MailOutcome) => void
  onWarning: (details: Record<string, unknown>, message: string) => void
}

/** The name of the jobs that send mails. */
const MAIL_TASK = 'send_mail'
/** With the waits between them, some four hours of tries. */
const MOST_ATTEMPTS = 50
const LONGEST_WAIT_MS = 300_000
/** Seconds. */
const AN_HOUR = 3600

/** What waits to be sent, as it lies sealed in its job. */
type QueuedMail = {
  id: string
  to: string
  template: MailTemplate
  data: MailData[MailTemplate]
  at: string
  expiresAt?: string
}

/**
 * Sends mails, later and again until the server has taken them or refuses them for good: each is a job, which is there
 * if and only if the transaction commits. What it says lies sealed in it, because links are secrets.
 * @throws StartupError for templates that cannot be used
 */
export function createMailer({ config, jobs, vault, clock, log, onMail, onWarning }: Dependencies) {
  const { smtpUrl, from, appUrl, paths } = config
  const render = loadMailTemplates(config.templatesDir)
  const smtp = smtpUrl === undefined ? undefined : createSmtp({ smtpUrl, from })
  const isConfigured = smtp !== undefined || log !== undefined
  const service = new URL(appUrl).host

  function opened(payload: unknown): QueuedMail | undefined {
    const { sealed } = payload as { sealed: string }
    const text = vault.open('mail', sealed)
    return text === undefined ? undefined : (JSON.parse(text) as QueuedMail)
  }

  async function deliver(payload: unknown, { isLast }: Attempt): Promise<void> {
    const mail = opened(payload)
    if (!mail) {
      // By a process that knows the SECRET_KEY of now, which takes one of the next tries.
      if (!isLast) throw new Error('a mail was sealed under another SECRET_KEY')
      onWarning({}, 'a mail was sealed under another SECRET_KEY, and is not sent')
      return onMail('given_up')
    }
    const { id, to, template, data, at, expiresAt } = mail
    if (expiresAt !== undefined && clock.now() >= new Date(expiresAt)) return onMail('expired')
    const rendered = render(template, data, { service, app_url: appUrl, time: timeOf(at) })
    if (!smtp) return log?.({ to, subject: rendered.subject, text: rendered.text })
    try {
      await smtp.send({ id, to, ...rendered })
      onMail('sent')
    } catch (error) {
      if (!(error instanceof MailError)) throw error
      const isOver = error.isPermanent || isLast
      onMail(error.isPermanent ? 'refused' : isLast ? 'given_up' : 'delayed')
      // Its detail may name the recipient, and is for nobody's log.
      if (!isOver) throw new Error(error.message)
      onWarning({ template, reason: error.message }, 'a mail could not be sent')
    }
  }

  jobs.handle(MAIL_TASK, { run: deliver, retriesWithinMs: LONGEST_WAIT_MS, isUrgent: true })

  return {
    /** Whether mails go anywhere. */
    isConfigured,

    /** What the operator is told at each start while there is no mail server. */
    warning:
      smtp !== undefined
        ? undefined
        : log !== undefined
          ? 'There is no SMTP_URL: mails, with their links, are printed to this log. Set ENVIRONMENT=prod where others read it'
          : 'There is no SMTP_URL: no mail is sent, and what needs one answers 503 mail_not_configured',

    /** For what is nothing without a mail. @throws AppError mail_not_configured */
    assertConfigured(): void {
      if (!isConfigured) throw new AppError('mail_not_configured', { retryAfterSeconds: AN_HOUR })
    },

    /**
     * Sends a mail when the transaction commits. Without SMTP_URL it is written to the log with ENVIRONMENT=dev, and
     * otherwise left out: notices need no configuration, links need `assertConfigured` before them.
     */
    async send<T extends MailTemplate>(
      { to, template, data, expiresAt }: NewMail<T>,
      tx: Executor,
    ): Promise<void> {
      if (!isConfigured) return
      const mail: QueuedMail = {
        id: newId(),
        to,
        template,
        data,
        at: clock.now().toISOString(),
        ...(expiresAt && { expiresAt: expiresAt.toISOString() }),
      }
      const sealed = vault.seal('mail', JSON.stringify(mail))
      await jobs.add(MAIL_TASK, { payload: { sealed }, mostAttempts: MOST_ATTEMPTS }, tx)
    },

    /** The link to a page of the application that takes a token. */
    linkTo: (page: LinkedPage, token: string): string =>
      `${appUrl}${paths[page].replace('{token}', encodeURIComponent(token))}`,
  }
}

/** `20 November 2026, 10:00 UTC` */
function timeOf(at: string): string {
  const format = new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeStyle: 'short', timeZone: 'UTC' })
  return `${format.format(new Date(at)).replace(' at ', ', ')} UTC`
}

/** How long a link works, for the text of its mail: `1 hour`, `10 minutes`. */
export function durationInWords(seconds: number): string {
  const minutes = Math.round(seconds / 60)
  const [count, unit] =
    minutes % 1440 === 0
      ? [minutes / 1440, 'day']
      : minutes % 60 === 0
        ? [minutes / 60, 'hour']
        : [minutes, 'minute']
  return `${count} ${unit}${count === 1 ? '' : 's'}`
}
