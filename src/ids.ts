import { v7, validate } from 'uuid'

/** A new UUIDv7 (RFC 9562 §5.7): sortable by time of creation, so that indexes grow at one end. */
export const newId = (): string => v7()

/** A new id of something that was made at that time, elsewhere. */
export const newIdAt = (createdAt: Date): string => v7({ msecs: createdAt.getTime() })

/** Comes before every id: where paging by id begins. */
export const LOWEST_ID = '00000000-0000-0000-0000-000000000000'

/** True for the text form of a UUID of any version. */
export const isUuid = (text: string): boolean => validate(text)
