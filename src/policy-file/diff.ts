import { isDeepStrictEqual } from 'node:util'
import { type PolicyRecord, RECORD_KINDS, type RecordKind } from './records.ts'

/** What applying a file would do to one definition. */
export type Change =
  | { change: 'add'; kind: RecordKind; name: string; after: PolicyRecord['value'] }
  | {
      change: 'update'
      kind: RecordKind
      name: string
      before: PolicyRecord['value']
      after: PolicyRecord['value']
    }
  | { change: 'delete'; kind: RecordKind; name: string; before: PolicyRecord['value'] }

/** The changes that lead from `current` to `wanted`: additions and updates in the order of kinds, deletions last. */
export function diffOf(current: readonly PolicyRecord[], wanted: readonly PolicyRecord[]): Change[] {
  const idOf = ({ kind, name }: PolicyRecord) => `${kind} ${name}`
  const before = new Map(current.map((record) => [idOf(record), record]))
  const after = new Map(wanted.map((record) => [idOf(record), record]))
  const changes: Change[] = []
  for (const { kind, name, value } of ordered(wanted)) {
    const known = before.get(`${kind} ${name}`)
    if (!known) changes.push({ change: 'add', kind, name, after: value })
    else if (!isDeepStrictEqual(known.value, value))
      changes.push({ change: 'update', kind, name, before: known.value, after: value })
  }
  for (const record of ordered(current).reverse()) {
    if (!after.has(idOf(record)))
      changes.push({ change: 'delete', kind: record.kind, name: record.name, before: record.value })
  }
  return changes
}

function ordered(records: readonly PolicyRecord[]): PolicyRecord[] {
  const place = (kind: RecordKind) => RECORD_KINDS.indexOf(kind)
  return [...records].sort((a, b) => place(a.kind) - place(b.kind) || (a.name < b.name ? -1 : 1))
}
