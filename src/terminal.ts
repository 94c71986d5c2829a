import { constants } from 'node:os'

/** Prints a line of the result. */
export function print(line = ''): void {
  process.stdout.write(`${line}\n`)
}

/** Tells how far things are: on standard error, so that a result can be piped on. */
export function report(line: string): void {
  process.stderr.write(`${line}\n`)
}

/**
 * A reader that has seen enough (`| head`) closes the pipe. That is no fault: the rest is written to nobody, and
 * the command goes on to its end, so that it stops what it started.
 */
export function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error
    })
  }
}

/** The operator wants the process to end. The exit code is the shell's: 128 and the number of the signal. */
export class Interruption extends Error {
  override readonly name = 'Interruption'
  readonly exitCode: number

  constructor(signal: Signal) {
    super(`ended by ${signal}`)
    this.exitCode = 128 + constants.signals[signal]
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
type Signal = (typeof SIGNALS)[number]

/** Under npm one Ctrl-C comes twice: from the terminal, and from npm, which passes it on. */
const SAME_SIGNAL_MS = 1_000

/**
 * Calls `onFirst` with the first signal that asks this process to end, and `onAgain` when the operator insists.
 * @returns what puts an end to it: signals do again what they did before
 */
export function onEndRequested(onFirst: (name: Signal) => void, onAgain: (name: Signal) => void): () => void {
  let firstAt: number | undefined
  const listener = (name: Signal): void => {
    const now = performance.now()
    if (firstAt === undefined) {
      firstAt = now
      onFirst(name)
    } else if (now - firstAt > SAME_SIGNAL_MS) onAgain(name)
  }
  for (const name of SIGNALS) process.on(name, listener)
  return () => {
    for (const name of SIGNALS) process.off(name, listener)
  }
}

/** Aborted, with an `Interruption` as the reason, by the first signal that asks this process to end. */
export type InterruptionWatch = {
  signal: AbortSignal
  /** The result of `work`, or the interruption when that comes first; `work` then goes on unheard. */
  orUntilThen<T>(work: () => Promise<T>): Promise<T>
  /** Signals do again what they did before. */
  end(): void
}

/**
 * Holds signals back that would end this process at once, so that it can let go of what it has: an embedded
 * server hears no Ctrl-C and would stay. A second one ends the process at once.
 */
export function watchForInterruption(): InterruptionWatch {
  const controller = new AbortController()
  const end = onEndRequested(
    (name) => controller.abort(new Interruption(name)),
    (name) => process.exit(new Interruption(name).exitCode),
  )
  const { signal } = controller
  return {
    signal,
    async orUntilThen(work) {
      signal.throwIfAborted()
      let stopListening = (): void => {}
      const interrupted = new Promise<never>((_, reject) => {
        const onAbort = (): void => reject(signal.reason)
        signal.addEventListener('abort', onAbort)
        stopListening = () => signal.removeEventListener('abort', onAbort)
      })
      try {
        return await Promise.race([work(), interrupted])
      } finally {
        stopListening()
      }
    },
    end,
  }
}

/** How far something is, in one line of the terminal that is written over and over. */
export type ProgressBar = {
  /** @param share from 0 to 1; undefined when nobody knows the end */
  show(share: number | undefined, text: string): void
  /** Takes the line away. */
  end(): void
}

const BAR_WIDTH = 24
const REDRAW_MS = 100

/** Shows on standard error, and nothing where that is no terminal. */
export function createProgressBar(
  output: { isTTY?: boolean; write(text: string): unknown } = process.stderr,
): ProgressBar {
  let shownAt = Number.NEGATIVE_INFINITY
  return {
    show(share, text) {
      const now = performance.now()
      if (!output.isTTY || now - shownAt < REDRAW_MS) return
      shownAt = now
      const done = Math.round(Math.min(share ?? 0, 1) * BAR_WIDTH)
      const bar =
        share === undefined
          ? ''
          : `[${'#'.repeat(done)}${'.'.repeat(BAR_WIDTH - done)}] ${String(Math.floor(share * 100)).padStart(3)} %  `
      output.write(`\r\u001B[K${bar}${text}`)
    },
    end() {
      if (output.isTTY && shownAt >= 0) output.write('\r\u001B[K')
    },
  }
}
