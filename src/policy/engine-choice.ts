import { AppError } from '../errors.ts'
import type { PolicyAdapter } from './adapter.ts'
import { chunks, chunksOf, type DecisionOptions, type Decisions, type List, tenantsOf } from './decisions.ts'
import type { Explanation } from './engine/explain.ts'
import type { Decision, Facts, Question, TenantFacts } from './engine/model.ts'
import { MOST_LISTED } from './listings.ts'

/** Two engines gave different answers to the same question. Keys only, never attributes. */
export type Difference = {
  user: string
  action: string
  resource: string
  tenant: string | undefined
  answered: boolean
  shadow: boolean
}

/** What became of a question put to the shadow: the same answer, another one, none, or it was not asked. */
export type ShadowOutcome = 'same' | 'different' | 'failed' | 'skipped'

type Shadowing = {
  onOutcome: (outcome: ShadowOutcome) => void
  onDifference: (difference: Difference) => void
}

/** More than this many at once are not asked: the shadow must not become a load of its own. */
const MOST_IN_SHADOW = 100

/** `chosen`, or `local` for as long as `chosen` is not available. */
export function withFallback(
  chosen: PolicyAdapter,
  local: PolicyAdapter,
  onFallback: () => void,
): PolicyAdapter {
  async function orElse<T>(ask: (engine: PolicyAdapter) => Promise<T>): Promise<T> {
    try {
      return await ask(chosen)
    } catch (error) {
      if (!(error instanceof AppError && error.code === 'policy_engine_unavailable')) throw error
      onFallback()
      return await ask(local)
    }
  }
  return {
    check: async (question, options) => await orElse(async (engine) => await engine.check(question, options)),
    checkMany: async (questions, options) =>
      await orElse(async (engine) => await engine.checkMany(questions, options)),
    userPermissions: async (query, options) =>
      await orElse(async (engine) => await engine.userPermissions(query, options)),
  }
}

/** Puts the questions of one engine to another one too, which nobody waits for, and compares. */
export function createShadow(shadow: PolicyAdapter, { onOutcome, onDifference }: Shadowing) {
  let underway = 0

  async function ask(questions: readonly Question[], answers: readonly Decision[]): Promise<void> {
    try {
      const others = await shadow.checkMany(questions)
      for (const [place, { user, action, resource }] of questions.entries()) {
        const [answered, other] = [answers[place]?.allowed, others[place]?.allowed]
        if (answered === undefined || other === undefined) continue
        onOutcome(answered === other ? 'same' : 'different')
        if (answered === other) continue
        onDifference({
          user: user.key,
          action: action.name,
          resource: resource.key === undefined ? resource.type : `${resource.type}:${resource.key}`,
          tenant: resource.tenant,
          answered,
          shadow: other,
        })
      }
    } catch {
      onOutcome('failed')
    }
  }

  return {
    /** Compares later; `answers` are those that were given to `questions`. */
    compare(questions: readonly Question[], answers: readonly Decision[]): void {
      if (questions.length === 0) return
      if (underway >= MOST_IN_SHADOW) {
        onOutcome('skipped')
        return
      }
      underway++
      setImmediate(() => void ask(questions, answers).finally(() => underway--))
    },
  }
}

export type Shadow = ReturnType<typeof createShadow>

/** `local`, whose questions another engine is asked too. */
export function withShadow(local: Decisions, shadow: Shadow): Decisions {
  return {
    ...local,
    checkNow(question, options) {
      const decision = local.checkNow(question, options)
      if (decision) shadow.compare([question], [decision])
      return decision
    },
    async check(question, options) {
      const decision = await local.check(question, options)
      shadow.compare([question], [decision])
      return decision
    },
    async checkMany(questions, options) {
      const decisions = await local.checkMany(questions, options)
      shadow.compare(questions, decisions)
      return decisions
    },
    async explain(question, options) {
      const explanation = await local.explain(question, options)
      shadow.compare([question], [explanation.decision])
      return explanation
    },
    async *explainMany(questions, options) {
      const decisions: Decision[] = []
      try {
        for await (const explanation of local.explainMany(questions, options)) {
          decisions.push(explanation.decision)
          yield explanation
        }
      } finally {
        shadow.compare(questions.slice(0, decisions.length), decisions)
      }
    },
  }
}

type Engine = {
  engine: PolicyAdapter
  readFacts: <T>(read: (facts: Facts) => T, options: DecisionOptions) => Promise<T>
  /** Active accounts in the order of their keys, those after `after`. */
  listTenantKeys: List
  onDecision: (question: Question, decision: Decision, options: DecisionOptions) => void
  /** What is known here about the answers; no decisions of their own. */
  explaining: Pick<Decisions, 'explain' | 'explainMany'>
}

/**
 * The decisions of an environment whose engine is not the local one. What that engine cannot be asked (searches,
 * authorized users, a user's accounts) is answered from what is known here, and so are reasons where it agrees.
 */
export function decidedBy(
  { engine, readFacts, listTenantKeys, onDecision, explaining }: Engine,
  local: Decisions,
): Decisions {
  return {
    ...local,
    // Nothing is at hand: each answer is waited for.
    checkNow: () => undefined,

    async check(question, options = {}) {
      const decision = await engine.check(question, options)
      onDecision(question, decision, options)
      return decision
    },

    async checkMany(questions, options = {}) {
      const decisions = await engine.checkMany(questions, options)
      for (const [place, question] of questions.entries()) {
        const decision = decisions[place]
        if (decision) onDecision(question, decision, options)
      }
      return decisions
    },

    async explain(question, options = {}) {
      const decision = await engine.check(question, options)
      onDecision(question, decision, options)
      return reasonsFor(decision, await explaining.explain(question, options))
    },

    async *explainMany(questions, options = {}) {
      const decisions = await engine.checkMany(questions, options)
      let place = 0
      for await (const known of explaining.explainMany(questions, options)) {
        const [question, decision] = [questions[place], decisions[place]]
        if (!question || !decision) throw new Error('a question was not decided')
        onDecision(question, decision, options)
        yield reasonsFor(decision, known)
        place++
      }
    },

    userPermissions: async (query, options) => [...(await engine.userPermissions(query, options))],

    async checkAllTenants(question, options = {}) {
      const own = await readFacts((facts) => tenantsOf(facts.user(question.user.key)), options)
      const allowed: { tenant: TenantFacts; decision: Decision }[] = []
      for await (const keys of own ? chunksOf(own) : chunks(listTenantKeys)) {
        const decisions = await engine.checkMany(
          keys.map((tenant) => ({ ...question, resource: { ...question.resource, tenant } })),
          options,
        )
        const tenants = await readFacts((facts) => keys.map((key) => facts.tenant(key)), options)
        for (const [place, decision] of decisions.entries()) {
          const tenant = tenants[place]
          if (tenant && decision.allowed) allowed.push({ tenant, decision })
        }
        if (allowed.length > MOST_LISTED) throw new AppError('answer_too_large')
      }
      return allowed
    },
  }
}

/** What the local engine found, unless that explains another answer than the one that was given. */
function reasonsFor(decision: Decision, known: Explanation): Explanation {
  if (known.decision.allowed === decision.allowed) return known
  return {
    decision,
    request: known.request,
    allowingSources: [],
    rbac: undefined,
    abac: undefined,
    rebac: undefined,
    sentence: `Permit ${decision.allowed ? 'allows' : 'refuses'} it; what is stored here says otherwise`,
  }
}
