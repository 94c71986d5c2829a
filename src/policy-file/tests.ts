import Type, { type Static } from 'typebox'
import type { Question } from '../policy/engine/model.ts'
import { yamlReader } from './read.ts'

const Bag = Type.Unsafe<Record<string, unknown>>({ type: 'object', additionalProperties: true })

const PolicyTestsSchema = Type.Object(
  {
    tests: Type.Array(
      Type.Object(
        {
          name: Type.Optional(Type.String({ maxLength: 200 })),
          user: Type.String({ minLength: 1, maxLength: 254 }),
          action: Type.String({ minLength: 1, maxLength: 128 }),
          /** `type` or `type:key`. */
          resource: Type.String({ minLength: 1, maxLength: 700 }),
          tenant: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
          user_attributes: Type.Optional(Bag),
          resource_attributes: Type.Optional(Bag),
          action_properties: Type.Optional(Bag),
          context: Type.Optional(Bag),
          expect: Type.String({ enum: ['allow', 'deny'] }),
        },
        { additionalProperties: false },
      ),
      { minItems: 1, maxItems: 10_000 },
    ),
  },
  { additionalProperties: false },
)

/** One expected decision. */
export type PolicyTest = { name: string; question: Question; isAllowed: boolean }
export type TestOutcome = PolicyTest & { isAsExpected: boolean }

const readTests = yamlReader(PolicyTestsSchema)

/** Expected decisions from YAML. @throws AppError validation_failed */
export const readPolicyTests = (text: string): PolicyTest[] => readTests(text).tests.map(testOf)

function testOf(test: Static<typeof PolicyTestsSchema>['tests'][number]): PolicyTest {
  const { user, action, resource, tenant = 'default', expect } = test
  const colon = resource.indexOf(':')
  const question = {
    user: { key: user, attributes: test.user_attributes },
    action: { name: action, properties: test.action_properties },
    resource: {
      type: colon < 0 ? resource : resource.slice(0, colon),
      ...(colon >= 0 && { key: resource.slice(colon + 1) }),
      tenant,
      attributes: test.resource_attributes,
    },
    context: test.context,
  }
  return { name: test.name ?? `${user} ${action} ${resource}`, question, isAllowed: expect === 'allow' }
}
