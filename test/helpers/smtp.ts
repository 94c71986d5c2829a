import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { SMTPServer } from 'smtp-server'
import type { Test } from 'tap'

/** A mail as it arrived. */
export type ReceivedMail = {
  from: string
  to: readonly string[]
  headers: Readonly<Record<string, string>>
  text: string
  html: string
  raw: string
}

/** What the server says to the next mails instead of taking them. */
export type Refusal = { at: 'RCPT' | 'DATA'; code: number }

/** A mail server on a port of its own, which keeps what it is given. */
export async function mailServer(t: Test, port = 0) {
  const mails: ReceivedMail[] = []
  const refusals: Refusal[] = []
  const refuse = (at: Refusal['at']): Error | undefined => {
    if (refusals[0]?.at !== at) return undefined
    const { code } = refusals.shift() ?? { code: 0 }
    return Object.assign(new Error('not now, <somebody@postern.test>'), { responseCode: code })
  }
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    onRcptTo: (_address, _session, done) => done(refuse('RCPT')),
    onData(stream, { envelope }, done) {
      const chunks: Buffer[] = []
      stream.on('data', (chunk: Buffer) => chunks.push(chunk))
      stream.on('end', () => {
        const refused = refuse('DATA')
        if (refused) return done(refused)
        const from = envelope.mailFrom === false ? '' : envelope.mailFrom.address
        const to = envelope.rcptTo.map(({ address }) => address)
        mails.push({ from, to, ...parseMail(Buffer.concat(chunks).toString('utf8')) })
        return done()
      })
    },
  })
  server.listen(port, '127.0.0.1')
  await once(server.server, 'listening')
  const stop = async (): Promise<void> => await new Promise((resolve) => server.close(() => resolve()))
  t.teardown(stop)
  const address = server.server.address() as AddressInfo
  return {
    port: address.port,
    url: `smtp://127.0.0.1:${address.port}`,
    mails,
    /** The next mails are refused, each in the way that stands first. */
    refuse: (...given: Refusal[]): void => void refusals.push(...given),
    stop,
    /** The mails to somebody, oldest first. */
    to: (recipient: string): ReceivedMail[] => mails.filter(({ to }) => to.includes(recipient)),
  }
}

/** The token of the last link in a mail. */
export function tokenIn(mail: ReceivedMail | undefined): string {
  const token = /#token=([\w-]+)/.exec(mail?.text ?? '')?.[1]
  if (token === undefined) throw new Error(`no link in ${mail?.text}`)
  return token
}

function parseMail(raw: string): Pick<ReceivedMail, 'headers' | 'text' | 'html' | 'raw'> {
  const { headers, body } = partOf(raw)
  const boundary = /boundary="?([^";]+)"?/.exec(headers['content-type'] ?? '')?.[1]
  const parts =
    boundary === undefined
      ? []
      : body
          .split(`--${boundary}`)
          .slice(1, -1)
          .map((part) => partOf(part.replace(/^\r\n/, '')))
  const ofType = (type: string): string => {
    const part = parts.find((one) => one.headers['content-type']?.startsWith(type))
    return part ? decoded(part.body, part.headers['content-transfer-encoding']) : ''
  }
  return { headers, raw, text: ofType('text/plain'), html: ofType('text/html') }
}

function partOf(raw: string): { headers: Record<string, string>; body: string } {
  const [head = '', ...rest] = raw.split('\r\n\r\n')
  const lines = head.replaceAll(/\r\n[ \t]+/g, ' ').split('\r\n')
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 2)]),
  )
  return { headers, body: rest.join('\r\n\r\n') }
}

function decoded(body: string, encoding = '7bit'): string {
  if (encoding === 'base64') return Buffer.from(body, 'base64').toString('utf8')
  if (encoding !== 'quoted-printable') return body
  const bytes = body
    .replaceAll(/=\r\n/g, '')
    .replaceAll(/=([0-9A-F]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return Buffer.from(bytes, 'latin1').toString('utf8')
}
