import { AppError } from '../errors.ts'
import { APPLICATION_KEY } from '../permissions.ts'

const pattern = new RegExp(APPLICATION_KEY)

/** Refuses a key that only built-in definitions may have, or none. @throws AppError validation_failed */
export function assertApplicationKey(key: string, pointer: string): void {
  if (pattern.test(key) && key.length <= 128) return
  throw new AppError('validation_failed', {
    errors: [{ pointer, detail: 'must be 1 to 128 letters, digits, _ and -' }],
  })
}
