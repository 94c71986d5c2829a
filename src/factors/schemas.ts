import Type, { type Static } from 'typebox'
import { LoginBody } from '../auth/schemas.ts'
import { nullable, Password, ProblemSchema, ref, Timestamp } from '../http/schemas.ts'
import { AuthenticationResponse } from '../passkeys/schemas.ts'
import type { Proof } from './proofs.ts'
import type { Factors, StepUpProof } from './service.ts'

const TotpCode = Type.String({
  pattern: '^[0-9]{6}$',
  description: 'What the authenticator app shows now',
  examples: ['123456'],
})
const RecoveryCode = Type.String({
  minLength: 1,
  maxLength: 64,
  description: 'One of the codes that came with the first second factor; works once',
  examples: ['7q2m-x0d4-k8rt-9vbn-c3hs-ye5w-1zfa'],
})
const RecoveryCodesList = Type.Array(Type.String({ examples: ['7q2m-x0d4-k8rt-9vbn-c3hs-ye5w-1zfa'] }), {
  description: 'Ten codes that stand in for the second factor, each once. They are not shown again',
})

/** Second factors of which a body has one. */
const proofs = {
  code: Type.Optional(TotpCode),
  recovery_code: Type.Optional(RecoveryCode),
  passkey: Type.Optional(AuthenticationResponse),
}

const MfaTokenText = Type.String({
  minLength: 1,
  maxLength: 128,
  description: 'As the first step has answered it; good for five minutes and five attempts',
  examples: ['Zq0vY0l8m2k…'],
})

export const VerifyMfaBody = Type.Object(
  { mfa_token: MfaTokenText, ...proofs, use_cookie: LoginBody.properties.use_cookie },
  {
    additionalProperties: false,
    minProperties: 2,
    description: 'With one of `code`, `recovery_code` and `passkey`',
    examples: [{ mfa_token: 'Zq0vY0l8m2k…', code: '123456' }],
  },
)

export const StepUpBody = Type.Object(
  { password: Type.Optional(Password), ...proofs },
  {
    additionalProperties: false,
    minProperties: 1,
    maxProperties: 1,
    description: 'The password, or by whoever has a second factor one of the others',
    examples: [{ code: '123456' }],
  },
)

export const ConfirmTotpBody = Type.Object({ code: TotpCode }, { additionalProperties: false })

export const TotpSecretSchema = Type.Object(
  {
    secret: Type.String({ description: 'Base32', examples: ['JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP'] }),
    otpauth_url: Type.String({
      description: 'The same for a QR code',
      examples: ['otpauth://totp/Postern:ada%40example.com?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP'],
    }),
  },
  { $id: 'TotpSecret', title: 'What an authenticator app needs' },
)

export const ConfirmedTotpSchema = Type.Object(
  { recovery_codes: Type.Optional(RecoveryCodesList) },
  { $id: 'ConfirmedTotp', title: 'An authenticator app that counts from now on' },
)

export const RecoveryCodesSchema = Type.Object(
  { recovery_codes: RecoveryCodesList },
  { $id: 'RecoveryCodes', title: 'Recovery codes' },
)

export const FactorsSchema = Type.Object(
  {
    is_required: Type.Boolean({
      description: 'Whether an account of the person, a role or the configuration demands a second factor',
    }),
    totp: Type.Unsafe<{ enrolled_at: string; last_used_at: string | null } | null>({
      ...Type.Object({ enrolled_at: Timestamp, last_used_at: nullable(Timestamp) }),
      type: ['object', 'null'],
      description: 'The authenticator app',
    }),
    passkeys: Type.Integer({ description: 'How many there are', examples: [1] }),
    recovery_codes_left: Type.Integer({ examples: [10] }),
  },
  { $id: 'Factors', title: 'The second factors of a person' },
)

/** The problem of a sign-in that goes on with a second factor. */
const MfaRequiredSchema = Type.Object(
  {
    ...ProblemSchema.properties,
    mfa_token: Type.Optional(Type.String({ description: 'For POST /api/v1/auth/mfa/verify' })),
    methods: Type.Optional(
      Type.Array(Type.String({ enum: ['totp', 'passkey', 'recovery_code'] }), {
        description: 'What is enrolled',
      }),
    ),
    expires_in: Type.Optional(Type.Integer({ description: 'Seconds', examples: [300] })),
  },
  { $id: 'MfaRequired', title: 'A second factor is required' },
)

export const FACTORS_SCHEMAS = [
  TotpSecretSchema,
  ConfirmedTotpSchema,
  RecoveryCodesSchema,
  FactorsSchema,
  MfaRequiredSchema,
]

/** The second factors of a person as they are answered; no secret is among them. */
export const presentFactors = ({
  isRequired,
  totp,
  passkeys,
  recoveryCodesLeft,
}: Factors): Static<typeof FactorsSchema> => ({
  is_required: isRequired,
  totp: totp
    ? {
        enrolled_at: totp.confirmedAt.toISOString(),
        last_used_at: totp.lastUsedAt?.toISOString() ?? null,
      }
    : null,
  passkeys,
  recovery_codes_left: recoveryCodesLeft,
})

type ProofFields = Pick<Static<typeof StepUpBody>, 'code' | 'recovery_code' | 'passkey'>

/** The one second factor that a body has; `undefined` for none or more than one. */
export function proofOf({ code, recovery_code: recoveryCode, passkey }: ProofFields): Proof | undefined {
  const given: Proof[] = [
    ...(code === undefined ? [] : [{ code }]),
    ...(recoveryCode === undefined ? [] : [{ recoveryCode }]),
    ...(passkey === undefined ? [] : [{ passkey }]),
  ]
  return given.length === 1 ? given[0] : undefined
}

/** What a body has for a step-up; the schema lets one thing through. */
export const stepUpProofOf = ({
  password,
  ...factors
}: Static<typeof StepUpBody>): StepUpProof | undefined =>
  password === undefined ? proofOf(factors) : { password }

/** A response that goes on with `mfa_token`. */
export const mfaRequired = (description: string) => ({
  description,
  content: { 'application/problem+json': { schema: ref(MfaRequiredSchema) } },
})
