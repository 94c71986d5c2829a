import { and, asc, desc, type Placeholder, type SQL, sql } from 'drizzle-orm'
import type { PgColumn } from 'drizzle-orm/pg-core'
import { AppError } from '../errors.ts'
import { readPageToken, writePageToken } from '../page-tokens.ts'

/** Where a page begins and how it is ordered. `after` is the cursor of the page before; it goes with no `skip`. */
export type PageRequest = { limit: number; skip: number; sort: string; after?: string; total?: boolean }

/** One page. `next` is the cursor of the page after it, absent on the last; `total` only when it was asked for. */
export type Page<T> = { items: T[]; next?: string; total?: number }

/** A column that a list can be sorted by: the SQL that its index holds, and how a row's value is read. */
export type SortKey<Row> = { by: SQL | PgColumn; cast: string; value: (row: Row) => string }

type Cursor = [sort: string, value: string, id: string]

/** Where a page begins, for a statement that was prepared with placeholders in its place. */
export type PageValues = { cursorValue: string | undefined; cursorId: string | undefined; skip: number }

/**
 * The clauses of one page of a list with a stable order: the sort key, then the id. `sort` is a name from
 * `keys`, with `-` before it for descending. One row more than `limit` is read, to know whether a page follows.
 * @throws AppError validation_failed when the cursor is not one of this list in this order
 */
export function pageClauses<Row extends { id: string }>(
  request: PageRequest,
  keys: Record<string, SortKey<Row>>,
  id: PgColumn,
): {
  where: SQL | undefined
  orderBy: SQL[]
  limit: number
  offset: number
  toPage: (rows: Row[]) => Page<Row>
  /** The same clauses for all pages of this order and size, with placeholders for `values`. */
  prepared: () => { where: SQL | undefined; values: PageValues; shape: string }
} {
  const isDescending = request.sort.startsWith('-')
  const key = keys[isDescending ? request.sort.slice(1) : request.sort]
  if (!key) throw new Error(`no sort key ${request.sort}`)
  const direction = isDescending ? desc : asc
  const isById = key.by === id
  const cursor = request.after === undefined ? undefined : readCursor(request.after, request.sort, key.cast)

  return {
    where: cursor && afterCursor(cursor, key, id, isDescending, isById),
    prepared: () => ({
      where:
        cursor &&
        afterCursor(
          [request.sort, sql.placeholder('cursorValue'), sql.placeholder('cursorId')],
          key,
          id,
          isDescending,
          isById,
        ),
      values: { cursorValue: cursor?.[1], cursorId: cursor?.[2], skip: request.skip },
      shape: `${request.sort}_${request.limit}${cursor ? '_after' : ''}${request.skip > 0 ? '_skip' : ''}`,
    }),
    orderBy: isById ? [direction(id)] : [direction(key.by), direction(id)],
    limit: request.limit + 1,
    offset: request.skip,
    toPage(rows) {
      const items = rows.slice(0, request.limit)
      const last = items.at(-1)
      if (rows.length <= request.limit || !last) return { items }
      return { items, next: writeCursor([request.sort, key.value(last), last.id]) }
    },
  }
}

function afterCursor(
  [, value, id]: Cursor | [sort: string, value: Placeholder, id: Placeholder],
  key: SortKey<never>,
  idColumn: PgColumn,
  isDescending: boolean,
  isById: boolean,
): SQL {
  const than = sql.raw(isDescending ? '<' : '>')
  if (isById) return sql`${idColumn} ${than} ${id}::uuid`
  return sql`(${key.by}, ${idColumn}) ${than} (${value}::${sql.raw(key.cast)}, ${id}::uuid)`
}

const writeCursor = (cursor: Cursor): string => writePageToken(cursor)

function readCursor(text: string, sort: string, cast: string): Cursor {
  const cursor = readPageToken(text)
  if (isCursor(cursor) && cursor[0] === sort && (cast !== 'timestamptz' || isInstant(cursor[1])))
    return cursor
  throw new AppError('validation_failed', {
    errors: [{ pointer: '/query/after', detail: 'must be the cursor of the page before, in the same order' }],
  })
}

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/

function isCursor(value: unknown): value is Cursor {
  if (!Array.isArray(value) || value.length !== 3) return false
  if (!value.every((part) => typeof part === 'string' && !part.includes('\0'))) return false
  return UUID.test(String(value[2]))
}

/** A time as `writeCursor` writes it; other texts that JavaScript reads as one may be none to Postgres. */
function isInstant(text: string): boolean {
  const time = new Date(text)
  return /^(?!0000)\d{4}-/.test(text) && !Number.isNaN(time.getTime()) && time.toISOString() === text
}

/** `text` as a LIKE pattern that finds it anywhere, its own wildcards taken literally. */
export const containing = (text: string): string =>
  `%${text.replaceAll(/[\\%_]/g, (wildcard) => `\\${wildcard}`)}%`

/** Conditions joined by AND, the absent ones left out. */
export const allOf = (...conditions: (SQL | undefined)[]): SQL | undefined => and(...conditions)
