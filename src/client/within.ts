/**
 * What `work` gives, unless `milliseconds` pass or `closing` aborts before. `work` gets a signal too, but is not relied
 * upon to end by it: the `fetch` of Node 20 and 22 holds signals weakly, so that once garbage has been collected it may
 * hear of no abort, and wait for ever.
 * @throws Error when it did not end in time
 */
export async function within<T>(
  milliseconds: number,
  work: (signal: AbortSignal) => Promise<T>,
  closing?: AbortSignal,
): Promise<T> {
  const controller = new AbortController()
  let end = (): void => {}
  const ended = new Promise<never>((_resolve, reject) => {
    end = () => {
      controller.abort()
      reject(new Error(closing?.aborted ? 'closed' : `no answer within ${milliseconds} ms`))
    }
  })
  const timer = setTimeout(end, milliseconds).unref()
  closing?.addEventListener('abort', end)
  if (closing?.aborted) end()
  try {
    return await Promise.race([work(controller.signal), ended])
  } finally {
    clearTimeout(timer)
    closing?.removeEventListener('abort', end)
  }
}
