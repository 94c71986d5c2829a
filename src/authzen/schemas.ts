import Type, { type Static } from 'typebox'

// Every object here is open: fields that are not known MUST be ignored (Authorization API 1.0 §5).

const Name = Type.String({ minLength: 1 })

const Properties = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  additionalProperties: true,
  description: 'Attributes of the request; they win over stored ones of the same name',
})

const subjectFields = {
  type: Name,
  id: Name,
  properties: Type.Optional(Properties),
}
const actionFields = { name: Name, properties: Type.Optional(Properties) }

const ALICE = { type: 'user', id: 'alice' }
const READ = { name: 'read' }
const RECORD = { type: 'record', id: 'record-1' }

/** Who asks to act: the type is one of AUTHZEN_SUBJECT_TYPES, the id the key of a user. */
const Subject = Type.Object(subjectFields, { examples: [ALICE] })
const Action = Type.Object(actionFields, { examples: [READ] })
/** What it is about: type and key of an instance; `properties.tenant` names the account. */
const Resource = Type.Object(subjectFields, { examples: [RECORD] })
const Context = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  additionalProperties: true,
  description:
    'Attributes of the situation; `tenant` names the account when `resource.properties.tenant` does not',
})

export const EvaluationBody = Type.Object({
  subject: Subject,
  action: Action,
  resource: Resource,
  context: Type.Optional(Context),
})

/** One question, complete. */
export type Evaluation = Static<typeof EvaluationBody>

/** The most questions of one request. */
const MOST_EVALUATIONS = 1000

/** How a list of questions is worked through (§7.1.2.1). */
export type Semantic = 'execute_all' | 'deny_on_first_deny' | 'permit_on_first_permit'

export const EvaluationsBody = Type.Object(
  {
    subject: Type.Optional(Type.Partial(Type.Object(subjectFields))),
    action: Type.Optional(Type.Partial(Type.Object(actionFields))),
    resource: Type.Optional(Type.Partial(Type.Object(subjectFields))),
    context: Type.Optional(Context),
    evaluations: Type.Optional(
      Type.Array(Type.Unsafe<Record<string, unknown>>({ type: 'object', additionalProperties: true }), {
        maxItems: MOST_EVALUATIONS,
        description:
          'Questions: `subject`, `action`, `resource` and `context`, each by default that of the top level',
      }),
    ),
    options: Type.Optional(
      Type.Object({
        evaluations_semantic: Type.Optional(
          Type.Unsafe<Semantic>({
            type: 'string',
            enum: ['execute_all', 'deny_on_first_deny', 'permit_on_first_permit'],
            description: 'Whether to go on after a refusal or a permission. Default: execute_all',
          }),
        ),
      }),
    ),
  },
  {
    examples: [{ subject: ALICE, action: READ, evaluations: [{ resource: RECORD }, { resource: RECORD }] }],
  },
)

/** A list of questions, and what they have in common. */
export type Evaluations = Static<typeof EvaluationsBody>

const Page = Type.Object({
  token: Type.Optional(Type.String({ maxLength: 8192, description: '`next_token` of the page before' })),
  limit: Type.Optional(
    Type.Integer({ minimum: 0, description: 'Most results of a page; 100 by default, 1000 at most' }),
  ),
})

/** Which page of a search is asked for. */
export type PageRequest = Static<typeof Page>

const searchFields = { context: Type.Optional(Context), page: Type.Optional(Page) }
const { id: _id, ...searchedFields } = subjectFields

export const SubjectSearchBody = Type.Object({
  subject: Type.Object(searchedFields, { examples: [{ type: 'user' }] }),
  action: Action,
  resource: Resource,
  ...searchFields,
})

export const ResourceSearchBody = Type.Object({
  subject: Subject,
  action: Action,
  resource: Type.Object(searchedFields, { examples: [{ type: 'record' }] }),
  ...searchFields,
})

export const ActionSearchBody = Type.Object({ subject: Subject, resource: Resource, ...searchFields })

const answerFields = {
  decision: Type.Boolean(),
  context: Type.Optional(
    Type.Object({
      reason: Type.Optional(Type.String({ description: 'Why; only when it was asked for' })),
      error: Type.Optional(
        Type.Object(
          { status: Type.Integer(), message: Type.String() },
          { description: 'Why this question of a list has no answer' },
        ),
      ),
    }),
  ),
}

export const AnswerSchema = Type.Object(answerFields)

/** The answer to one question. */
export type Answer = Static<typeof AnswerSchema>

/** `evaluations`, or the one decision when there was no list. */
export const AnswersSchema = Type.Partial(
  Type.Object({ ...answerFields, evaluations: Type.Array(AnswerSchema) }),
)

/** None is required, because the serializer writes required fields first, and `page` is to be the first (§8.3). */
const found = <T extends Record<string, ReturnType<typeof Type.String>>>(fields: T) =>
  Type.Partial(
    Type.Object({
      page: Type.Object({ next_token: Type.String({ description: 'Empty: there are no more results' }) }),
      results: Type.Array(Type.Object(fields)),
    }),
  )

export const FoundEntitiesSchema = found({ type: Type.String(), id: Type.String() })
export const FoundActionsSchema = found({ name: Type.String() })

export const MetadataSchema = Type.Object({
  policy_decision_point: Type.String(),
  access_evaluation_endpoint: Type.String(),
  access_evaluations_endpoint: Type.String(),
  search_subject_endpoint: Type.String(),
  search_resource_endpoint: Type.String(),
  search_action_endpoint: Type.String(),
})
