import { loadConfig } from '../config.ts'
import { StartupError } from '../errors.ts'
import { Email } from '../http/schemas.ts'
import { newId } from '../ids.ts'
import { createSmtp, MailError } from '../mail/smtp.ts'
import { print } from '../terminal.ts'
import { defineCommand, UsageError } from './command.ts'
import { faultsOf } from './input.ts'

const TEXT = 'Postern sends mails as it should.'

export const testMail = defineCommand({
  path: 'mail test',
  summary: 'Send a test mail, and say what the mail server answered',
  details: ['Needs no database. Exit code 1 when the server did not take the mail.'],
  positionals: ['ADDRESS'],
  flags: {},
  examples: ['postern mail test ada@example.com'],
  async run(_flags, [address = '']) {
    if (faultsOf(Email, address).length > 0) throw new UsageError(`${address} is no email address`)
    const { smtpUrl, from } = loadConfig().mail
    if (smtpUrl === undefined)
      throw new StartupError('There is no mail server: set SMTP_URL and MAIL_FROM first.')
    const { host } = new URL(smtpUrl)
    const mail = {
      id: newId(),
      to: address,
      subject: 'A test mail',
      text: `${TEXT}\n`,
      html: `<p>${TEXT}</p>\n`,
    }
    try {
      print(`${host} took it: ${await createSmtp({ smtpUrl, from }).send(mail)}`)
    } catch (error) {
      if (!(error instanceof MailError)) throw error
      throw new StartupError(`${host} did not take it: ${error.detail.replaceAll(/\s+/g, ' ')}.`, {
        cause: error,
      })
    }
  },
})
