import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { StartupError } from '../errors.ts'

/** What a mail of each kind is told by whoever sends it. */
export type MailData = {
  'password-reset': { link: string; expires_in: string }
  'email-verification': { link: string; expires_in: string }
  /** To the new address. */
  'email-change': { link: string; expires_in: string }
  /** To the address that is in force. */
  'email-change-notice': { link: string; expires_in: string; new_email: string }
  'magic-link': { link: string; expires_in: string }
  invitation: { link: string; expires_in: string; account: string }
  /** `change` is a sentence: `A passkey was added.` */
  'factor-changed': { change: string }
  'password-changed': Record<never, string>
  /** To an address with which somebody has tried to register, or to which one has tried to change. */
  'account-exists': Record<never, string>
}

export type MailTemplate = keyof MailData

/** What every mail knows besides. */
type Common = { service: string; app_url: string; time: string }

/** A mail as it is read. */
export type RenderedMail = { subject: string; text: string; html: string }

type Source = { subject: string; text: string; html?: string }
type Definition = Source & { placeholders: readonly string[] }

const SUFFIXES = ['subject.txt', 'txt', 'html'] as const
const COMMON = ['service', 'app_url', 'time'] as const satisfies (keyof Common)[]
const LINK = ['link', 'expires_in'] as const

const NOT_YOU =
  'If that was not you, sign in and change your password, and end the sessions that you do not know.'
const IGNORE = 'If you did not ask for it, ignore this mail: nothing changes.'

/** A blank line ends a paragraph; one that is a link alone is shown as a link in the HTML that is made of it. */
const TEMPLATES: Record<MailTemplate, Definition> = {
  'password-reset': {
    placeholders: LINK,
    subject: 'Set a new password for {{service}}',
    text: `Somebody has asked to set a new password for your account at {{service}}. To do so, open this link:

{{link}}

It works once, for {{expires_in}}. All your sessions end, and you sign in with the new password.

${IGNORE}`,
  },
  'email-verification': {
    placeholders: LINK,
    subject: 'Confirm your address for {{service}}',
    text: `This address was given for an account at {{service}}. To confirm that it is yours, open this link:

{{link}}

It works once, for {{expires_in}}.

If you have no account there, do not open it: whoever has made the account could then sign in with your address.`,
  },
  'email-change': {
    placeholders: LINK,
    subject: 'Confirm your new address for {{service}}',
    text: `Somebody wants to use this address for their account at {{service}}. To confirm that it is yours, open this link:

{{link}}

It works once, for {{expires_in}}. The address that is in force must be confirmed too.

${IGNORE}`,
  },
  'email-change-notice': {
    placeholders: [...LINK, 'new_email'],
    subject: 'Your address for {{service}} is to be changed',
    text: `The address of your account at {{service}} is to be changed to {{new_email}}. If you want that, open this link:

{{link}}

It works once, for {{expires_in}}. The new address must be confirmed too; until then nothing changes.

${NOT_YOU} Do not open the link.`,
  },
  'magic-link': {
    placeholders: LINK,
    subject: 'Sign in to {{service}}',
    text: `To sign in to {{service}}, open this link in the browser in which you have asked for it:

{{link}}

It works once, for {{expires_in}}.

${IGNORE}`,
  },
  invitation: {
    placeholders: [...LINK, 'account'],
    subject: 'You are invited to {{account}}',
    text: `You are invited to join {{account}} at {{service}}. To accept, open this link:

{{link}}

It works once, for {{expires_in}}. If you do not want to, ignore this mail.`,
  },
  'factor-changed': {
    placeholders: ['change'],
    subject: 'How you sign in to {{service}} has changed',
    text: `{{change}} That was at {{time}}, for your account at {{service}}.

${NOT_YOU}`,
  },
  'password-changed': {
    placeholders: [],
    subject: 'Your password for {{service}} has changed',
    text: `The password of your account at {{service}} was changed at {{time}}.

If that was not you, set a new password by "forgotten password" at {{app_url}}, or ask an administrator.`,
  },
  'account-exists': {
    placeholders: [],
    subject: 'You have an account at {{service}}',
    text: `Somebody has given this address at {{service}}, where you have an account already. If that was you, sign in with it at {{app_url}}; a forgotten password can be set anew there.

${IGNORE}`,
  },
}

/**
 * What renders mails. `folder` holds templates that replace the built-in ones: `<name>.subject.txt`, `<name>.txt` and
 * `<name>.html`, each by itself; HTML that is not there is made from the text.
 * @throws StartupError when a template in the folder names something that its mail is not told, or leaves out the link
 */
