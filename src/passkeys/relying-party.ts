import { randomBytes } from 'node:crypto'
import { isIP } from 'node:net'
import type {
  AuthenticationResponseJSON,
  PublicKeyCredentialCreationOptionsJSON,
  PublicKeyCredentialRequestOptionsJSON,
  RegistrationResponseJSON,
} from '@simplewebauthn/server'
import { hashOfChallenge } from '../auth/sign-in.ts'
import { type Config, publicUrl } from '../config.ts'
import { AppError } from '../errors.ts'
import type { CredentialDescriptor, PasskeyRow } from './repository.ts'

/** What an authenticator has said of a new credential. */
export type RegisteredCredential = Omit<NewCredential, 'name' | 'id' | 'userId'>
type NewCredential = Omit<PasskeyRow, 'createdAt' | 'lastUsedAt'>

/** What a signature has shown. */
export type Assertion = {
  counter: number
  deviceType: PasskeyRow['deviceType']
  isBackedUp: boolean
  /** Whether the authenticator has asked who uses it (UV), rather than whether somebody does. */
  isUserVerified: boolean
}

/** Whose pages may use passkeys: never what a Host header says. */
export type RelyingPartySettings = { rpId: string; rpName: string; origins: string[] }

/** EdDSA, ES256 and RS256 (RFC 9053 §2, RFC 8812 §2): what authenticators have. */
const ALGORITHMS = [-8, -7, -257]

// It brings readers of certificates along, for 25 MB; who has no passkeys never loads them.
let loading: Promise<typeof import('@simplewebauthn/server')> | undefined
const library = async () => {
  loading ??= import('@simplewebauthn/server')
  return await loading
}

/**
 * The settings, with what follows from PUBLIC_URL where they say nothing. An address cannot be a domain of passkeys; the
 * name of this machine can, and browsers trust it without TLS.
 */
export function relyingPartySettings({ passkeys, http }: Config): RelyingPartySettings {
  const { protocol, hostname, port, origin } = new URL(publicUrl(http))
  const isAddress = isIP(hostname.replaceAll(/[[\]]/g, '')) !== 0
  const own = isAddress ? `${protocol}//localhost${port && `:${port}`}` : origin
  return {
    rpId: passkeys.rpId ?? (isAddress ? 'localhost' : hostname),
    rpName: passkeys.rpName,
    origins: [...(passkeys.origins ?? [own, ...http.corsOrigins])],
  }
}

/** How long somebody has to answer: at most five minutes. */
export const CHALLENGE_SECONDS = 300

/** A challenge of 256 bits, and the token that it is the hash of: whoever asked for it has that too. */
export function newChallenge(): { token: string; challenge: string } {
  const token = randomBytes(32).toString('base64url')
  return { token, challenge: hashOfChallenge(token) }
}

/** The challenge that a response says it answers, or `undefined`. Nothing is verified yet. */
export function challengeIn(response: { response: { clientDataJSON: string } }): string | undefined {
  const { challenge } = clientDataOf(response)
  return typeof challenge === 'string' && /^[A-Za-z0-9_-]{43}$/.test(challenge) ? challenge : undefined
}

function clientDataOf({ response }: { response: { clientDataJSON: string } }): Record<string, unknown> {
  try {
    const data: unknown = JSON.parse(Buffer.from(response.clientDataJSON, 'base64url').toString('utf8'))
    return typeof data === 'object' && data !== null ? { ...data } : {}
  } catch {
    return {}
  }
}

