import { AppError } from './errors.ts'

/** The revisions that If-Match named, or `undefined` when the header was absent or `*`. */
export type IfMatch = readonly number[] | undefined

/** @throws AppError precondition_failed */
export function assertMatches(ifMatch: IfMatch, revision: number): void {
  if (ifMatch && !ifMatch.includes(revision)) throw new AppError('precondition_failed')
}
