import { setTimeout as sleep } from 'node:timers/promises'

/** Whether it is so within five seconds, by asking again and again. */
export async function isInTime(isSo: () => Promise<boolean> | boolean): Promise<boolean> {
  for (const deadline = Date.now() + 5000; Date.now() < deadline; await sleep(20))
    if (await isSo()) return true
  return await isSo()
}
