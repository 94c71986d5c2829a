import { execFile } from 'node:child_process'
import { pbkdf2 } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'
import { promisify } from 'node:util'

/** Where Linux tells of the threads of a process; the reads are synchronous, because asynchronous ones use the pool. */
const THREADS = '/proc/self/task'
/** Above that of the process, which is 0 unless somebody has given it another; the most that there is, is 19. */
const NICENESS = 10
const MOST_NICENESS = 19
/** A thread that has done less in a round did not hash. */
const LEAST_WORK_NS = 2_000_000
const ROUNDS = 3
/** Some milliseconds of work in the pool that need no memory. */
const work = async (): Promise<Buffer> => await promisify(pbkdf2)('', '', 20_000, 32, 'sha256')

/**
 * What the threads that hash passwords get of a core that something else wants too: `low` about a tenth; `idle` nothing,
 * and whatever else wakes up has the core at once (SCHED_IDLE, sched(7)).
 */
export type HashingPriority = 'idle' | 'low'

/**
 * Gives the threads that hash passwords a lower priority than the one that answers requests, and than Postgres on the
 * same machine: in a flood of sign-ins everything else keeps its latency. Node names no thread of its pool, so those
 * are found by what they do: each is given work, and whoever has used processor time meanwhile is one of them.
 * @param threads how many the pool has
 * @returns how many threads were found; `undefined` where the system does not tell of threads (anything but Linux)
 * @throws what the system says when it lets nobody change priorities; with `idle` also where there is no `chrt`
 *   (util-linux, BusyBox), and then the threads have `low`
 */
export async function lowerHashingPriority(
  threads: number,
  wanted: HashingPriority,
): Promise<number | undefined> {
  const lowered = new Set<number>()
  const priority = Math.min(getPriority() + NICENESS, MOST_NICENESS)
  // A thread that was busy otherwise is found in the next round.
  for (let round = 0; round < ROUNDS && lowered.size < threads; round++) {
    const before = processorTimes()
    if (before.size === 0) return undefined
    await Promise.all(Array.from({ length: threads }, work))
    const busiest = [...processorTimes()]
      .map(([thread, time]) => ({ thread, worked: time - (before.get(thread) ?? time) }))
      .filter(({ thread, worked }) => thread !== process.pid && worked >= LEAST_WORK_NS)
      .sort((one, other) => other.worked - one.worked)
    // No more than the pool has: those that collect garbage or compile may have worked too.
    for (const { thread } of busiest.slice(0, threads)) {
      setPriority(thread, priority)
      lowered.add(thread)
    }
  }
  // Nobody may ask for more priority again without privileges, so that this holds until the process ends.
  if (wanted === 'idle')
    for (const thread of lowered) await run('chrt', ['-i', '-p', '0', String(thread)], { timeout: 5000 })
  return lowered.size
}

const run = promisify(execFile)

/** Nanoseconds on a processor by thread id. */
function processorTimes(): Map<number, number> {
  try {
    return new Map(
      readdirSync(THREADS).map((thread) => {
        const [time] = readFileSync(`${THREADS}/${thread}/schedstat`, 'utf8').split(' ')
        return [Number(thread), Number(time)]
      }),
    )
  } catch {
    return new Map()
  }
}
