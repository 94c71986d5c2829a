import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, type Server, startServer } from '../harness.ts'
import { type ACTIONS, ROLES, TYPES } from './rules.ts'

/** Starts Cerbos with the same roles, one policy per resource, on the first core. */
export async function startCerbos(peers: string): Promise<Server> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-bench-cerbos-'))
  for (const type of TYPES) await writeFile(join(folder, `${type}.yaml`), policyOf(type))
  const [http, grpc] = [await freePort(), await freePort()]
  const config = join(await mkdtemp(join(tmpdir(), 'postern-bench-cerbos-')), 'config.yaml')
  await writeFile(
    config,
    [
      'server:',
      `  httpListenAddr: "127.0.0.1:${http}"`,
      `  grpcListenAddr: "127.0.0.1:${grpc}"`,
      '  logRequestPayloads: false',
      '  requestLimits:',
      '    maxResourcesPerRequest: 500',
      'telemetry:',
      '  disabled: true',
      'audit:',
      '  enabled: false',
      'storage:',
      '  driver: disk',
      '  disk:',
      `    directory: ${folder}`,
      '    watchForChanges: false',
    ].join('\n'),
  )
  const name = `cerbos-${process.platform}-${process.arch}`
  const binary = join(peers, '@cerbos', name, name)
  return await startServer(http, '/_cerbos/health', [binary, 'server', `--config=${config}`], true, {
    GOMAXPROCS: '1',
  })
}

function policyOf(type: string): string {
  const rules = Object.entries(ROLES).flatMap(([role, actions]) => [
    `    - actions: [${actions.map((action) => `"${action}"`).join(', ')}]`,
    '      effect: EFFECT_ALLOW',
    `      roles: ["${role}"]`,
  ])
  return [
    'apiVersion: api.cerbos.dev/v1',
    'resourcePolicy:',
    '  version: default',
    `  resource: ${type}`,
    '  rules:',
    ...rules,
  ].join('\n')
}

/** The body of a request to Cerbos for these questions. */
export const cerbosBody = (
  questions: readonly { user: string; role: string; type: string; action: (typeof ACTIONS)[number] }[],
): string => {
  const [first] = questions
  return JSON.stringify({
    requestId: 'bench',
    principal: { id: first?.user, roles: [first?.role], attr: {} },
    resources: questions.map(({ type, action }, index) => ({
      actions: [action],
      resource: { kind: type, id: String(index), attr: {} },
    })),
  })
}
