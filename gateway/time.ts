/** The one place where a node reads its clock. */
import { SteadyClock } from './clock.ts'

const monotonic = () => Number(process.hrtime.bigint() / 1_000_000n)

export const clock = new SteadyClock(() => Date.now(), monotonic)
/** Epoch milliseconds. */
export const { now } = clock
