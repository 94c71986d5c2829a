import { AppError } from '../errors.ts'
import { isObject } from '../policy/engine/equality.ts'
import type { Explanation } from '../policy/engine/explain.ts'
import type { Attributes, Decision, Question, Refusal } from '../policy/engine/model.ts'
import type { Answer, Evaluation } from './schemas.ts'

type Entity = { properties?: Attributes | undefined }

/** A fault of the body at an RFC 6901 pointer into it. */
export const invalid = (pointer: string, detail: string): AppError =>
  new AppError('invalid_request', {
    detail: `${pointer.slice(1).replaceAll('/', '.')} ${detail}`,
    errors: [{ pointer: `/body${pointer}`, detail }],
  })

/**
 * The account that a question is about: `resource.properties.tenant`, or else `context.tenant`.
 * @throws AppError invalid_request when what is there is not a text: no other account may step in for it
 */
export function tenantOf(resource: Entity, context: Attributes | undefined): string | undefined {
  const tenant = resource.properties?.['tenant'] ?? context?.['tenant'] ?? undefined
  if (tenant === undefined || typeof tenant === 'string') return tenant
  const isOfResource = (resource.properties?.['tenant'] ?? undefined) !== undefined
  throw invalid(isOfResource ? '/resource/properties/tenant' : '/context/tenant', 'must be a string')
}

/** A resource as the decision core takes it; without an id, the resource as such. */
export const resourceOf = (
  { type, id, properties }: Entity & { type: string; id?: string },
  tenant: string,
): Question['resource'] => ({ type, key: id, tenant, attributes: properties })

/** A subject as the decision core takes it. */
export const userOf = ({ id, properties }: Entity & { id: string }): Question['user'] => ({
  key: id,
  attributes: properties,
})

/** An action as the decision core takes it. */
export const actionOf = ({ name, properties }: Entity & { name: string }): Question['action'] => ({
  name,
  properties,
})

/** An evaluation as the decision core takes it. */
export const questionOf = (evaluation: Evaluation, tenant: string): Question => ({
  user: userOf(evaluation.subject),
  action: actionOf(evaluation.action),
  resource: resourceOf(evaluation.resource, tenant),
  context: evaluation.context,
})

const REFUSALS: Record<Exclude<Refusal, 'user_inactive'>, string> = {
  no_such_resource: 'There is no such type of resource',
  no_such_action: 'There is no such action on this type of resource',
  tenant_inactive: 'The account is not active',
  graph_too_large: 'Too many relationships lead to the resource',
}

const DENIED = 'No role, attribute rule or relationship allows it'

// Most answers are one of these two.
const PERMIT: Answer = { decision: true }
const DENY: Answer = { decision: false }

/** A decision as an answer. */
export const answerOf = ({ allowed }: Decision): Answer => (allowed ? PERMIT : DENY)

/**
 * A decision as an answer, with a sentence that says why. Why not, the sentence tells in general terms who is bound to
 * an account: it would say what is known of people of other accounts.
 */
export function explainedAnswer({ decision, sentence }: Explanation, isBound: boolean): Answer {
  const { allowed, refusal } = decision
  // Whether somebody is active is known of people of other accounts too.
  const inGeneral = refusal && refusal !== 'user_inactive' ? REFUSALS[refusal] : DENIED
  return { decision: allowed, context: { reason: isBound && !allowed ? inGeneral : sentence } }
}

/** The answer about a subject that cannot be a user: no. */
export const unknownSubject = (withReason: boolean): Answer =>
  withReason ? { decision: false, context: { reason: 'There is no such type of subject' } } : DENY

/** Whether the request wants to know why: `options.reason`. */
export function asksForReason(body: unknown): boolean {
  const options: unknown = isObject(body) ? body['options'] : undefined
  return isObject(options) && options['reason'] === true
}
