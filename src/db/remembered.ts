import { LRUCache } from 'lru-cache'

/** What was read a moment ago, so that it is not read again for every request. */
export type Remembered<Value> = {
  /** The value, read when it is not at hand. Whoever asks while it is being read waits for the same statement. */
  get(key: string): Promise<Value | undefined>
  /** Forgets the values that `which` chooses, by default all; a read that began before is not remembered either. */
  forget(which?: (value: Value) => boolean): void
}

type Options<Value> = {
  read: (key: string) => Promise<Value | undefined>
  /** How many values are kept. What is not there is never kept, so that made-up names push nothing out. */
  most: number
  forMs: number
}

/** Nothing is older than `forMs`: so long may a change by another process go unnoticed. */
export function remembered<Value extends object>({ read, most, forMs }: Options<Value>): Remembered<Value> {
  const values = new LRUCache<string, Value>({ max: most, ttl: forMs })
  const reads = new Map<string, Promise<Value | undefined>>()

  function begin(key: string): Promise<Value | undefined> {
    const started: Promise<Value | undefined> = read(key)
      .then((value) => {
        if (value && reads.get(key) === started) values.set(key, value)
        return value
      })
      .finally(() => {
        if (reads.get(key) === started) reads.delete(key)
      })
    reads.set(key, started)
    return started
  }

  return {
    async get(key) {
      return values.get(key) ?? (await (reads.get(key) ?? begin(key)))
    },

    forget(which = () => true) {
      reads.clear()
      for (const [key, value] of values.entries()) if (which(value)) values.delete(key)
    },
  }
}
