import { pathToFileURL } from 'node:url'
import { report } from '../harness.ts'
import { POLICY_FILE, questionsOf, roleOf, userKey } from './rules.ts'

const USERS = 1000
const QUESTIONS = 500

const MODEL = `
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
`

type Enforcer = {
  enforce(...question: string[]): Promise<boolean>
  addPolicies(rules: string[][]): Promise<boolean>
  addGroupingPolicies(rules: string[][]): Promise<boolean>
}
type Casbin = { newModelFromString(text: string): unknown; newEnforcer(model: unknown): Promise<Enforcer> }

/** casbin in this process with the rules that Cerbos and Postern are given. */
export async function casbinInProcess(peers: string): Promise<void> {
  const casbin = (await import(pathToFileURL(`${peers}/casbin/lib/cjs/index.js`).href)) as Casbin
  const enforcer = await casbin.newEnforcer(casbin.newModelFromString(MODEL))
  await enforcer.addPolicies(
    Object.entries(POLICY_FILE.roles).flatMap(([role, { permissions }]) =>
      permissions.map((permission) => [role, ...permission.split(':')]),
    ),
  )
  await enforcer.addGroupingPolicies(
    Array.from({ length: USERS }, (_, place) => [userKey(place), roleOf(place)]),
  )
  const questions = questionsOf(QUESTIONS, USERS)
  const rounds: number[] = []
  for (let round = -1; round < 3; round++) {
    const begun = performance.now()
    for (const { user, type, action, isAllowed } of questions)
      if ((await enforcer.enforce(user, type, action)) !== isAllowed)
        throw new Error('casbin answered wrongly')
    if (round >= 0) rounds.push(((performance.now() - begun) * 1e6) / QUESTIONS)
  }
  report('casbin in process, decision by role, 1,000 assignments', rounds, 'ns')
}
