const UNDASHED = /^[0-9a-f]{32}$/i

/** A UUID without dashes, as some SDKs send it, with them; other texts as they are. */
export function dashed(name: string): string {
  if (!UNDASHED.test(name)) return name
  const hex = name.toLowerCase()
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
