import type {
  AuthenticationResponseJSON,
  PublicKeyCredentialCreationOptionsJSON,
  PublicKeyCredentialRequestOptionsJSON,
  RegistrationResponseJSON,
} from '@simplewebauthn/server'
import Type, { type Static } from 'typebox'
import { LoginBody } from '../auth/schemas.ts'
import { nullable, ref, Timestamp, Uuid } from '../http/schemas.ts'
import type { PasskeyRow } from './repository.ts'

const Base64url = Type.String({ pattern: '^[A-Za-z0-9_-]+$', maxLength: 4096, examples: ['dGVzdA'] })
/** Up to 1023 bytes (WebAuthn §4, Credential ID). */
const CredentialId = Type.String({ ...Base64url, maxLength: 1364 })
const PublicKeyType = Type.Literal('public-key')
const Transport = Type.String({ pattern: '^[a-z-]{1,32}$', examples: ['internal'] })
const PasskeyName = Type.String({
  minLength: 1,
  maxLength: 64,
  description: 'What its owner calls it',
  examples: ['Phone'],
})

// Browsers say more than this service reads, and it takes no harm: neither object is closed.
/** WebAuthn Level 3 §5.1, RegistrationResponseJSON. */
const RegistrationResponse = Type.Unsafe<RegistrationResponseJSON>(
  Type.Object(
    {
      id: CredentialId,
      rawId: CredentialId,
      type: PublicKeyType,
      response: Type.Object({
        clientDataJSON: Base64url,
        attestationObject: Type.String({ ...Base64url, maxLength: 16_384 }),
        transports: Type.Optional(Type.Array(Transport, { maxItems: 8 })),
      }),
    },
    {
      description: 'What `navigator.credentials.create` gave, as `toJSON()` writes it',
      examples: [
        {
          id: 'dGVzdA',
          rawId: 'dGVzdA',
          type: 'public-key',
          response: { clientDataJSON: 'dGVzdA', attestationObject: 'dGVzdA', transports: ['internal'] },
        },
      ],
    },
  ),
)

/** WebAuthn Level 3 §5.1, AuthenticationResponseJSON. */
export const AuthenticationResponse = Type.Unsafe<AuthenticationResponseJSON>(
  Type.Object(
    {
      id: CredentialId,
      rawId: CredentialId,
      type: PublicKeyType,
      response: Type.Object({
        clientDataJSON: Base64url,
        authenticatorData: Base64url,
        signature: Base64url,
        userHandle: Type.Optional(nullable(Type.String({ ...Base64url, maxLength: 128 }))),
      }),
    },
    {
      description: 'What `navigator.credentials.get` gave, as `toJSON()` writes it',
      examples: [
        {
          id: 'dGVzdA',
          rawId: 'dGVzdA',
          type: 'public-key',
          response: { clientDataJSON: 'dGVzdA', authenticatorData: 'dGVzdA', signature: 'dGVzdA' },
        },
      ],
    },
  ),
)

export const PasskeyIdParams = Type.Object({ passkey_id: Uuid })

export const CreatePasskeyBody = Type.Object(
  { name: PasskeyName, response: RegistrationResponse },
  { additionalProperties: false },
)
export const UpdatePasskeyBody = Type.Object({ name: PasskeyName }, { additionalProperties: false })

export const SignInOptionsBody = nullable(
  Type.Object(
    {
      email: Type.Optional(
        Type.String({
          minLength: 1,
          maxLength: 254,
          description: 'Who signs in; absent: the browser offers the passkeys that it has',
          examples: ['ada@example.com'],
        }),
      ),
    },
    { additionalProperties: false, examples: [{ email: 'ada@example.com' }] },
  ),
)

export const SecondFactorOptionsBody = Type.Object(
  {
    mfa_token: Type.String({
      ...Base64url,
      maxLength: 64,
      description: 'As it came with `mfa_required`',
    }),
  },
  { additionalProperties: false },
)

const { scope, account, resource, use_cookie } = LoginBody.properties
export const PasskeySignInBody = Type.Object(
  {
    challenge_token: Type.String({
      ...Base64url,
      maxLength: 64,
      description: 'As it came with the options',
    }),
    response: AuthenticationResponse,
    scope,
    account,
    resource,
    use_cookie,
  },
  { additionalProperties: false },
)

