import { readFile, writeFile } from 'node:fs/promises'
import { stringify } from 'yaml'
import { StartupError } from '../errors.ts'
import type { Model } from '../model.ts'
import type { Change } from '../policy-file/diff.ts'
import { readPolicyFile } from '../policy-file/read.ts'
import { listTemplates, readTemplate } from '../policy-file/templates.ts'
import { readPolicyTests, type TestOutcome } from '../policy-file/tests.ts'
import { yamlOf } from '../policy-file/write.ts'
import { SYSTEM } from '../principal.ts'
import type { Services } from '../services.ts'
import { print } from '../terminal.ts'
import { columns, defineCommand } from './command.ts'
import { withSetUpServices } from './runtime.ts'

export const ENVIRONMENT = {
  environment: { value: 'PROJECT/KEY', description: 'The environment; default: default/default' },
} as const

export const DRY_RUN = { 'dry-run': { description: 'Only say what would change' } } as const

/** The model of the environment that an option names. @throws AppError environment_not_found */
export async function modelNamed(services: Services, environment: string | undefined): Promise<Model> {
  return services.modelOf(await services.environments.resolve(environment ?? 'default/default'))
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path === '-' ? '/dev/stdin' : path, 'utf8')
  } catch (error) {
    throw new StartupError(
      `Cannot read ${path}: ${error instanceof Error ? error.message : String(error)}.`,
      {
        cause: error,
      },
    )
  }
}

const MARKS = { add: '+', update: '~', delete: '-' } as const

/** Deletions come first, because they are what one regrets. */
export function printChanges(changes: readonly Change[]): void {
  const ofKind = (wanted: Change['change']) => changes.filter(({ change }) => change === wanted)
  for (const change of [...ofKind('delete'), ...ofKind('add'), ...ofKind('update')]) {
    print(`${MARKS[change.change]} ${change.kind.replaceAll('_', ' ')} ${change.name}`)
    if (change.change === 'update') print(indented(differenceOf(change)))
  }
  const count = (kind: Change['change']) => ofKind(kind).length
  print(
    changes.length === 0
      ? 'Nothing to change.'
      : `${count('delete')} to delete, ${count('add')} to add, ${count('update')} to change.`,
  )
}

/** The fields that differ, old and new. */
function differenceOf({ before, after }: Extract<Change, { change: 'update' }>): string {
  const fields = Object.keys(after).filter(
    (field) => JSON.stringify(before[field]) !== JSON.stringify(after[field]),
  )
  return fields
    .map((field) => `${field}: ${JSON.stringify(before[field])} -> ${JSON.stringify(after[field])}`)
    .join('\n')
}

const indented = (text: string): string => text.replaceAll(/^/gm, '    ')

export const policyExport = defineCommand({
  path: 'policy export',
  summary: 'Write the whole policy of an environment as one YAML file',
  flags: { ...ENVIRONMENT, output: { value: 'FILE', description: 'Where to; default: standard output' } },
  examples: ['postern policy export --output policy.yaml'],
  async run({ environment, output }) {
    await withSetUpServices(async (services) => {
      const text = yamlOf(await (await modelNamed(services, environment)).policyFile.read())
      if (output === undefined) print(text.trimEnd())
      else await writeFile(output, text)
    })
  },
})

export const policyDiff = defineCommand({
  path: 'policy diff',
  summary: 'Show what applying a policy file would change, deletions first',
  positionals: ['FILE'],
  flags: ENVIRONMENT,
  examples: ['postern policy diff policy.yaml'],
  async run({ environment }, [path = '']) {
    const file = readPolicyFile(await readText(path))
    await withSetUpServices(async (services) => {
      printChanges(await (await modelNamed(services, environment)).policyFile.diff(file))
    })
  },
})

export const policyApply = defineCommand({
  path: 'policy apply',
  summary: 'Make the policy of an environment what a file says',
  details: [
    'One transaction: everything or nothing, and the same file again changes nothing. What the file does not say',
    'is deleted. Facts in it (accounts, users, instances, relationships) are added or updated, never deleted.',
  ],
  positionals: ['FILE'],
  flags: { ...ENVIRONMENT, ...DRY_RUN },
  examples: ['postern policy apply policy.yaml', 'postern policy apply policy.yaml --dry-run'],
  async run({ environment, 'dry-run': dryRun }, [path = '']) {
    const file = readPolicyFile(await readText(path))
    await withSetUpServices(async (services) => {
      const { policyFile } = await modelNamed(services, environment)
      printChanges(dryRun ? await policyFile.diff(file) : await policyFile.apply(SYSTEM, file))
    })
  },
})

