/** The access tokens that were revoked one by one, and have not expired yet. */
export type RevokedTokens = ReturnType<typeof createRevokedTokens>

type Dependencies = {
  /** The `jti` of every one of them, as one snapshot has it. */
  read: () => Promise<string[]>
}

type Load = { heard: Set<string>; done: Promise<void> }

const READ_AGAIN_FROM = 10_000

/**
 * Keeps them at hand, so that no request reads the database for it. Nothing is known until the first question; from
 * then on `onRevoked` must hear of each further one.
 */
export function createRevokedTokens({ read }: Dependencies) {
  let known: Set<string> | undefined
  let loading: Load | undefined
  let readAgainAt = READ_AGAIN_FROM

  function load(): Load {
    // What is heard meanwhile may not be in the snapshot.
    const heard = new Set<string>()
    const started: Load = {
      heard,
      done: read()
        .then((jtis) => {
          if (loading !== started) return
          for (const jti of jtis) heard.add(jti)
          known = heard
          readAgainAt = Math.max(READ_AGAIN_FROM, heard.size * 2)
        })
        .finally(() => {
          if (loading === started) loading = undefined
        }),
    }
    loading = started
    return started
  }

  async function loaded(): Promise<Set<string>> {
    // A load during which it became unknown what was missed leaves nothing behind.
    while (!known) await (loading ?? load()).done
    return known
  }

  function forget(): void {
    known = undefined
    loading = undefined
  }

  return {
    /** True when this token was revoked. Waits for the database the first time only. */
    has(jti: string): boolean | Promise<boolean> {
      return known ? known.has(jti) : loaded().then((tokens) => tokens.has(jti))
    },

    /** Hears which tokens were revoked; `undefined`: any may have been. */
    onRevoked(jtis: readonly string[] | undefined): void {
      if (jtis === undefined) {
        forget()
        return
      }
      for (const tokens of [known, loading?.heard]) for (const jti of jtis) tokens?.add(jti)
      // Many of them have expired by now.
      if (known && known.size > readAgainAt) forget()
    },
  }
}
