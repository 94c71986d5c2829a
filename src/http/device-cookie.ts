import { DEVICE_LIFETIME_SECONDS } from '../auth/throttle.ts'
import { createCookie } from './cookies.ts'

/**
 * What makes a browser known to the throttle of sign-ins. It opens nothing, so that it is read from wherever it comes,
 * and it is of the person who has signed in last.
 */
export function createDeviceCookie(publicUrl: string) {
  const { name, read, set } = createCookie(publicUrl, 'postern-device')
  return {
    name,
    read,
    set: (reply: Parameters<typeof set>[0], token: string): void =>
      set(reply, token, DEVICE_LIFETIME_SECONDS),
  }
}
