import type { FastifyReply, FastifyRequest } from 'fastify'
import { presentToken } from '../auth/schemas.ts'
import type { SignedIn } from '../auth/sign-in.ts'
import { createDeviceCookie } from './device-cookie.ts'
import { createRefreshCookie } from './refresh-cookie.ts'

type Options = { publicUrl: string; corsOrigins: readonly string[] }

/** How a sign-in begins and ends over HTTP, whichever way it goes. */
export function createSignInAnswers(options: Options) {
  const refresh = createRefreshCookie(options)
  const device = createDeviceCookie(options.publicUrl)

  return {
    /** To be called before somebody who wants cookies is signed in. @throws AppError cross_site_request */
    assertFromOwnPage: refresh.assertFromOwnPage,

    /** Where a sign-in comes from. @param deviceToken what the body has; else that of the cookie counts */
    originOf: (request: FastifyRequest, deviceToken?: string) => ({
      requestId: request.id,
      address: request.ip,
      userAgent: request.headers['user-agent'],
      deviceToken: deviceToken ?? device.read(request),
    }),

    /** The answer to whoever has signed in: in cookies what scripts shall not see, if `usesCookies`. */
    answer(reply: FastifyReply, signedIn: SignedIn, usesCookies = false) {
      if (!usesCookies) return presentToken(signedIn)
      const { refreshToken, refreshExpiresInSeconds, deviceToken } = signedIn
      refresh.set(reply, refreshToken, refreshExpiresInSeconds)
      if (deviceToken !== undefined) device.set(reply, deviceToken)
      return presentToken({ ...signedIn, refreshToken: undefined, deviceToken: undefined })
    },
  }
}
