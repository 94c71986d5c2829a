import { randomUUID } from 'node:crypto'
import { type Listener, listen } from './notify.ts'

const POLL_MS = 1000
/** How often it asks when nobody tells. */
const POLL_WHEN_DEAF_MS = 200

type Options = {
  channel: string
  /** Has every process that listens on the channel hear `payload`. */
  notify: (channel: string, payload: string) => Promise<void>
  /** Asks the database what has changed. */
  catchUp: () => Promise<void>
  /** Whether what was told is news. */
  isNews: (payload: string) => boolean
}

/**
 * Calls `catchUp` when the channel tells of news, after each new connection, and once a second all the same. Nothing
 * runs until `start`.
 */
export function createFollowing({ channel, notify, catchUp, isNews }: Options) {
  let isListening = false
  /** What finds out whether LISTEN works, as long as it could not be sent. */
  let unsentTest: (() => void) | undefined
  let listener: Listener | undefined
  let timer: NodeJS.Timeout | undefined
  let isStopped = false

  function poll(): void {
    timer = setTimeout(
      () => {
        catchUp()
          .then(() => unsentTest?.())
          .catch(() => {})
          .finally(() => {
            if (!isStopped) poll()
          })
      },
      isListening ? POLL_MS : POLL_WHEN_DEAF_MS,
    ).unref()
  }

  /** Whether LISTEN works is found out by trying: a pooler in transaction mode takes it and tells nothing. */
  function listenOn(url: string): Listener {
    const test = `test:${randomUUID()}`
    const sendTest = (): void => {
      unsentTest = undefined
      notify(channel, test).catch(() => {
        unsentTest = sendTest
      })
    }
    return listen({
      url,
      channel,
      onConnect: () => {
        sendTest()
        catchUp().catch(() => {})
      },
      onDisconnect: () => {
        isListening = false
      },
      onNotification: (payload) => {
        if (payload === test) isListening = true
        else if (isNews(payload)) catchUp().catch(() => {})
      },
    })
  }

  return {
    /** `url` is for LISTEN; without it the database is only asked, five times a second. */
    start(url?: string): void {
      if (timer || isStopped) return
      if (url !== undefined) listener = listenOn(url)
      poll()
    },

    async stop(): Promise<void> {
      isStopped = true
      clearTimeout(timer)
      await listener?.close()
    },

    isListening: () => isListening,
  }
}
