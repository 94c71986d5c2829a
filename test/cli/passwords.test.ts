import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { readPassword } from '../../src/cli/passwords.ts'

const ASK = { 'password-stdin': undefined, 'generate-password': undefined }

/** A terminal at which somebody types `keys`, one after each question. */
function aTerminal(t: Test, ...keys: string[]) {
  const input = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => input })
  const output = new PassThrough()
  let shown = ''
  output.on('data', (chunk: Buffer) => {
    shown += chunk.toString()
    if (chunk.toString().endsWith(': ')) setImmediate(() => input.write(keys.shift() ?? ''))
  })
  t.teardown(() => input.destroy())
  return { terminal: { input, output }, shown: () => shown }
}

t.test('a password is asked for twice and never shown', async (t) => {
  const { terminal, shown } = aTerminal(t, 'secret pass\u007f\u007fword\r', 'secret paword\r')

  t.equal(await readPassword(ASK, terminal), 'secret paword')
  t.equal(shown(), 'Password: \nAgain: \n')
})

t.test('two that differ are refused', async (t) => {
  const { terminal } = aTerminal(t, 'one thing\r', 'another\r')

  await t.rejects(readPassword(ASK, terminal), { message: 'The two passwords differ.' })
})

t.test('Ctrl-C and Ctrl-D end it', async (t) => {
  await t.rejects(readPassword(ASK, aTerminal(t, 'sec\u0003').terminal), { name: 'Interruption' })
  await t.rejects(readPassword(ASK, aTerminal(t, '\u0004').terminal), { message: 'No password was given.' })
})
