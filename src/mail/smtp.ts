import type { Config } from '../config.ts'

/** A mail that is ready to go. */
export type OutgoingMail = {
  to: string
  subject: string
  text: string
  html: string
  /** The same for every try, so that a mail that arrives twice is recognised (RFC 5322 §3.6.4). */
  id: string
}

/** What became of a try: what the server said, or why there was no answer. */
export class MailError extends Error {
  override readonly name = 'MailError'
  /** Whether the server will never take this mail (RFC 5321 §4.2.1: 5yz). */
  readonly isPermanent: boolean
  /** What the server or the network said, which may name the recipient. */
  readonly detail: string

  constructor(message: string, options: { isPermanent: boolean; detail: string; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.isPermanent = options.isPermanent
    this.detail = options.detail
  }
}

/** A try ends after this time, well before the job of it would be taken for dead. */
const LONGEST_TRY_MS = 45_000
const TIMEOUTS = { connectionTimeout: 10_000, greetingTimeout: 10_000, socketTimeout: 20_000 }

type SmtpConfig = Pick<Config['mail'], 'from'> & { smtpUrl: string }

/** Hands mails to the server that SMTP_URL names. The library is loaded with the first one. */
export function createSmtp({ smtpUrl, from }: SmtpConfig) {
  const sender = senderOf(from)

  return {
    /** Returns what the server answered when it took the mail. @throws MailError */
    async send({ to, subject, text, html, id }: OutgoingMail): Promise<string> {
      // An address is one recipient, however it is written: as an object it is not taken apart.
      if (!SENDABLE.test(to)) throw unsendable()
      const { createTransport } = await import('nodemailer')
      const transport = createTransport({
        ...TIMEOUTS,
        ...(needsTls(smtpUrl) && { requireTLS: true }),
        disableFileAccess: true,
        disableUrlAccess: true,
        url: smtpUrl,
      })
      try {
        const { response } = await transport.sendMail({
          from: sender,
          to: { name: '', address: to },
          envelope: { from: sender.address, to: [to] },
          messageId: `<${id}@${sender.address.slice(sender.address.lastIndexOf('@') + 1)}>`,
          subject,
          text,
          html,
          // No holiday greetings (RFC 3834 §5).
          headers: { 'Auto-Submitted': 'auto-generated', 'X-Auto-Response-Suppress': 'All' },
          signal: AbortSignal.timeout(LONGEST_TRY_MS),
        })
        return response
      } catch (error) {
        throw mailErrorOf(error)
      } finally {
        transport.close()
      }
    },
  }
}

/** The two parts of `Name <address>`, or of an address alone. */
function senderOf(from: string): { name: string; address: string } {
  const [, name = '', address = from] = /^(.*?)\s*<([^<>]+)>$/.exec(from) ?? []
  return { name, address }
}

/** Quoted local parts and lists are refused: nobody signs in with them, and they are read in more than one way. */
const SENDABLE = /^[^\s\p{Cc}<>()[\],;:\\"@]+@[^\s\p{Cc}<>()[\],;:\\"@]+$/u

const unsendable = (): MailError =>
  new MailError('the address cannot be sent to', { isPermanent: true, detail: 'not an address' })

/** A password is not sent in the clear, unless the URL says `requireTLS=false` or it stays on this machine. */
function needsTls(smtpUrl: string): boolean {
  const { username, hostname } = new URL(smtpUrl)
  return username !== '' && !['localhost', '127.0.0.1', '[::1]'].includes(hostname)
}

/** Answers to these decide about the one mail; others are about the service, which an operator can mend. */
const ABOUT_THE_MAIL = new Set(['MAIL FROM', 'RCPT TO', 'DATA'])
const AUTHENTICATION_REQUIRED = 530

function mailErrorOf(error: unknown): MailError {
  if (!(error instanceof Error)) throw error
  const { code, responseCode, command } = error as { code?: string; responseCode?: number; command?: string }
  const isPermanent =
    responseCode !== undefined &&
    responseCode >= 500 &&
    responseCode !== AUTHENTICATION_REQUIRED &&
    ABOUT_THE_MAIL.has(command ?? '')
  const message =
    responseCode === undefined
      ? `the mail server could not be talked to (${code ?? error.name})`
      : `the mail server answered ${responseCode} to ${command ?? 'the connection'}`
  return new MailError(message, { isPermanent, detail: error.message, cause: error })
}
