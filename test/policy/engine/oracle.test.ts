import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { compilePolicy } from '../../../src/policy/engine/compile.ts'
import { decide } from '../../../src/policy/engine/decide.ts'
import { explain } from '../../../src/policy/engine/explain.ts'
import type { Facts, InstanceFacts, TenantFacts, UserFacts } from '../../../src/policy/engine/model.ts'
import { createRecorder, type Missing } from '../../../src/policy/engine/recorder.ts'
import { document, question, questionAboutDoc, ruleAlone, world } from './arbitraries.ts'
import { factsOf, NOW } from './builders.ts'
import { oracle, oracleSources } from './oracle.ts'

const anyQuestion = fc.oneof(question, questionAboutDoc)

t.test('the engine decides as the rules say, for any policy, facts and question', async (t) => {
  const counts = new Map<string, number>()

  fc.assert(
    fc.property(document, world, question, (policy, stored, asked) => {
      const decision = decide(compilePolicy(policy), factsOf(stored), asked, NOW)

      const outcome = decision.source ?? decision.refusal ?? 'denied'
      counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
      assert.deepEqual(decision, oracle(policy, stored, asked, NOW))
    }),
    { numRuns: 3000 },
  )

  for (const outcome of ['rbac', 'abac', 'rebac', 'denied', 'user_inactive', 'tenant_inactive'])
    t.ok((counts.get(outcome) ?? 0) >= 40, `${outcome} came up ${counts.get(outcome)} times`)
})

t.test('rules are judged as they say, for any conditions', async (t) => {
  let allowed = 0

  fc.assert(
    fc.property(ruleAlone, world, questionAboutDoc, (policy, stored, asked) => {
      const decision = decide(compilePolicy(policy), factsOf(stored), asked, NOW)

      if (decision.source === 'abac') allowed++
      assert.deepEqual(decision, oracle(policy, stored, asked, NOW))
    }),
    { numRuns: 3000 },
  )

  t.ok(allowed >= 300, `${allowed} were allowed`)
})

t.test('an explanation decides as the engine does, and names every model that allows', async () => {
  fc.assert(
    fc.property(fc.oneof(document, ruleAlone), world, anyQuestion, (policy, stored, asked) => {
      const compiled = compilePolicy(policy)
      const facts = factsOf(stored)
      const { decision, allowingSources, rbac, abac, rebac, sentence } = explain(compiled, facts, asked, NOW)

      assert.deepEqual(decision, decide(compiled, facts, asked, NOW))
      assert.deepEqual(allowingSources, oracleSources(policy, stored, asked, NOW))
      assert.equal(decision.source, allowingSources[0])
      for (const finding of [rbac, abac, rebac])
        assert.equal(finding?.allowed ?? decision.allowed, decision.allowed)
      assert.ok(sentence.length > 0)
    }),
    { numRuns: 1500 },
  )
})

t.test('in which order policy and facts were loaded does not matter', async () => {
  const shuffled = <T>(list: readonly T[]) => fc.shuffledSubarray([...list], { minLength: list.length })
  const cases = fc.tuple(document, world).chain(([policy, stored]) =>
    fc.record({
      policy: fc.constant(policy),
      stored: fc.constant(stored),
      otherPolicy: fc.record({
        resources: fc
          .tuple(
            ...policy.resources.map((resource) =>
              fc.record({
                key: fc.constant(resource.key),
                actions: shuffled(resource.actions),
                relations: shuffled(resource.relations),
                roles: shuffled(resource.roles),
              }),
            ),
          )
          .chain(shuffled),
        roles: shuffled(policy.roles),
        userSets: shuffled(policy.userSets),
        resourceSets: shuffled(policy.resourceSets),
        rules: shuffled(policy.rules),
      }),
      otherStored: fc.record({
        users: shuffled(stored.users),
        tenants: shuffled(stored.tenants),
        instances: fc
          .tuple(
            ...stored.instances.map(({ subjects, ...instance }) =>
              fc.record({
                instance: fc.constant(instance),
                subjects: fc.tuple(
                  ...[...subjects].map(([relation, names]) =>
                    fc.tuple(fc.constant(relation), shuffled(names)),
                  ),
                ),
              }),
            ),
          )
          .map((all) =>
            all.map(
              ({ instance, subjects }): InstanceFacts => ({ ...instance, subjects: new Map(subjects) }),
            ),
          )
          .chain(shuffled),
      }),
    }),
  )

  fc.assert(
    fc.property(cases, question, ({ policy, stored, otherPolicy, otherStored }, asked) => {
      assert.deepEqual(
        decide(compilePolicy(otherPolicy), factsOf(otherStored), asked, NOW),
        decide(compilePolicy(policy), factsOf(stored), asked, NOW),
      )
    }),
    { numRuns: 700 },
  )
})

/** Facts of which nothing is loaded until `load` is told to. */
function lazyFacts(all: Facts) {
  const users = new Map<string, UserFacts | null | undefined>()
  const tenants = new Map<string, TenantFacts | null | undefined>()
  const instances = new Map<string, InstanceFacts | null | undefined>()
  const facts: Facts = {
    user: (ref) => users.get(ref),
    tenant: (ref) => tenants.get(ref),
    instance: (ref) => instances.get(ref),
  }
  return {
    facts,
    load(missing: Missing): void {
      for (const ref of missing.users) users.set(ref, all.user(ref))
      for (const ref of missing.tenants) tenants.set(ref, all.tenant(ref))
      for (const ref of missing.instances) instances.set(ref, all.instance(ref))
    },
  }
}

const firstOf = ({ users, tenants, instances }: Missing): Missing => {
  const [user] = users
  const [tenant] = tenants
  const [instance] = instances
  const only = (name: string | undefined) => new Set(name === undefined ? [] : [name])
  return { users: only(user), tenants: only(tenant), instances: only(instance) }
}

for (const { how, select } of [
  { how: 'all at once', select: (missing: Missing) => missing },
  { how: 'one by one', select: firstOf },
]) {
  t.test(
    `what is missing is asked for until the decision is that over all facts, loaded ${how}`,
    async () => {
      fc.assert(
        fc.property(fc.oneof(document, ruleAlone), world, anyQuestion, (policy, stored, asked) => {
          const compiled = compilePolicy(policy)
          const all = factsOf(stored)
          const expected = explain(compiled, all, asked, NOW)
          const lazy = lazyFacts(all)

          for (let round = 0; ; round++) {
            assert.ok(round < 20)
            const recorder = createRecorder(lazy.facts)
            const decision = decide(compiled, recorder.facts, asked, NOW)
            // Whoever forgets to look at what was missing has still let nobody in.
            assert.ok(expected.decision.allowed || !decision.allowed)
            if (recorder.isComplete()) {
              assert.deepEqual(decision, expected.decision)
              break
            }
            lazy.load(select(recorder.missing))
          }
          for (let recorder = createRecorder(lazy.facts); ; recorder = createRecorder(lazy.facts)) {
            const explanation = explain(compiled, recorder.facts, asked, NOW)
            if (recorder.isComplete()) {
              assert.deepEqual(explanation, expected)
              break
            }
            lazy.load(select(recorder.missing))
          }
        }),
        { numRuns: 1000 },
      )
    },
  )
}