export function loadMailTemplates(folder: string | undefined) {
  if (folder !== undefined) assertAllKnown(folder)
  const sources = new Map<MailTemplate, Source>()
  for (const [name, { placeholders, ...builtin }] of Object.entries(TEMPLATES)) {
    const replaced = folder === undefined ? {} : readReplacements(folder, name, placeholders)
    sources.set(name as MailTemplate, { ...builtin, ...replaced })
  }

  return <T extends MailTemplate>(template: T, data: MailData[T], common: Common): RenderedMail => {
    const { subject, text, html } = sources.get(template) ?? TEMPLATES[template]
    const values = { ...data, ...common }
    const title = filled(subject.trim(), values, String)
    return {
      subject: title,
      text: `${filled(text.trim(), values, String)}\n`,
      html: html === undefined ? htmlOf(title, text, values) : filled(html, values, escapeHtml),
    }
  }
}

/** @throws StartupError for a folder that is not there, and a file whose name would never be looked for */
function assertAllKnown(folder: string): void {
  const known = new Set(
    Object.keys(TEMPLATES).flatMap((name) => SUFFIXES.map((suffix) => `${name}.${suffix}`)),
  )
  for (const file of filesIn(folder)) {
    if (known.has(file) || !/\.(txt|html)$/.test(file)) continue
    throw new StartupError(`There is no mail that ${file} could be a template of.`)
  }
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    throw new StartupError(`MAIL_TEMPLATES_DIR names a folder that cannot be read: ${folder}.`, {
      cause: error,
    })
  }
}

function readReplacements(folder: string, name: string, placeholders: readonly string[]): Partial<Source> {
  const read = (suffix: (typeof SUFFIXES)[number]): string | undefined => {
    const file = `${name}.${suffix}`
    const source = readIfThere(join(folder, file))
    if (source === undefined) return undefined
    assertKnows(file, source, [...placeholders, ...COMMON])
    if (suffix !== 'subject.txt' && placeholders.includes('link') && !/\{\{\s*link\s*\}\}/.test(source)) {
      throw new StartupError(`The mail template ${file} must contain {{link}}.`)
    }
    return source
  }
  const [subject, text, html] = [read('subject.txt'), read('txt'), read('html')]
  return {
    ...(subject !== undefined && { subject }),
    ...(text !== undefined && { text }),
    ...(html !== undefined && { html }),
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw new StartupError(`The mail template ${path} cannot be read.`, { cause: error })
  }
}

const PLACEHOLDER = /\{\{\s*([a-z_]+)\s*\}\}/g

function assertKnows(file: string, source: string, known: readonly string[]): void {
  for (const [, name = ''] of source.matchAll(PLACEHOLDER)) {
    if (known.includes(name)) continue
    throw new StartupError(
      `The mail template ${file} names {{${name}}}; there are ${known.map((one) => `{{${one}}}`).join(', ')}.`,
    )
  }
}

/** The longest value that a mail shows, so that names which others have chosen are no letter of their own. */
const LONGEST_VALUE = 1000

/** What breaks lines, or is not seen: in a subject it could end the header (RFC 5322 §2.2). */
const CONTROL = /[\p{Cc}\u2028\u2029]+/gu

function filled(
  source: string,
  values: Readonly<Record<string, string>>,
  as: (text: string) => string,
): string {
  return source.replaceAll(PLACEHOLDER, (_all, name: string) =>
    as((values[name] ?? '').replaceAll(CONTROL, ' ').slice(0, LONGEST_VALUE)),
  )
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}
const escapeHtml = (text: string): string =>
  text.replaceAll(/[&<>"']/g, (character) => ESCAPES[character] ?? '')

/** The text as HTML: what no style sheet, image or script is needed for. */
function htmlOf(title: string, text: string, values: Readonly<Record<string, string>>): string {
  const paragraphs = text
    .trim()
    .split(/\n\s*\n/)
    .map((paragraph) => {
      const inner = filled(escapeHtml(paragraph), values, escapeHtml)
      return paragraph.trim() === '{{link}}' ? `<p><a href="${inner}">${inner}</a></p>` : `<p>${inner}</p>`
    })
  return [
    '<!doctype html>',
    `<html lang="en"><head><meta charset="utf-8"><title>${escapeHtml(title)}</title></head>`,
    '<body style="font: 16px/1.5 sans-serif; max-width: 40em; margin: 2em auto; padding: 0 1em">',
    ...paragraphs,
    '</body></html>',
    '',
  ].join('\n')
}
