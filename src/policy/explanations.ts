import { setImmediate as othersHadTheirTurn } from 'node:timers/promises'
import type { DecisionOptions, Decisions } from './decisions.ts'
import type { Explanation } from './engine/explain.ts'
import type { Question } from './engine/model.ts'

/** So many at once: what they need is loaded together. */
const AT_ONCE = 32

/**
 * The decisions on many questions, in their order, with their reasons. Explaining asks every rule, so others have
 * their turn in between.
 * @throws AppError policy_unavailable, policy_engine_unavailable, not_found, unknown_consistency
 */
export async function explainMany(
  decisions: Pick<Decisions, 'explain'>,
  questions: readonly Question[],
  options: DecisionOptions = {},
): Promise<Explanation[]> {
  const explained: Explanation[] = []
  for (let start = 0; start < questions.length; start += AT_ONCE) {
    if (start > 0) await othersHadTheirTurn()
    const some = questions.slice(start, start + AT_ONCE)
    explained.push(
      ...(await Promise.all(some.map(async (question) => await decisions.explain(question, options)))),
    )
  }
  return explained
}
