/**
 * How fast `connect` opens streams: well below what a gateway takes (docs/protocol.md section 8), so
 * that a tool which connects a thousand times at once waits its turn instead of losing its tunnel.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { TunnelRefused } from '#tunnel'

const AT_ONCE = 100
const PER_SECOND = 50
/** More than these do not wait. */
const MOST_WAITING = 1024

/** Turns are given in the order of asking. Times are monotonic milliseconds. */
export class Pace {
  /** When the allowance would be whole again; never before now. */
  #wholeAt = 0

  /** How long to wait for the next turn; undefined when too many wait already. */
  next(now: number): number | undefined {
    const each = 1000 / PER_SECOND
    const wholeAt = Math.max(now, this.#wholeAt) + each
    const waits = Math.max(0, wholeAt - now - AT_ONCE * each)
    if (waits > MOST_WAITING * each) return undefined
    this.#wholeAt = wholeAt
    return waits
  }
}

/** Resolves after so long. Rejects with TunnelRefused `open.aborted` when `signal` is aborted. */
export async function turn(ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0) return
  try {
    await sleep(ms, undefined, { signal })
  } catch {
    throw new TunnelRefused('open.aborted', 'the tool left before its turn came')
  }
}
