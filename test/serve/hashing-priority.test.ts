import { readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import { SECRET_KEY } from '../helpers/config.ts'
import { freshDatabase } from '../helpers/database.ts'
import { eventually, startService } from '../helpers/processes.ts'

/** sched(7) */
const SCHED_IDLE = 5

/** The scheduling class of each thread of a process: proc_pid_stat(5), field 41; two are before the end of the name. */
function classesOf(pid: number | undefined): Map<number, number> {
  const tasks = `/proc/${pid}/task`
  return new Map(
    readdirSync(tasks).map((thread) => {
      const stat = readFileSync(`${tasks}/${thread}/stat`, 'utf8')
      return [Number(thread), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[41 - 3])]
    }),
  )
}

const skip = process.platform !== 'linux' && 'only Linux has it'

t.test(
  'HASH_PRIORITY=idle: the threads that hash run when a core is idle, and no other',
  { skip },
  async (t) => {
    const { url: DATABASE_URL } = await freshDatabase(t)
    const { child } = await startService(t, { DATABASE_URL, SECRET_KEY, HASH_PRIORITY: 'idle' })

    await eventually(
      async () => [...classesOf(child.pid).values()].filter((one) => one === SCHED_IDLE).length === 4,
    )

    t.not(classesOf(child.pid).get(child.pid ?? 0), SCHED_IDLE, 'the thread that answers is as it was')
  },
)
