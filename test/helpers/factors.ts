import type { LightMyRequestResponse } from 'fastify'
import { generateSync } from 'otplib'
import type { Client, Person, TestApp } from './app.ts'
import { PASSWORD } from './config.ts'

/** The code that an authenticator app shows now, or so many steps of 30 seconds from now. */
export const codeOf = (secret: string, stepsFromNow = 0): string =>
  generateSync({ secret, epoch: Math.floor(Date.now() / 1000) + stepsFromNow * 30 })

/** A code that is wrong now and around now. */
export function wrongCodeOf(secret: string): string {
  const right = [-2, -1, 0, 1, 2].map((steps) => codeOf(secret, steps))
  return (
    ['000000', '111111', '222222', '333333', '444444', '555555'].find((code) => !right.includes(code)) ?? ''
  )
}

export type Enrolled = { secret: string; recoveryCodes: string[] }

/** Enrols an authenticator app. */
export async function enrolTotp(client: Client): Promise<Enrolled> {
  const begun = (await client.post('/api/v1/auth/mfa/totp')).json<{ secret: string }>()
  const confirmed = await client.post('/api/v1/auth/mfa/totp/verify', { code: codeOf(begun.secret) })
  if (confirmed.statusCode !== 200) throw new Error(`enrolment: ${confirmed.statusCode} ${confirmed.body}`)
  return {
    secret: begun.secret,
    recoveryCodes: confirmed.json<{ recovery_codes?: string[] }>().recovery_codes ?? [],
  }
}

/** Lets the codes of now be used again, as if time had passed. */
export const letTimePass = async ({ services }: TestApp, userId: string): Promise<void> => {
  await services.database.pool.query(
    'update totp_factors set last_step = last_step - 10 where user_id = $1',
    [userId],
  )
}

/** Lets the last authentication of every session of somebody be longer ago. */
export const letSessionsAge = async (
  { services }: TestApp,
  userId: string,
  seconds: number,
): Promise<void> => {
  await services.database.pool.query(
    `update sessions set authenticated_at = now() - $2::int * interval '1 second' where user_id = $1`,
    [userId, seconds],
  )
}

/** The first step of a sign-in. */
export const login = async (
  { anonymous }: TestApp,
  { email }: Pick<Person, 'email'>,
  body: Record<string, unknown> = {},
): Promise<LightMyRequestResponse> =>
  await anonymous.post('/api/v1/auth/login', { email, password: PASSWORD, ...body })

/** What names the second step. */
export const mfaTokenOf = (response: LightMyRequestResponse): string =>
  response.json<{ mfa_token: string }>().mfa_token
