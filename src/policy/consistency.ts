import { AppError } from '../errors.ts'

/** The header by which a write tells its version, and a question demands one. */
export const CONSISTENCY_HEADER = 'x-postern-consistency'

/** The token of a version, as clients carry it. It means nothing in another environment. */
export const consistencyToken = (version: number): string => String(version)

const TOKEN = /^[1-9][0-9]{0,14}$/

/** The version that a token demands. @throws AppError unknown_consistency for what no write can have returned */
export function versionOfToken(token: string): number {
  if (!TOKEN.test(token)) throw new AppError('unknown_consistency')
  return Number(token)
}
