import Type from 'typebox'
import { nullable, Timestamp } from '../http/schemas.ts'
import type { SigningKeyRow } from './repository.ts'

export const RotateKeysQuery = Type.Object({
  force: Type.Boolean({
    default: false,
    description:
      'For a key that others may know: withdraws every key at once, and with them every token issued until now',
  }),
})

export const SigningKeySchema = Type.Object(
  {
    kid: Type.String({
      description: 'SHA-256 thumbprint of the public key (RFC 7638)',
      examples: ['NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs'],
    }),
    algorithm: Type.Unsafe<SigningKeyRow['algorithm']>(
      Type.String({ enum: ['ES256', 'RS256', 'EdDSA'], examples: ['ES256'] }),
    ),
    state: Type.Unsafe<SigningKeyRow['state']>(
      Type.String({
        enum: ['next', 'current', 'retired'],
        description:
          '`next` is published and does not sign yet, `current` signs, `retired` verifies what it signed',
        examples: ['next'],
      }),
    ),
    created_at: Timestamp,
    activates_at: nullable(Timestamp),
    activated_at: nullable(Timestamp),
    retired_at: nullable(Timestamp),
  },
  { $id: 'SigningKey', title: 'Signing key' },
)

/** A signing key as administrators see it, without the key. */
export const presentSigningKey = (key: SigningKeyRow) => ({
  kid: key.kid,
  algorithm: key.algorithm,
  state: key.state,
  created_at: key.createdAt.toISOString(),
  activates_at: key.activatesAt?.toISOString() ?? null,
  activated_at: key.activatedAt?.toISOString() ?? null,
  retired_at: key.retiredAt?.toISOString() ?? null,
})
