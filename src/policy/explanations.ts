import type { DecisionOptions, Decisions } from './decisions.ts'
import type { Explanation } from './engine/explain.ts'
import type { Decision, Question } from './engine/model.ts'

/** Reasons end once the answers of a list that have them are about so long, as JSON. */
const MOST_LENGTH = 8 * 1024 * 1024

/** An answer with its reasons, and one without. */
type Presenting<T> = { explained: (explanation: Explanation) => T; decided: (decision: Decision) => T }

/**
 * The answers to many questions, in their order, with their reasons; without them once those before are eight million
 * characters long.
 * @throws AppError policy_unavailable, policy_engine_unavailable, not_found, unknown_consistency
 */
export async function explainMany<T>(
  decisions: Pick<Decisions, 'explainMany' | 'checkMany'>,
  questions: readonly Question[],
  { explained, decided }: Presenting<T>,
  options: DecisionOptions = {},
): Promise<T[]> {
  const answers: T[] = []
  let length = 0
  for await (const explanation of decisions.explainMany(questions, options)) {
    const answer = explained(explanation)
    answers.push(answer)
    length += JSON.stringify(answer).length
    if (length > MOST_LENGTH) break
  }
  const rest = questions.slice(answers.length)
  return rest.length === 0
    ? answers
    : [...answers, ...(await decisions.checkMany(rest, options)).map(decided)]
}
