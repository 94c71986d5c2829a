import { AsyncLocalStorage } from 'node:async_hooks'
import { Readable, Writable } from 'node:stream'
import { main } from '../../src/cli/main.ts'

type Surroundings = { env: NodeJS.ProcessEnv; stdin: Readable; stdout: Writable; stderr: Writable }

const surroundings = new AsyncLocalStorage<Surroundings>()

for (const name of ['env', 'stdin', 'stdout', 'stderr'] as const) {
  const own = process[name]
  Object.defineProperty(process, name, { get: () => surroundings.getStore()?.[name] ?? own })
}

/**
 * Runs a command line to its end in this process, as if that had nothing but these environment variables and this
 * input. To start a process takes a hundred times as long as most commands.
 */
export async function runCommandLine(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  input: string,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const [stdout, stderr] = [aSink(), aSink()]
  const stdin = Readable.from(input === '' ? [] : [input])
  const code = await surroundings.run({ env, stdin, stdout, stderr }, async () => await main(args))
  return { code, stdout: stdout.text(), stderr: stderr.text() }
}

function aSink(): Writable & { text(): string } {
  let text = ''
  const sink = new Writable({
    decodeStrings: false,
    write(chunk: string, _encoding, done) {
      text += chunk
      done()
    },
  })
  return Object.assign(sink, { text: () => text })
}
