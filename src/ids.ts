import { v7, validate } from 'uuid'

/** A new UUIDv7 (RFC 9562 §5.7): sortable by time of creation, so that indexes grow at one end. */
export const newId = (): string => v7()

/**
 * The id of the `n`-th thing of a series: the same each time it is asked for. It sorts by `createdAt`, then by `n`.
 * @param random 16 bytes, of which 42 bits tell the series from others
 */
export const idInSeries = (createdAt: Date, n: number, random: Uint8Array): string =>
  v7({ msecs: createdAt.getTime(), seq: n, random })

/** Comes before every id: where paging by id begins. */
export const LOWEST_ID = '00000000-0000-0000-0000-000000000000'

/** True for the text form of a UUID of any version. */
export const isUuid = (text: string): boolean => validate(text)
