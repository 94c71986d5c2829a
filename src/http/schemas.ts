import Type, { type Static, type TSchema } from 'typebox'
import { APPLICATION_KEY } from '../permissions.ts'

/** A schema that was given to `app.addSchema`, by reference: OpenAPI shows `$ref`, and the reply stays typed. */
export const ref = <T extends TSchema>(schema: T) =>
  Type.Unsafe<Static<T>>({ $ref: `${String((schema as { $id?: string }).$id)}#` })

/** `schema` or null. One `type` with two names: the serializer is faster at it than at `anyOf`. */
export const nullable = <T extends TSchema>(schema: T) =>
  Type.Unsafe<Static<T> | null>({ ...schema, type: [(schema as { type?: string }).type, 'null'] })

/** A JSON object of the client's own. */
export const Attributes = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  additionalProperties: true,
  propertyNames: { maxLength: 128 },
  maxProperties: 100,
  description: 'Any JSON object; attribute rules of the policy see it',
})

export const Uuid = Type.String({ format: 'uuid', examples: ['0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40'] })
export const Timestamp = Type.String({ format: 'date-time', examples: ['2026-11-20T10:00:00.000Z'] })
export const Email = Type.String({ format: 'email', maxLength: 254, examples: ['ada@example.com'] })
/** Long enough for every password that is allowed; the rule itself gives a better message (auth/passwords.ts). */
export const Password = Type.String({ minLength: 1, maxLength: 4096, examples: ['correct horse battery'] })
export const PersonName = Type.String({ minLength: 1, maxLength: 255, examples: ['Ada Lovelace'] })
export const PhoneNumber = Type.String({ minLength: 1, maxLength: 64, examples: ['+44 20 7946 0000'] })
/** The key of an account, user or role. */
export const Key = Type.String({ pattern: APPLICATION_KEY, maxLength: 128, examples: ['acme'] })
/** Users synced from outside may have any key (an email, an id of another system). */
export const UserKey = Type.String({ pattern: '^[^\\s\\u0000-\\u001f]+$', maxLength: 254, examples: ['ada'] })

/** `resource:action` of the application; built-in ones hold a dot and do not fit. */
export const Permission = Type.String({
  pattern: '^[A-Za-z0-9_-]+:[A-Za-z0-9_-]+$',
  maxLength: 257,
  examples: ['post:read'],
})

/** The part of every list's query that says which page. */
export const pageQuery = <const Sorts extends readonly string[]>(sorts: Sorts, fallback: string) => ({
  skip: Type.Integer({
    minimum: 0,
    maximum: 1_000_000,
    default: 0,
    description: 'Rows to leave out; prefer `after` for deep pages',
  }),
  limit: Type.Integer({ minimum: 1, maximum: 1000, default: 100, description: 'Most rows to return' }),
  after: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 2048,
      description: 'Cursor of the next page, from the Link header of this one',
    }),
  ),
  total: Type.Boolean({
    default: false,
    description: 'Whether to count all rows, into the X-Total-Count header',
  }),
  sort: Type.String({
    enum: sorts.flatMap((sort) => [sort, `-${sort}`]),
    default: fallback,
    description: 'Field to sort by; with a minus, descending. Ties are broken by id',
  }),
})

export const UserIdParams = Type.Object({ user_id: Uuid })
export const AccountIdParams = Type.Object({ account_id: Uuid })
export const RoleIdParams = Type.Object({ role_id: Uuid })
export const AssignmentParams = Type.Object({ user_id: Uuid, assignment_id: Uuid })
export const MemberParams = Type.Object({ account_id: Uuid, user_id: Uuid })

/** The headers of a conditional write (RFC 9110 §13.1.1). */
export const IfMatchHeaders = Type.Object({
  'if-match': Type.Optional(
    Type.String({
      maxLength: 1024,
      description: 'ETag of the record that the change is meant for; another one is 412',
    }),
  ),
})

/** A problem document (RFC 9457). */
export const ProblemSchema = Type.Object(
  {
    type: Type.String({
      format: 'uri-reference',
      description: 'Identifies the kind of problem',
      examples: ['/problems/user_not_found'],
    }),
    title: Type.String({ examples: ['User does not exist'] }),
    status: Type.Integer({ examples: [404] }),
    detail: Type.Optional(
      Type.String({ description: 'What went wrong this time', examples: ['User does not exist'] }),
    ),
    instance: Type.String({
      description: 'The request id, as in the X-Request-Id header and the log',
      examples: ['req-1'],
    }),
    required: Type.Optional(Type.String({ description: 'The missing scope' })),
    errors: Type.Optional(
      Type.Array(
        Type.Object({ pointer: Type.String({ examples: ['/body/email'] }), detail: Type.String() }),
        {
          description: 'Each fault of the request, with a JSON pointer (RFC 6901) into it',
        },
      ),
    ),
  },
  { $id: 'Problem', title: 'Problem' },
)

/** A response that is a problem document. */
export const problem = (description: string) => ({
  description,
  content: { 'application/problem+json': { schema: ref(ProblemSchema) } },
})

/** A response without a body. */
export const NoContent = Type.Null({ description: 'Done; no body' })
