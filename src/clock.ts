/** Tells the time. Passed in, so that a test can set it. */
export type Clock = { now(): Date }

/** The computer's own clock. */
export const systemClock: Clock = { now: () => new Date() }
