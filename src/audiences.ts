import { AppError } from './errors.ts'

/** The most that one token of a person may be for, and how long their names may be: tokens travel in headers. */
export const MOST_AUDIENCES = 5
export const LONGEST_AUDIENCE = 200

/** True for what can be the `resource` of a request: an absolute URI without a fragment (RFC 8707 §2). */
export const isResource = (text: string): boolean =>
  URL.canParse(text) && !text.includes('#') && !/\s/.test(text)

/** Whom the access tokens of people may be for. */
export type Audiences = ReturnType<typeof createAudiences>

/** Tells whom the access tokens of people may be for: `own`, which is this service, and the `services` beside it. */
export function createAudiences(own: string, services: readonly string[]) {
  const known = new Set([own, ...services])

  return {
    /**
     * Whom a token is for (RFC 8707 §2): who is named in `resource`, else everyone that its session is limited to; null
     * for this service alone, when neither says anything.
     * @param limitedTo what the session was begun with; null: nothing, and any of the known ones may be named
     * @throws AppError invalid_target for one that is not known or no longer, is not of the session, or too many
     */
    chosen(
      resource: readonly string[] | undefined,
      limitedTo: readonly string[] | null = null,
    ): readonly string[] | null {
      const wanted = [...new Set(resource?.length ? resource : (limitedTo ?? []))]
      const isAllowed = (one: string): boolean => known.has(one) && (limitedTo?.includes(one) ?? true)
      if (wanted.length > MOST_AUDIENCES || !wanted.every(isAllowed)) throw new AppError('invalid_target')
      return wanted.length > 0 ? wanted : limitedTo
    },
  }
}
