import { generateSecret, generateURI, verifySync } from 'otplib'

const SECRET_BYTES = 20
const STEP_SECONDS = 30

/** A new secret of 160 random bits in Base32, as authenticator apps take it (RFC 4226 §4, R6). */
export const newTotpSecret = (): string => generateSecret({ length: SECRET_BYTES })

/** What a QR code for authenticator apps says. `label` names the person to themselves. */
export const otpauthUrl = (issuer: string, label: string, secret: string): string =>
  generateURI({ issuer, label, secret })

/**
 * The time step whose code this is (RFC 6238: SHA-1, 6 digits, 30 seconds), of the current one and its two neighbours
 * (§5.2); `undefined` for a wrong code and for one whose step, or a later one, was accepted before.
 * @param secret Base32
 * @param lastStep the last step that was accepted
 */
export function stepOfCode(
  secret: string,
  code: string,
  now: Date,
  lastStep: number | null,
): number | undefined {
  const epoch = Math.floor(now.getTime() / 1000)
  // The library takes a last step beyond the window, as a clock that went back leaves one, for a fault of ours.
  if (lastStep !== null && lastStep >= Math.floor(epoch / STEP_SECONDS) + 1) return undefined
  const result = verifySync({
    secret,
    token: code,
    epoch,
    epochTolerance: STEP_SECONDS,
    ...(lastStep !== null && { afterTimeStep: lastStep }),
  })
  return result.valid && 'timeStep' in result ? result.timeStep : undefined
}
