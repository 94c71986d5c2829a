const SLOW_AFTER_MS = 1_000

/** Told in a short sentence when something slow begins. */
export type Progress = (message: string) => void

/** Runs `work`, and tells `message` if that takes more than a second. */
export async function announcing<T>(
  onProgress: Progress,
  message: string,
  work: () => Promise<T>,
): Promise<T> {
  const slow = setTimeout(() => onProgress(message), SLOW_AFTER_MS)
  try {
    return await work()
  } finally {
    clearTimeout(slow)
  }
}
