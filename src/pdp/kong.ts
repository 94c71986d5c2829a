import { readFileSync } from 'node:fs'
import { AppError, StartupError } from '../errors.ts'
import { isObject } from '../policy/engine/equality.ts'
import type { Question } from '../policy/engine/model.ts'
import { compileExpression, isRelative, LONGEST_URL } from '../policy/url-mapping.ts'

/** Which resource a path is; `undefined`: none. */
export type KongRoutes = (path: string) => string | undefined

/** The account that all of Kong's questions are about, as with Permit's PDP. */
const TENANT = 'default'

/**
 * Reads the table of Kong's routes as a PDP of Permit has it: pairs of an expression in RE2's syntax, anchored at the
 * start, and a resource, or the place (from 0) of the group that holds its key. The first that fits counts.
 * @throws StartupError
 */
export function readKongRoutes(file: string): KongRoutes {
  const rows = readTable(file).map((row, place) => {
    const [expression, resource, ...more] = Array.isArray(row) ? row : []
    const compiled = typeof expression === 'string' ? compileExpression(expression) : undefined
    const isName = typeof resource === 'string' && resource !== ''
    const isGroup = typeof resource === 'number' && compiled && isPlace(resource, compiled.groupCount())
    if (!compiled || more.length > 0 || !(isName || isGroup))
      throw new StartupError(
        `PDP_KONG_ROUTES: row ${place + 1} of ${file} must be an expression, and a resource or the place of a group`,
      )
    return { compiled, resource }
  })
  return (path) => {
    if (path.length > LONGEST_URL || isRelative(path)) return undefined
    for (const { compiled, resource } of rows) {
      const match = compiled.matcher(path)
      if (!match.lookingAt()) continue
      return typeof resource === 'number' ? (match.group(resource + 1) ?? undefined) : String(resource)
    }
    return undefined
  }
}

const isPlace = (place: number, groups: number): boolean =>
  Number.isInteger(place) && place >= 0 && place < groups

function readTable(file: string): unknown[] {
  try {
    const read: unknown = JSON.parse(readFileSync(file, 'utf8'))
    if (Array.isArray(read)) return read
  } catch {
    throw new StartupError(`PDP_KONG_ROUTES names a file that cannot be read as JSON: ${file}`)
  }
  throw new StartupError(`PDP_KONG_ROUTES: ${file} must hold a list`)
}

/**
 * What Kong's OPA plugin asks: may the consumer use this method on this path? `undefined` when it names no consumer, or
 * a path that is no resource.
 * @throws AppError validation_failed
 */
export function questionOfKong(body: unknown, routes: KongRoutes): Question | undefined {
  const input = fieldOf(body, 'input')
  const consumer = fieldOf(input, 'consumer')
  const http = fieldOf(fieldOf(input, 'request'), 'http')
  const [method, path] = [fieldOf(http, 'method'), fieldOf(http, 'path')]
  if (typeof method !== 'string' || typeof path !== 'string')
    throw new AppError('validation_failed', {
      errors: [{ pointer: '/body/input/request/http', detail: 'must have a method and a path' }],
    })
  const username = fieldOf(consumer, 'username')
  const type = routes(path)
  if (typeof username !== 'string' || username === '' || type === undefined || type === '') return undefined
  return {
    user: { key: username },
    action: { name: method.toLowerCase() },
    resource: { type, tenant: TENANT },
    context: undefined,
  }
}

const fieldOf = (value: unknown, name: string): unknown => (isObject(value) ? value[name] : undefined)
