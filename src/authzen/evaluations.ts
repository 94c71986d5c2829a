import { AppError } from '../errors.ts'
import { isObject } from '../policy/engine/equality.ts'
import type { Question } from '../policy/engine/model.ts'
import { invalid } from './mapping.ts'
import type { Answer, Evaluation, Evaluations, Semantic } from './schemas.ts'

/** A question to be decided, or the answer that it has without. */
export type Prepared = { question: Question } | { answer: Answer }

type Work = {
  semantic: Semantic
  /** Throws an AppError for an item that cannot be completed. */
  prepare: (item: Record<string, unknown>) => Prepared
  answer: (questions: readonly Question[]) => Promise<readonly Answer[]>
}

/** The answer after which the rest of a list is left out (Authorization API 1.0 §7.1.2.1). */
const LAST: Record<Semantic, boolean | undefined> = {
  execute_all: undefined,
  deny_on_first_deny: false,
  permit_on_first_permit: true,
}

/** So many questions are decided at once where the first answer may end the list. */
const CHUNK = 32

/** The answers to a list of questions, in its order, up to the one that ends it. */
export async function answersTo(
  items: readonly Record<string, unknown>[],
  { semantic, prepare, answer: answerAll }: Work,
): Promise<Answer[]> {
  const last = LAST[semantic]
  const size = last === undefined ? items.length : CHUNK
  const answers: Answer[] = []
  for (let start = 0; start < items.length; start += size) {
    const prepared = items.slice(start, start + size).map((item) => preparedOrFailed(item, prepare))
    const questions = prepared.flatMap((one) => ('question' in one ? [one.question] : []))
    const decided = (questions.length > 0 ? await answerAll(questions) : []).values()
    for (const one of prepared) {
      const answer = 'answer' in one ? one.answer : next(decided)
      answers.push(answer)
      if (answer.decision === last) return answers
    }
  }
  return answers
}

function next(decided: Iterator<Answer>): Answer {
  const { value, done } = decided.next()
  if (done) throw new Error('a question was not decided')
  return value
}

/** What cannot be completed is refused in its place, and says why (§7.2.1). */
function preparedOrFailed(item: Record<string, unknown>, prepare: Work['prepare']): Prepared {
  try {
    return prepare(item)
  } catch (error) {
    if (!(error instanceof AppError) || error.status >= 500) throw error
    return {
      answer: { decision: false, context: { error: { status: error.status, message: error.message } } },
    }
  }
}

type Defaults = Pick<Evaluations, 'subject' | 'action' | 'resource' | 'context'>

const NAMES_OF_SUBJECT = ['type', 'id'] as const
const NAMES_OF_ACTION = ['name'] as const

/**
 * One question of a list. What it says of an entity replaces the default as a whole; only a missing type, id or name
 * is taken from the default, as the certification profile has it (§ Batch with default value merging).
 * @throws AppError invalid_request when something is missing or of the wrong type
 */
export function completed(item: Record<string, unknown>, defaults: Defaults): Evaluation {
  const context = item['context'] === undefined ? defaults.context : item['context']
  if (context !== undefined && !isObject(context)) throw invalid('/context', 'must be an object')
  return {
    subject: entityOf('/subject', item['subject'], defaults.subject, NAMES_OF_SUBJECT),
    action: entityOf('/action', item['action'], defaults.action, NAMES_OF_ACTION),
    resource: entityOf('/resource', item['resource'], defaults.resource, NAMES_OF_SUBJECT),
    ...(context !== undefined && { context }),
  }
}

type Named<N extends string> = Record<N, string> & { properties?: Record<string, unknown> }

function entityOf<const N extends string>(
  pointer: string,
  given: unknown,
  fallback: Partial<Record<N, string>> | undefined,
  names: readonly N[],
): Named<N> {
  const entity = given === undefined ? fallback : given
  if (entity === undefined) throw invalid(pointer, 'is required')
  if (!isObject(entity)) throw invalid(pointer, 'must be an object')
  const result: Record<string, unknown> = {}
  for (const name of names) {
    const value = entity[name] === undefined ? fallback?.[name] : entity[name]
    if (value === undefined) throw invalid(`${pointer}/${name}`, 'is required')
    if (typeof value !== 'string' || value === '')
      throw invalid(`${pointer}/${name}`, 'must be a string that is not empty')
    result[name] = value
  }
  const { properties } = entity
  if (properties !== undefined && !isObject(properties))
    throw invalid(`${pointer}/properties`, 'must be an object')
  if (properties !== undefined) result['properties'] = properties
  // The loop has put a text under each of the names.
  return result as Named<N>
}
