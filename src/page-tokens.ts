/** Where a page ended, as an opaque text: JSON in base64url. */
export const writePageToken = (parts: readonly unknown[]): string =>
  Buffer.from(JSON.stringify(parts)).toString('base64url')

/**
 * What `writePageToken` was given; of a text that is no such list an empty one. Anybody can write a token, so the caller looks
 * at what it says.
 */
export function readPageToken(text: string): readonly unknown[] {
  try {
    const read: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'))
    return Array.isArray(read) ? read : []
  } catch {
    // Not JSON.
    return []
  }
}
