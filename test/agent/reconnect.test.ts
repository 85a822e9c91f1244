/** How long an agent waits: after a failure, after GOAWAY, and on a line that says nothing. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Monotonic } from '#tunnel'
import { patienceAfter } from '../../agent-tunnel/agent/patience.ts'
import {
  FIRST_BACKOFF_MS,
  LONGEST_BACKOFF_MS,
  LONGEST_RETRY_AFTER_MS,
  STABLE_MS,
  after,
  fresh,
} from '../../agent-tunnel/agent/reconnect.ts'
import type { Standing } from '../../agent-tunnel/agent/reconnect.ts'

test.for([
  ['lost while nothing was tried', { code: 'peer.lost', survivedMs: 20_000, triedMs: 0 }, 240_000],
  ['lost after a plain silence', { code: 'peer.silent', survivedMs: 0, triedMs: 22_000 }, 240_000],
  [
    'lost after a longer silence than ever',
    { code: 'peer.silent', survivedMs: 96_000, triedMs: 118_000 },
    96_000,
  ],
  [
    'lost in the first stretched one',
    { code: 'carrier.failed', survivedMs: 20_000, triedMs: 26_000 },
    25_000,
  ],
  [
    'ended by the gateway',
    { code: 'tunnel.replaced', survivedMs: 96_000, triedMs: 118_000 },
    240_000,
  ],
] as const)('patience after a tunnel %s', ([, ended, next]) => {
  expect(patienceAfter(240_000, ended)).toBe(next)
})

describe('reconnecting', () => {
  const at = (ms: number) => ms as Monotonic

  test('failures double the span up to its longest; the wait is drawn from the whole span', () => {
    let standing: Standing = fresh
    const spans: number[] = []
    for (let round = 0; round < 9; round++) {
      const low = after(standing, { type: 'failed' }, at(0), () => 0)
      const high = after(standing, { type: 'failed' }, at(0), () => 1)
      expect(low.waitMs).toBe(0)
      spans.push(high.waitMs)
      standing = high.standing
    }
    expect(spans).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60].map((seconds) => seconds * 1000))
    expect(spans[0]).toBe(FIRST_BACKOFF_MS)
    expect(spans.at(-1)).toBe(LONGEST_BACKOFF_MS)
  })

  test('a tunnel that lasted makes the next failure a first one; one that did not, does not', () => {
    const tried: Standing = { failures: 5, upSince: undefined }
    const up = after(tried, { type: 'up' }, at(1000), () => 1).standing
    expect(after(up, { type: 'lost' }, at(1000 + STABLE_MS), () => 1).waitMs).toBe(FIRST_BACKOFF_MS)
    expect(after(up, { type: 'lost' }, at(1000 + STABLE_MS - 1), () => 1).waitMs).toBe(32_000)
  })

  test('GOAWAY is obeyed, on top of the jitter, within a bound; being sent away again and again slows down', () => {
    expect(after(fresh, { type: 'goaway', retryAfterMs: 5000 }, at(0), () => 0).waitMs).toBe(5000)
    expect(after(fresh, { type: 'goaway', retryAfterMs: 1e12 }, at(0), () => 0).waitMs).toBe(
      LONGEST_RETRY_AFTER_MS,
    )
    expect(after(fresh, { type: 'goaway', retryAfterMs: -5 }, at(0), () => 0).waitMs).toBe(0)
    let standing: Standing = fresh
    let waitMs = 0
    for (let round = 0; round < 8; round++) {
      standing = after(standing, { type: 'up' }, at(round), () => 1).standing
      ;({ standing, waitMs } = after(
        standing,
        { type: 'goaway', retryAfterMs: 0 },
        at(round),
        () => 1,
      ))
    }
    expect(waitMs).toBe(LONGEST_BACKOFF_MS)
  })

  test('no wait is negative or longer than both bounds together, whatever happens', () => {
    const happening = fc.oneof(
      fc.constant({ type: 'failed' } as const),
      fc.constant({ type: 'lost' } as const),
      fc.constant({ type: 'up' } as const),
      fc.record({ type: fc.constant('goaway' as const), retryAfterMs: fc.double({ noNaN: true }) }),
    )
    fc.assert(
      fc.property(
        fc.array(happening, { maxLength: 40 }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (story, random) => {
          let standing: Standing = fresh
          for (const [time, one] of story.entries()) {
            const next = after(standing, one, at(time * 10_000), () => random)
            standing = next.standing
            expect(next.waitMs).toBeGreaterThanOrEqual(0)
            expect(next.waitMs).toBeLessThanOrEqual(LONGEST_RETRY_AFTER_MS + LONGEST_BACKOFF_MS)
          }
        },
      ),
    )
  })
})
