import Type, { type Static } from 'typebox'
import {
  Attributes,
  Email,
  Key,
  Password,
  PersonName,
  PhoneNumber,
  Timestamp,
  UserKey,
} from '../http/schemas.ts'

const AccountName = Type.String({ minLength: 1, maxLength: 255 })
const RoleName = Type.String({ ...Key, description: 'Key or id' })

/** One person of an import, in the fields of a JSON line. Columns of a CSV file have the same names. */
export const ImportedUserSchema = Type.Object(
  {
    key: Type.Optional(UserKey),
    email: Type.Optional(Email),
    full_name: Type.Optional(PersonName),
    first_name: Type.Optional(PersonName),
    last_name: Type.Optional(PersonName),
    phone_number: Type.Optional(PhoneNumber),
    account: Type.Optional(AccountName),
    role: Type.Optional(RoleName),
    roles: Type.Optional(Type.Array(RoleName, { maxItems: 100, uniqueItems: true })),
    password_hash: Type.Optional(Type.String({ minLength: 1, maxLength: 1024 })),
    password: Type.Optional(Password),
    is_active: Type.Optional(Type.Boolean()),
    email_verified: Type.Optional(Type.Boolean()),
    must_change: Type.Optional(Type.Boolean()),
    attributes: Type.Optional(Attributes),
    created_at: Type.Optional(Timestamp),
  },
  { additionalProperties: false },
)

export type ImportedUser = Static<typeof ImportedUserSchema>

/** The names of the fields. */
export const IMPORT_FIELDS: readonly string[] = Object.keys(ImportedUserSchema.properties)

const BOOLEANS: Readonly<Record<string, boolean>> = {
  ...{ t: true, true: true, yes: true, y: true, '1': true },
  ...{ f: false, false: false, no: false, n: false, '0': false },
}
const BOOLEAN_FIELDS = new Set(['is_active', 'email_verified', 'must_change'])

/** The value of a CSV field, which is text by nature, as JSON has it; what cannot be read is left to the schema. */
export function valueOfText(field: string, text: string): unknown {
  if (BOOLEAN_FIELDS.has(field)) return BOOLEANS[text.toLowerCase()] ?? text
  if (field === 'roles') return text.split(/[;,\s]+/).filter((role) => role !== '')
  if (field === 'attributes') return parseJson(text) ?? text
  return field === 'created_at' ? timestampOf(text) : text
}

/** JSON, or `undefined` for what is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** A time as Postgres prints it (`2024-01-31 10:20:30.123456+00`), or without an offset in UTC, by RFC 3339. */
function timestampOf(text: string): string {
  const [, day, time, offset = 'Z'] =
    /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d(?::?\d\d)?)?$/i.exec(text.trim()) ?? []
  if (day === undefined || time === undefined) return text
  const digits = offset.replace(':', '')
  const zone = /^z$/i.test(offset) ? 'Z' : `${digits.slice(0, 3)}:${digits.slice(3) || '00'}`
  return `${day}T${time}${zone}`
}

/** A line of the source: what it says, or why it cannot be read. `line` counts from 1. */
export type SourceLine = { line: number; fields: Record<string, unknown> } | { line: number; fault: string }

/** A line of an import: a person, or why it is none. */
export type ImportLine = { line: number; record: ImportedUser } | { line: number; fault: string }

/**
 * The lines of a source as people.
 * @param faultsOf what is wrong with fields by `ImportedUserSchema`, in words
 */
export async function* readPeople(
  source: AsyncIterable<SourceLine>,
  faultsOf: (fields: Record<string, unknown>) => readonly string[],
): AsyncGenerator<ImportLine> {
  for await (const read of source) {
    if ('fault' in read) yield read
    else {
      const { line, fields } = read
      const faults = [...faultsOf(fields).map((fault) => fault.replace(/^\//, '')), ...crossFaults(fields)]
      // Right by the schema, which has just been asked.
      if (faults.length === 0) yield { line, record: fields as ImportedUser }
      else yield { line, fault: faults.join('; ') }
    }
  }
}

function crossFaults(fields: Record<string, unknown>): string[] {
  const has = (field: string): boolean => fields[field] !== undefined
  const unknown = Object.keys(fields).find((field) => !IMPORT_FIELDS.includes(field))
  return [
    ...(unknown === undefined ? [] : [`${JSON.stringify(unknown.slice(0, 64))} is no field`]),
    ...(has('key') || has('email') ? [] : ['has neither key nor email']),
    ...(has('password') && has('password_hash') ? ['has both password and password_hash'] : []),
    ...((has('password') || has('password_hash')) && !has('email') ? ['has a password and no email'] : []),
    ...(isStorable(fields) ? [] : ['holds a character that cannot be stored, such as U+0000']),
  ]
}

/** Postgres stores no U+0000 and no half of a surrogate pair; JSON writes both as escapes. */
const isStorable = (fields: Record<string, unknown>): boolean =>
  !/(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/.test(JSON.stringify(fields))
