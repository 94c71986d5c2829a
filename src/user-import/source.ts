import { pipeline, type Readable } from 'node:stream'
import { type CsvError, type Info, parse } from 'csv-parse'
import { StartupError } from '../errors.ts'
import { IMPORT_FIELDS, parseJson, type SourceLine, valueOfText } from './records.ts'

/** Which field a column of the source is; null: one to leave out. Columns that are not named here have the field's name. */
export type ColumnNames = ReadonlyMap<string, string | null>

const MAX_LINE_BYTES = 1_048_576
const TOO_LONG = `is longer than ${MAX_LINE_BYTES} bytes`
const NOT_UTF8 = 'is not in UTF-8'

/**
 * The people of a CSV file, whose first line names the columns; separated by commas, quoted as RFC 4180 has it. An
 * empty field is one that is not given.
 * @throws StartupError for a header with a column that is no field
 */
export async function* readCsv(input: Readable, columns: ColumnNames): AsyncGenerator<SourceLine> {
  const unreadable: SourceLine[] = []
  const parser = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    skip_empty_lines: true,
    skip_records_with_error: true,
    max_record_size: MAX_LINE_BYTES,
    on_skip: (error) => {
      unreadable.push({ line: Number(error?.['lines'] ?? 0), fault: faultOf(error) })
      return undefined
    },
  })
  // What goes wrong with the input ends the parser, and with it the loop below.
  pipeline(input, parser, () => {})

  let header: (string | null)[] | undefined
  for await (const { record, info } of parser as AsyncIterable<{ record: string[]; info: Info }>) {
    const line = info.lines - record.reduce((sum, text) => sum + text.split('\n').length - 1, 0)
    // The parser is some lines ahead.
    while ((unreadable[0]?.line ?? line) < line) yield* unreadable.splice(0, 1)
    if (!header) {
      header = fieldsOf(record, columns)
      continue
    }
    if (record.length !== header.length) {
      yield { line, fault: `has ${record.length} fields instead of ${header.length}` }
      continue
    }
    const given = header.flatMap((field, place) => {
      const text = record[place] ?? ''
      return field === null || text === '' ? [] : [[field, valueOfText(field, text)] as const]
    })
    yield checked(line, Object.fromEntries(given))
  }
  yield* unreadable
  if (!header) throw new StartupError('The file is empty: its first line must name the columns.')
}

function faultOf(error: CsvError | undefined): string {
  switch (error?.code) {
    case 'CSV_MAX_RECORD_SIZE':
      return TOO_LONG
    case 'CSV_QUOTE_NOT_CLOSED':
      return 'has a quote that is not closed, or not where it should be; lines after it may belong to it'
    default:
      return 'is not quoted as CSV'
  }
}

/** @throws StartupError */
function fieldsOf(names: readonly string[], columns: ColumnNames): (string | null)[] {
  const fields = names.map((name) => {
    const field = columns.get(name.trim()) ?? (columns.has(name.trim()) ? null : name.trim())
    if (field === null || IMPORT_FIELDS.includes(field)) return field
    throw new StartupError(
      `The column ${JSON.stringify(name)} is not known. With --columns '${name}=key' it is the key, with --columns '${name}=' it is left out; the fields are ${IMPORT_FIELDS.join(', ')}.`,
    )
  })
  const twice = fields.find((field, place) => field !== null && fields.indexOf(field) !== place)
  if (twice !== undefined) throw new StartupError(`Two columns are the field ${twice}.`)
  return fields
}

/** The people of a file with one JSON object in each line. A field that is null is one that is not given. */
export async function* readJsonLines(input: Readable, columns: ColumnNames): AsyncGenerator<SourceLine> {
  let line = 0
  for await (const text of linesOf(input)) {
    line++
    const json = line === 1 ? text?.replace(/^\uFEFF/, '') : text
    if (json == null) yield { line, fault: TOO_LONG }
    else if (json.trim() !== '') yield recordOf(line, json, columns)
  }
}

function recordOf(line: number, text: string, columns: ColumnNames): SourceLine {
  const value = parseJson(text)
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { line, fault: 'is no JSON object' }
  const given = Object.entries(value).flatMap(([name, one]) => {
    const field = columns.has(name) ? columns.get(name) : name
    return one === null || field == null ? [] : [[field, one] as const]
  })
  return checked(line, Object.fromEntries(given))
}

/** Text line by line, null for one that is too long, without holding more than one. */
async function* linesOf(input: Readable): AsyncGenerator<string | null> {
  input.setEncoding('utf8')
  let rest = ''
  let isTooLong = false
  for await (const chunk of input as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      yield isTooLong ? null : line
      isTooLong = false
    }
    if (rest.length > MAX_LINE_BYTES) {
      isTooLong = true
      rest = ''
    }
  }
  if (isTooLong || rest !== '') yield isTooLong ? null : rest
}

/** Bytes that are not UTF-8 were read as this; nobody's name or email has it. */
const REPLACEMENT = '\uFFFD'

const checked = (line: number, fields: Record<string, unknown>): SourceLine =>
  JSON.stringify(fields).includes(REPLACEMENT) ? { line, fault: NOT_UTF8 } : { line, fields }
