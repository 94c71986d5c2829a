import { AppError, type FieldError, type ProblemCode } from './errors.ts'

/** What is wrong with one place of a request. */
export type Fault = FieldError & { code: ProblemCode }

const MOST_FAULTS = 50

/**
 * Refuses with the first of the faults, and names up to 50 of its kind; nothing when there is none.
 * @param detailOf the sentence of the problem, where its title does not say enough
 */
export function throwFirst(
  faults: readonly Fault[],
  detailOf: (first: Fault) => string | undefined = () => undefined,
): void {
  const [first] = faults
  if (!first) return
  const detail = detailOf(first)
  throw new AppError(first.code, {
    ...(detail !== undefined && { detail }),
    errors: faults
      .filter(({ code }) => code === first.code)
      .slice(0, MOST_FAULTS)
      .map(({ pointer, detail: said }) => ({ pointer, detail: said })),
  })
}
