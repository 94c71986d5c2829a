import { v7, validate } from 'uuid'

/** A new UUIDv7 (RFC 9562 §5.7): sortable by time of creation, so that indexes grow at one end. */
export const newId = (): string => v7()

/** True for the text form of a UUID of any version. */
export const isUuid = (text: string): boolean => validate(text)
