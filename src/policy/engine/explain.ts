import type { CompiledPolicy } from './compile.ts'
import { decide, findTenant } from './decide.ts'
import {
  type AbacFinding,
  findAbac,
  findRbac,
  findRebac,
  type RbacFinding,
  type RebacFinding,
  TOO_LARGE,
} from './findings.ts'
import type { Attributes, Decision, Facts, Question, Refusal, Source } from './model.ts'
import { type Case, CaseScope, keyOf } from './scope.ts'

/** A decision with its reasons. */
export type Explanation = {
  readonly decision: Decision
  /** The question as conditions saw it, with what is stored about the user and the instance. */
  readonly request: {
    readonly user: { readonly key: string; readonly isSynced: boolean; readonly attributes: Attributes }
    /** The account's key, or as asked where there is no such account. */
    readonly tenant: string | undefined
    readonly action: string
    readonly resource: {
      readonly type: string
      readonly key: string | undefined
      readonly attributes: Attributes
    }
  }
  /** Every model that allows; the first of them is the decision's source. */
  readonly allowingSources: readonly Source[]
  /** On an allow only models that allow are here; else those that had something to say. */
  readonly rbac: RbacFinding | undefined
  readonly abac: AbacFinding | undefined
  readonly rebac: RebacFinding | undefined
  /** Why, in one line: `editor in acme may post:update`. */
  readonly sentence: string
}

/**
 * The decision that `decide` makes, with its reasons. As there, it is void when facts were missing, and nothing makes
 * it throw. It takes longer than `decide`: every model and every rule about the action is asked.
 */
export function explain(policy: CompiledPolicy, facts: Facts, question: Question, now: number): Explanation {
  const decision = decide(policy, facts, question, now)
  const type = policy.types.get(question.resource.type)
  const action = type?.actions.get(question.action.name)
  const asked: Case = {
    question,
    user: facts.user(question.user.key) ?? null,
    tenant: findTenant(facts, question) ?? null,
    type: type ?? { key: question.resource.type, actions: new Map(), roles: new Map() },
  }
  const request = requestOf(asked, facts, now, action?.needsInstanceRoles ?? false)
  const { refusal } = decision
  if (!action || (refusal !== undefined && refusal !== 'graph_too_large'))
    return { decision, request, ...unasked(refusal === 'graph_too_large' ? undefined : refusal, asked) }

  const hasRebac = keyOf(question) !== undefined && asked.type.roles.size > 0
  const findings: Findings = {
    rbac: findRbac(action, asked, now),
    abac: action.rules.length > 0 ? findAbac(action, asked, facts, now) : undefined,
    rebac: hasRebac ? findRebac(action, asked, facts, now) : undefined,
  }
  if (decision.allowed) return { decision, request, ...allowing(findings) }
  return { decision, request, ...denying(refusal ? withoutAnswers(findings) : findings) }
}

type Findings = Pick<Explanation, 'rbac' | 'abac' | 'rebac'>
type Reasons = Findings & Pick<Explanation, 'allowingSources' | 'sentence'>

function allowing({ rbac, abac, rebac }: Findings): Reasons {
  const found: Findings = {
    rbac: rbac?.allowed ? rbac : undefined,
    abac: abac?.allowed ? abac : undefined,
    rebac: rebac?.allowed ? rebac : undefined,
  }
  const allowingSources = (['rbac', 'abac', 'rebac'] as const).filter((source) => found[source])
  const sentence = found.rbac?.reason ?? found.abac?.reason ?? found.rebac?.reason ?? ''
  return { ...found, allowingSources, sentence }
}

function denying(findings: Findings): Reasons {
  const { rbac, abac, rebac } = findings
  const reasons = [rbac, abac, rebac].flatMap((finding) => (finding ? [finding.reason] : []))
  return { ...findings, allowingSources: [], sentence: [...new Set(reasons)].join('; ') }
}

/** Once one decision may look no further, what the models would have said is of no worth. */
function withoutAnswers({ rbac, abac, rebac }: Findings): Findings {
  const tooLarge = { allowed: false, code: 'graph_too_large', reason: TOO_LARGE } as const
  return {
    rbac,
    abac: abac && { ...abac, ...tooLarge, allowingRules: [] },
    rebac: rebac && { ...rebac, ...tooLarge, allowingRoles: [] },
  }
}

/** The reason why no model was asked. */
function unasked(
  refusal: Exclude<Refusal, 'graph_too_large'> | undefined,
  { question, tenant, type }: Case,
): Reasons {
  const code = refusal ?? 'no_such_action'
  const reason = {
    no_such_resource: `there is no resource ${type.key}`,
    no_such_action: `${type.key} has no action ${question.action.name}`,
    user_inactive: `${question.user.key} is not active`,
    tenant_inactive: `${tenant?.key} is not active`,
  }[code]
  return denying({
    rbac: { allowed: false, code, reason, allowingRoles: [] },
    abac: undefined,
    rebac: undefined,
  })
}

function requestOf(
  asked: Case,
  facts: Facts,
  now: number,
  withInstanceRoles: boolean,
): Explanation['request'] {
  const { question, user, tenant, type } = asked
  const scope = new CaseScope(asked, facts, now, withInstanceRoles)
  const key = user?.key ?? question.user.key
  const instanceKey = scope.instance()?.key ?? keyOf(question)
  return {
    user: {
      key,
      isSynced: user !== null,
      attributes: {
        ...user?.attributes,
        ...question.user.attributes,
        key,
        roles: scope.read('user', 'roles'),
        tenants: scope.read('user', 'tenants'),
      },
    },
    tenant: tenant?.key ?? question.resource.tenant,
    action: question.action.name,
    resource: {
      type: type.key,
      key: instanceKey,
      attributes: {
        ...scope.instance()?.attributes,
        ...question.resource.attributes,
        type: type.key,
        ...(instanceKey !== undefined && { key: instanceKey }),
      },
    },
  }
}
