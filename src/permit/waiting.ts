import type { IncomingHttpHeaders } from 'node:http'
import { AppError } from '../errors.ts'

const SECONDS = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i
const POLICIES = new Set(['ignore', 'fail'])

/**
 * Reads how long a client of a PDP wants to wait until what it writes is in force (`X-Wait-Timeout`, seconds; none: for
 * ever) and what is to happen then (`X-Timeout-Policy`). It is in force at once, so that there is nothing to wait for.
 * @throws AppError malformed_request for what a PDP refuses
 */
export function readWaiting(headers: IncomingHttpHeaders): void {
  const { 'x-wait-timeout': timeout, 'x-timeout-policy': policy } = headers
  if (isGiven(timeout) && !SECONDS.test(String(timeout)))
    throw new AppError('malformed_request', { detail: 'X-Wait-Timeout must be a number of seconds' })
  if (isGiven(policy) && !POLICIES.has(String(policy).toLowerCase()))
    throw new AppError('malformed_request', { detail: 'X-Timeout-Policy must be ignore or fail' })
}

const isGiven = (value: string | string[] | undefined): boolean => value !== undefined && value !== ''
