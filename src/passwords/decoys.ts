import type { PasswordOwnersRepository } from './repository.ts'

export type Decoys = ReturnType<typeof createDecoys>

type Dependencies = {
  owners: Pick<PasswordOwnersRepository, 'sampleHashes'>
  /** Names a text without telling what it is. */
  mac: (text: string) => string
  /** Monotonic, in milliseconds. */
  now: () => number
}

/** How long a sample is used before another one is drawn. */
const KEPT_MS = 600_000

/**
 * Which hash is verified where an email has none. Stored hashes may differ in what they cost: imported ones, and ours
 * from before a change of parameters. Were every unknown email given the same work, each known one with other work
 * would stand out (ASVS 6.3.8). So unknown emails are spread over the kinds that are stored, in the same shares, and
 * each one always gets the same. As passwords are hashed anew, the shares move, and unknown emails with them.
 */
export function createDecoys({ owners, mac, now }: Dependencies) {
  let sample: readonly string[] | undefined
  let drawnAt = Number.NEGATIVE_INFINITY
  let drawing: Promise<void> | undefined

  async function draw(): Promise<void> {
    try {
      // Sorted, hashes of one kind stand side by side.
      sample = (await owners.sampleHashes()).sort()
    } finally {
      // Also after a failure: the sample before is good enough until the next time.
      drawnAt = now()
      drawing = undefined
    }
  }

  return {
    /** The hash whose work a sign-in with this email does when there is nobody with it; `undefined` for our own decoy. */
    async hashFor(email: string): Promise<string | undefined> {
      if (now() - drawnAt > KEPT_MS) drawing ??= draw()
      if (sample) drawing?.catch(() => {})
      else await drawing
      const share =
        Number.parseInt(Buffer.from(mac(`decoy|${email}`), 'base64url').toString('hex', 0, 6), 16) / 2 ** 48
      return sample?.[Math.floor(share * sample.length)]
    },
  }
}