const bytesOf = (base64url: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(Buffer.from(base64url, 'base64url'))

/** The user handle: the bytes of the id, which says nothing of the person (WebAuthn §14.6.1). */
export const userHandleOf = (userId: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(Buffer.from(userId.replaceAll('-', ''), 'hex'))

export type RelyingParty = ReturnType<typeof createRelyingParty>

/** This service as a relying party of WebAuthn Level 3. Holds nothing. */
export function createRelyingParty({ rpId, rpName, origins }: RelyingPartySettings) {
  const timeout = CHALLENGE_SECONDS * 1000
  const descriptor = ({ credentialId, transports }: CredentialDescriptor) => ({
    id: credentialId,
    transports: [...transports],
  })

  return {
    /** For `navigator.credentials.create`. No attestation: which make an authenticator is does not matter here. */
    async registrationOptions(
      challenge: string,
      user: { id: string; name: string; displayName: string },
      existing: readonly CredentialDescriptor[],
    ): Promise<PublicKeyCredentialCreationOptionsJSON> {
      return await (await library()).generateRegistrationOptions({
        rpName,
        rpID: rpId,
        userID: userHandleOf(user.id),
        userName: user.name,
        userDisplayName: user.displayName,
        challenge: bytesOf(challenge),
        timeout,
        attestationType: 'none',
        excludeCredentials: existing.map(descriptor),
        authenticatorSelection: { residentKey: 'preferred', userVerification: 'preferred' },
        supportedAlgorithmIDs: ALGORITHMS,
      })
    },

    /** For `navigator.credentials.get`. Without credentials the browser offers those that it knows for this domain. */
    async authenticationOptions(
      challenge: string,
      allowed: readonly CredentialDescriptor[],
      needsUserVerification = false,
    ): Promise<PublicKeyCredentialRequestOptionsJSON> {
      return await (await library()).generateAuthenticationOptions({
        rpID: rpId,
        challenge: bytesOf(challenge),
        timeout,
        allowCredentials: allowed.map(descriptor),
        userVerification: needsUserVerification ? 'required' : 'preferred',
      })
    },

    /** The new credential, verified as WebAuthn §7.1 says. @throws AppError passkey_not_registered */
    async verifyRegistration(
      response: RegistrationResponseJSON,
      challenge: string,
    ): Promise<RegisteredCredential> {
      try {
        refuseFrames(response)
        const { verifyRegistrationResponse } = await library()
        const { registrationInfo } = await verifyRegistrationResponse({
          response: await withoutAttestation(response),
          expectedChallenge: challenge,
          expectedOrigin: [...origins],
          expectedRPID: rpId,
          requireUserVerification: false,
          supportedAlgorithmIDs: ALGORITHMS,
        })
        if (!registrationInfo) throw new Error('The attestation is not valid')
        const { credential } = registrationInfo
        return {
          credentialId: credential.id,
          publicKey: Buffer.from(credential.publicKey).toString('base64url'),
          counter: credential.counter,
          transports: [...new Set(response.response.transports ?? [])].sort(),
          deviceType: registrationInfo.credentialDeviceType,
          isBackedUp: registrationInfo.credentialBackedUp,
          isUserVerifying: registrationInfo.userVerified,
          aaguid: registrationInfo.aaguid,
        }
      } catch (cause) {
        // What is wrong with it is for the log: the response was made by a program, not by a person.
        throw new AppError('passkey_not_registered', { cause })
      }
    },

    /**
     * What the signature shows, verified as WebAuthn §7.2 says but for the counter, which is compared when it is
     * stored. @throws AppError invalid_passkey
     */
    async verifyAssertion(
      response: AuthenticationResponseJSON,
      challenge: string,
      { credentialId, publicKey, deviceType }: PasskeyRow,
    ): Promise<Assertion> {
      try {
        refuseFrames(response)
        const { verifyAuthenticationResponse } = await library()
        const { verified, authenticationInfo } = await verifyAuthenticationResponse({
          response,
          expectedChallenge: challenge,
          expectedOrigin: [...origins],
          expectedRPID: rpId,
          // A counter of zero is not compared: without a right signature it would say nothing.
          credential: {
            id: credentialId,
            publicKey: bytesOf(publicKey),
            counter: 0,
          },
          requireUserVerification: false,
        })
        if (!verified) throw new Error('The signature is not valid')
        // Whether a credential can be backed up never changes (WebAuthn §6.1.3).
        if (authenticationInfo.credentialDeviceType !== deviceType)
          throw new Error('The credential is not of the kind that was registered')
        return {
          counter: authenticationInfo.newCounter,
          deviceType,
          isBackedUp: authenticationInfo.credentialBackedUp,
          isUserVerified: authenticationInfo.userVerified,
        }
      } catch (cause) {
        throw new AppError('invalid_passkey', { cause })
      }
    },
  }
}

/** No page of ours is shown in the frame of another one, where people do not see what they sign (WebAuthn §13.4.2). */
function refuseFrames(response: { response: { clientDataJSON: string } }): void {
  const { crossOrigin } = clientDataOf(response)
  if (crossOrigin !== undefined && crossOrigin !== false) throw new Error('The page was in a frame')
}

/**
 * The response without what vouches for the make of the authenticator (WebAuthn §6.5.2): it was not asked for, nothing
 * here depends on it, and certificates of strangers are better not read.
 */
async function withoutAttestation(response: RegistrationResponseJSON): Promise<RegistrationResponseJSON> {
  const { decodeAttestationObject, isoCBOR } = await import('@simplewebauthn/server/helpers')
  const given = decodeAttestationObject(bytesOf(response.response.attestationObject))
  const bare = isoCBOR.encode(
    new Map<string, string | Uint8Array<ArrayBuffer> | Map<string, string>>([
      ['fmt', 'none'],
      ['attStmt', new Map()],
      ['authData', given.get('authData')],
    ]),
  )
  const attestationObject = Buffer.from(bare).toString('base64url')
  return { ...response, response: { ...response.response, attestationObject } }
}
