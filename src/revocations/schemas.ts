import Type, { type Static } from 'typebox'
import { nullable } from '../http/schemas.ts'
import { type Cursor, type FeedEvent, PAGE_SIZE, type Page } from './feed.ts'
import type { Revocation } from './repository.ts'

const CURSOR = /^(?<epoch>[0-9a-f]{12})-(?<version>\d{1,15})$/

export const ListRevocationsQuery = Type.Object({
  since: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 64,
      description: 'The `next` of the page before; absent or not known here: from the start',
    }),
  ),
  limit: Type.Integer({
    minimum: 1,
    maximum: PAGE_SIZE,
    default: PAGE_SIZE,
    description: 'Most rows to return',
  }),
})

export const RevocationSchema = Type.Object(
  {
    kind: Type.Unsafe<Revocation['kind']>(
      Type.String({
        enum: ['session', 'token', 'user', 'client', 'key'],
        description: 'What `ref` names: `sid`, `jti`, the `sub` of a user or client, or the `kid` of a key',
        examples: ['user'],
      }),
    ),
    ref: Type.String({ examples: ['0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40'] }),
    ver: nullable(
      Type.Integer({
        description: 'Of a user or client: tokens whose `ver` is lower are dead',
        examples: [4],
      }),
    ),
    exp: Type.Integer({
      description: 'Seconds since 1970 after which the entry can be forgotten',
      examples: [1_795_000_000],
    }),
  },
  { $id: 'Revocation', title: 'Revocation' },
)

export const RevocationsSchema = Type.Object(
  {
    revocations: Type.Array(Type.Unsafe<Static<typeof RevocationSchema>>({ $ref: 'Revocation#' })),
    next: Type.String({ description: 'Where to go on', examples: ['5d9a1c3e7f20-1042'] }),
    has_more: Type.Boolean({ description: 'Whether there is more by now' }),
  },
  { $id: 'Revocations', title: 'Revocations' },
)

/** The place that a client names; `undefined`, from the start, for what is no place. */
export function cursorOf(text: string | undefined): Cursor | undefined {
  const { epoch, version } = CURSOR.exec(text ?? '')?.groups ?? {}
  return epoch !== undefined && version !== undefined ? { epoch, version: Number(version) } : undefined
}

const cursorText = ({ epoch, version }: Cursor): string => `${epoch}-${version}`

const present = ({ kind, ref, ver, exp }: Revocation) => ({ kind, ref, ver, exp })

/** A page of the revocation feed as it is answered. */
export const presentPage = ({ revocations, next, hasMore }: Page) => ({
  revocations: revocations.map(present),
  next: cursorText(next),
  has_more: hasMore,
})

/** An event as it goes over the wire (WHATWG HTML §9.2.6). */
export function presentEvent(event: FeedEvent): string {
  const [name, data] =
    'rows' in event
      ? ['revoked', event.rows.map(present)]
      : ['current', { age_seconds: Math.round(event.ageSeconds * 1000) / 1000 }]
  return `id: ${cursorText(event.cursor)}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`
}
