import { readFile } from 'node:fs/promises'
import t from 'tap'
import { generatedFiles } from '../../docs/generate.ts'
import { BUILTIN_RESOURCES, BUILTIN_ROLES } from '../../src/permissions.ts'

const read = async (path: string): Promise<string> =>
  await readFile(new URL(`../../${path}`, import.meta.url), 'utf8')

/** The rows of the first table after a heading of the README, cell by cell, without the head. */
async function tableBelow(heading: string): Promise<string[][]> {
  const [, below = ''] = (await read('README.md')).split(`\n## ${heading}\n`)
  const [table = ''] = /(^\|.*\n)+/m.exec(below) ?? []
  const [, , ...rows] = table.trimEnd().split('\n')
  return rows.map((row) =>
    row
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  )
}

const quoted = (cell = ''): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name)

t.test('the generated files say what the code says; otherwise "npm run docs" and commit', async (t) => {
  for (const [path, text] of await generatedFiles()) t.equal(await read(path), text, path)
})

t.test('the README says what each dependency is for', async (t) => {
  const { dependencies, optionalDependencies, peerDependencies } = JSON.parse(await read('package.json'))
  const told = (await tableBelow('Dependencies')).flatMap(([packages]) => quoted(packages))

  t.same(
    told.sort(),
    [
      ...Object.keys(dependencies),
      ...new Set(Object.keys(optionalDependencies).map((name) => name.replace(/\/.*/, '/*'))),
      ...Object.keys(peerDependencies),
    ].sort(),
  )
})

t.test('C.5 8.1.1: the README says what the built-in roles may do', async (t) => {
  const all = Object.entries(BUILTIN_RESOURCES).flatMap(([resource, { actions }]) =>
    actions.map((action) => `${resource}:${action}`),
  )
  const permissionsIn = (cell: string): string[] => {
    if (cell === 'everything') return all
    if (cell.startsWith('nothing')) return []
    return cell.split('; ').flatMap((part) => {
      const [resource, actions = ''] = part.split(': ')
      return actions.split(', ').map((action) => `postern.${resource}:${action}`)
    })
  }
  const told = (await tableBelow('Roles and their reach')).flatMap(([roles, reach = '', may = '']) =>
    quoted(roles).map((role) => [role, reach, permissionsIn(may).sort()]),
  )

  t.same(
    told.sort(),
    Object.entries(BUILTIN_ROLES)
      .map(([role, { reach, permissions }]) => [
        role,
        reach === 'any' ? 'every account' : 'own account',
        [...permissions].sort(),
      ])
      .sort(),
  )
})
