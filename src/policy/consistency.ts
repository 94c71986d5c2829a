import { AppError } from '../errors.ts'

/** The header by which a write tells its version, and a question demands one. */
export const CONSISTENCY_HEADER = 'x-postern-consistency'

/** The token of a version of an environment, as clients carry it. */
export const consistencyToken = (environmentId: string, version: number): string =>
  `${environmentId}.${version}`

const VERSION = /^[1-9][0-9]{0,14}$/

/**
 * The version of the environment that a token demands.
 * @throws AppError unknown_consistency for a token of another environment, and for what no write can have returned
 */
export function versionOfToken(environmentId: string, token: string): number {
  const start = `${environmentId}.`
  const version = token.slice(start.length)
  if (!token.startsWith(start) || !VERSION.test(version)) throw new AppError('unknown_consistency')
  return Number(version)
}
