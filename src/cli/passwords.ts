import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { StartupError } from '../errors.ts'
import { Interruption } from '../terminal.ts'
import { UsageError } from './command.ts'

/** The two ways to give a password without a terminal. Never as an argument: the process list shows those. */
export const PASSWORD_FLAGS = {
  'password-stdin': { description: 'Read the password from standard input' },
  'generate-password': { description: 'Make a password and print it once' },
} as const

type Choice = { 'password-stdin': boolean | undefined; 'generate-password': boolean | undefined }

/** Where a password is typed. */
export type Terminal = { input: NodeJS.ReadableStream & { isTTY?: boolean }; output: NodeJS.WritableStream }

/**
 * The password as it was chosen to be given, or `undefined` when one is to be made. Asks for it, without echo and
 * twice, when there is a terminal and no choice.
 * @throws UsageError when there is no way to get one; Interruption on Ctrl-C
 */
export async function readPassword(
  choice: Choice,
  terminal: Terminal = { input: process.stdin, output: process.stderr },
): Promise<string | undefined> {
  const { 'password-stdin': fromInput, 'generate-password': generate } = choice
  if (fromInput && generate) throw new UsageError('Give --password-stdin or --generate-password, not both')
  if (generate) return undefined
  if (fromInput) return await readAll(terminal.input)
  if (!terminal.input.isTTY) {
    throw new UsageError(
      'There is no terminal to ask for the password: give --password-stdin or --generate-password',
    )
  }
  const password = await ask('Password: ', terminal)
  if ((await ask('Again: ', terminal)) !== password) throw new StartupError('The two passwords differ.')
  return password
}

/** Everything there is, without the line break that `echo` and editors put at the end. */
export async function readAll(input: NodeJS.ReadableStream, what = 'password'): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of input) chunks.push(Buffer.from(chunk))
  const text = Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '')
  if (text === '') throw new StartupError(`Standard input holds no ${what}.`)
  return text
}

/** A line that is typed and not shown. */
async function ask(question: string, { input, output }: Terminal): Promise<string> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input, output: nowhere, terminal: true, historySize: 0 })
  // Only now, because from here on the terminal shows nothing that is typed.
  output.write(question)
  try {
    return await new Promise((resolve, reject) => {
      lines.once('line', resolve)
      lines.once('SIGINT', () => reject(new Interruption('SIGINT')))
      lines.once('close', () => reject(new StartupError('No password was given.')))
    })
  } finally {
    lines.close()
    output.write('\n')
  }
}