export const templateList = defineCommand({
  path: 'policy template list',
  summary: 'List the policies that come with Postern',
  flags: {},
  examples: ['postern policy template list'],
  async run() {
    for (const line of columns(listTemplates().map(({ name, description }) => [name, description] as const)))
      print(line)
  },
})

export const templateApply = defineCommand({
  path: 'policy template apply',
  summary: 'Lay a template over the policy of an environment',
  details: ['Nothing is deleted: what the template does not say stays as it is.'],
  positionals: ['NAME'],
  flags: { ...ENVIRONMENT, ...DRY_RUN },
  examples: ['postern policy template apply blog-rbac'],
  async run({ environment, 'dry-run': dryRun }, [name = '']) {
    const file = readTemplate(name)
    await withSetUpServices(async (services) => {
      const { policyFile } = await modelNamed(services, environment)
      printChanges(
        dryRun ? await policyFile.diff(file, 'additions') : await policyFile.apply(SYSTEM, file, 'additions'),
      )
    })
  },
})

export const policyTest = defineCommand({
  path: 'policy test',
  summary: 'Ask the questions of a file and compare the answers with those expected',
  details: [
    'The file holds a list `tests`, each with user, action, resource (`type` or `type:key`), expect (allow or',
    'deny) and, where needed, tenant, context and attributes. Exit code 1 when an answer differs.',
  ],
  positionals: ['FILE'],
  flags: ENVIRONMENT,
  examples: ['postern policy test policy.test.yaml'],
  async run({ environment }, [path = '']) {
    const tests = readPolicyTests(await readText(path))
    await withSetUpServices(async (services) => {
      const { decisions } = await modelNamed(services, environment)
      const answers = await decisions.checkMany(tests.map(({ question }) => question))
      const outcomes: TestOutcome[] = tests.map((test, index) => ({
        ...test,
        isAsExpected: answers[index]?.allowed === test.isAllowed,
      }))
      for (const { name, isAllowed, isAsExpected } of outcomes) {
        print(`${isAsExpected ? 'ok' : 'NOT OK'} ${name}: ${isAllowed ? 'allow' : 'deny'} expected`)
      }
      const failed = outcomes.filter(({ isAsExpected }) => !isAsExpected).length
      print(`${outcomes.length - failed} as expected, ${failed} not.`)
      if (failed > 0) throw new StartupError(`${failed} of ${outcomes.length} answers differ.`)
    })
  },
})

export const check = defineCommand({
  path: 'check',
  summary: 'Ask whether a user may do something',
  details: ['Prints ALLOWED or DENIED; the exit code is 0 for both.'],
  positionals: ['USER', 'ACTION', 'RESOURCE'],
  flags: {
    ...ENVIRONMENT,
    tenant: { value: 'KEY|ID', description: 'The account that it is about; default: default' },
    explain: { description: 'Say why' },
  },
  examples: ['postern check alice update Post:42 --explain'],
  async run({ environment, tenant = 'default', explain }, [user = '', action = '', resource = '']) {
    const colon = resource.indexOf(':')
    const question = {
      user: { key: user },
      action: { name: action },
      resource: {
        type: colon < 0 ? resource : resource.slice(0, colon),
        ...(colon >= 0 && { key: resource.slice(colon + 1) }),
        tenant,
      },
    }
    await withSetUpServices(async (services) => {
      const { decisions } = await modelNamed(services, environment)
      if (!explain) {
        print((await decisions.check(question)).allowed ? 'ALLOWED' : 'DENIED')
        return
      }
      const { sentence, decision, ...explanation } = await decisions.explain(question)
      print(`${decision.allowed ? 'ALLOWED' : 'DENIED'}: ${sentence}`)
      print(stringify(explanation).trimEnd())
    })
  },
})