const Descriptor = Type.Object({
  id: CredentialId,
  type: PublicKeyType,
  transports: Type.Optional(Type.Array(Transport)),
})

/** WebAuthn Level 3 §5.1, PublicKeyCredentialCreationOptionsJSON. */
export const RegistrationOptionsSchema = Type.Unsafe<PublicKeyCredentialCreationOptionsJSON>(
  Type.Object(
    {
      rp: Type.Object({ id: Type.String({ examples: ['example.com'] }), name: Type.String() }),
      user: Type.Object({
        id: Base64url,
        name: Type.String({ examples: ['ada@example.com'] }),
        displayName: Type.String({ examples: ['Ada Lovelace'] }),
      }),
      challenge: Base64url,
      pubKeyCredParams: Type.Array(
        Type.Object({ alg: Type.Integer({ examples: [-7] }), type: PublicKeyType }),
      ),
      timeout: Type.Integer({ description: 'Milliseconds', examples: [300_000] }),
      excludeCredentials: Type.Array(Descriptor),
      authenticatorSelection: Type.Object({
        residentKey: Type.String({ examples: ['preferred'] }),
        requireResidentKey: Type.Boolean(),
        userVerification: Type.String({ examples: ['preferred'] }),
      }),
      attestation: Type.String({ examples: ['none'] }),
      extensions: Type.Object({ credProps: Type.Boolean() }),
      hints: Type.Array(Type.String()),
    },
    {
      $id: 'PasskeyRegistrationOptions',
      title: 'What navigator.credentials.create takes',
      description: 'For `PublicKeyCredential.parseCreationOptionsFromJSON`',
    },
  ),
)

/** WebAuthn Level 3 §5.1, PublicKeyCredentialRequestOptionsJSON. */
export const AuthenticationOptionsSchema = Type.Unsafe<PublicKeyCredentialRequestOptionsJSON>(
  Type.Object(
    {
      challenge: Base64url,
      rpId: Type.String({ examples: ['example.com'] }),
      timeout: Type.Integer({ description: 'Milliseconds', examples: [300_000] }),
      allowCredentials: Type.Array(Descriptor),
      userVerification: Type.String({ examples: ['preferred'] }),
    },
    {
      $id: 'PasskeyOptions',
      title: 'What navigator.credentials.get takes',
      description: 'For `PublicKeyCredential.parseRequestOptionsFromJSON`',
    },
  ),
)

const passkeyFields = {
  id: Uuid,
  name: PasskeyName,
  is_user_verifying: Type.Boolean({
    description: 'Whether it has asked who uses it, by PIN or biometrics: then it counts as two factors',
  }),
  is_backup_eligible: Type.Boolean({ description: 'Whether it is kept on more than one device' }),
  is_backed_up: Type.Boolean(),
  transports: Type.Array(Transport),
  aaguid: nullable(
    Type.String({ ...Uuid, description: 'The make of its authenticator, as that says itself' }),
  ),
  created_at: Timestamp,
  last_used_at: nullable(Timestamp),
}
export const PasskeySchema = Type.Object(passkeyFields, { $id: 'Passkey', title: 'Passkey' })

export const CreatedPasskeySchema = Type.Object(
  {
    ...passkeyFields,
    recovery_codes: Type.Optional(
      Type.Array(Type.String(), {
        description: 'With the first factor, and never again: each opens the account once without it',
      }),
    ),
  },
  { $id: 'CreatedPasskey', title: 'A passkey that was registered just now' },
)

export const SignInOptionsSchema = Type.Object(
  {
    challenge_token: Type.String({ description: 'To be sent along with the response', examples: ['dGVzdA'] }),
    expires_in: Type.Integer({ description: 'Seconds', examples: [300] }),
    options: ref(AuthenticationOptionsSchema),
  },
  { $id: 'PasskeySignInOptions', title: 'Options to sign in with a passkey' },
)

/** A passkey as its owner sees it, without its key. */
export const presentPasskey = (row: PasskeyRow): Static<typeof PasskeySchema> => ({
  id: row.id,
  name: row.name,
  is_user_verifying: row.isUserVerifying,
  is_backup_eligible: row.deviceType === 'multiDevice',
  is_backed_up: row.isBackedUp,
  transports: row.transports,
  aaguid: row.aaguid,
  created_at: row.createdAt.toISOString(),
  last_used_at: row.lastUsedAt?.toISOString() ?? null,
})
