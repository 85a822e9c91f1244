/** What the sessions of one grant may carry: never a byte too many, whatever comes at once, and whatever a crash forgets. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Grant } from '../../../gateway/grants/grant.ts'
import {
  Allotment,
  Allotments,
  portionOf,
  type Share,
} from '../../../gateway/sessions/allotment.ts'

const grant = { statement: { id: 'g_1' } } as unknown as Grant

/** A store that holds one number, and answers when the test says so. */
class Counter {
  bytes = 0
  readonly most: number
  readonly waiting: (() => void)[] = []
  broken = false
  constructor(most: number) {
    this.most = most
  }
  readonly takeBytes = async (_id: string, wanted: number): Promise<number> => {
    await new Promise<void>((resolve) => this.waiting.push(resolve))
    if (this.broken) throw new Error('the disk is gone')
    const taken = Math.min(wanted, this.most - this.bytes)
    this.bytes += taken
    return taken
  }
  readonly returnBytes = (_id: string, unused: number): Promise<void> => {
    this.bytes -= unused
    return Promise.resolve()
  }
  /** Answers everything that was asked so far, and lets what follows from it happen. */
  async answer(): Promise<void> {
    for (const resolve of this.waiting.splice(0)) resolve()
    for (let turn = 0; turn < 8; turn++) await Promise.resolve()
  }
}

async function shareOf(all: Allotments, store: Counter, portion: number) {
  const asked = all.share(grant, portion)
  await store.answer()
  return await asked
}
const silent = () => undefined

describe('one session', () => {
  test('carries to the last byte, and not one more', async () => {
    const store = new Counter(100)
    const share = await shareOf(new Allotments(store, silent), store, 1000)
    expect([share?.carry(60), share?.carry(41), share?.carry(40), share?.carry(1)]).toEqual([
      'carried',
      'spent',
      'carried',
      'spent',
    ])
  })
  test('nothing is left: it gets no share', async () => {
    const store = new Counter(0)
    expect(await shareOf(new Allotments(store, silent), store, 1000)).toBeUndefined()
  })
  test('more is set aside before half a portion is gone', async () => {
    const store = new Counter(1000)
    const share = await shareOf(new Allotments(store, silent), store, 100)
    expect([share?.carry(50), store.waiting.length]).toEqual(['carried', 0])
    expect([share?.carry(1), store.waiting.length]).toEqual(['carried', 1])
    // Asked for once, however many pass meanwhile.
    expect([share?.carry(1), store.waiting.length]).toEqual(['carried', 1])
    await store.answer()
    expect([store.bytes, share?.carry(148)]).toEqual([200, 'carried'])
  })
  test('the store is behind: what is not set aside does not pass', async () => {
    const store = new Counter(1000)
    const share = await shareOf(new Allotments(store, silent), store, 100)
    expect([share?.carry(90), share?.carry(11)]).toEqual(['carried', 'behind'])
    await store.answer()
    expect(share?.carry(11)).toBe('carried')
  })
  test('the store fails: it is told, what was set aside passes, and no more', async () => {
    const store = new Counter(1000)
    const told: string[] = []
    const share = await shareOf(new Allotments(store, (_, what) => told.push(what)), store, 100)
    store.broken = true
    share?.carry(90)
    await store.answer()
    expect(told).toEqual(['what grant g_1 may carry could not be set aside'])
    expect([share?.carry(10), share?.carry(1)]).toEqual(['carried', 'behind'])
  })
  test('the store fails again and again: it is asked after a while, each time after twice as long, and told of once', async () => {
    const store = new Counter(1000)
    const told: string[] = []
    let now = 0
    const report = (_: unknown, what: string) => told.push(what)
    const share = await shareOf(new Allotments(store, report, () => now), store, 100)
    store.broken = true
    share?.carry(60)
    await store.answer()
    const asked: number[] = []
    for (now = 0; now <= 8000; now += 250) {
      share?.carry(0)
      if (store.waiting.length > 0) asked.push(now)
      await store.answer()
    }
    expect([asked, told.length]).toEqual([[1000, 3000, 7000], 1])
    store.broken = false
    now = 15_000
    share?.carry(0)
    await store.answer()
    expect(share?.carry(140)).toBe('carried')
  })
  test('what was set aside while it left goes back', async () => {
    const store = new Counter(1000)
    const all = new Allotments(store, silent)
    const share = await shareOf(all, store, 100)
    share?.carry(90)
    await share?.leave()
    await store.answer()
    expect([store.bytes, all.spare('g_1')]).toEqual([90, 0])
  })
})

test('two sessions share what there is: one may carry what the other has set aside', async () => {
  const store = new Counter(100)
  const all = new Allotments(store, silent)
  const [one, other] = [await shareOf(all, store, 1000), await shareOf(all, store, 1000)]
  expect([one?.carry(30), other?.carry(70), one?.carry(1)]).toEqual(['carried', 'carried', 'spent'])
})

test('a portion lasts for seconds at full rate, and is never next to nothing', () => {
  expect([portionOf(1), portionOf(10_000_000)]).toEqual([1024 * 1024, 10_000_000])
})

test('a refused take leaves the numbers as they are', () => {
  const allotment = new Allotment()
  allotment.took(10, 10)
  expect([allotment.carry(11), allotment.unused, allotment.wants(10)]).toEqual([
    'behind',
    10,
    false,
  ])
})

/** What may happen, in any order, to the sessions of one grant. */
const happenings = fc.array(
  fc.oneof(
    { weight: 2, arbitrary: fc.constant({ do: 'open' } as const) },
    {
      weight: 8,
      arbitrary: fc.record({
        do: fc.constant('carry' as const),
        which: fc.nat(7),
        bytes: fc.integer({ min: 1, max: 60 }),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constant('leave' as const), which: fc.nat(7) }),
    },
    { weight: 4, arbitrary: fc.constant({ do: 'answer' } as const) },
  ),
  { maxLength: 80 },
)

test('whatever happens: no more than the cap passes, the store never has too few, and the exact number in the end', async () => {
  await fc.assert(
    fc.asyncProperty(
      happenings,
      fc.integer({ min: 0, max: 500 }),
      fc.integer({ min: 2, max: 200 }),
      async (events, cap, portion) => {
        const store = new Counter(cap)
        const all = new Allotments(store, silent)
        const asked: Promise<Share | undefined>[] = []
        const open: Share[] = []
        let passed = 0
        for (const event of events) {
          if (event.do === 'open')
            asked.push(
              all.share(grant, portion).then((share) => {
                if (share !== undefined) open.push(share)
                return share
              }),
            )
          if (event.do === 'carry' && open[event.which]?.carry(event.bytes) === 'carried')
            passed += event.bytes
          if (event.do === 'leave') await open.splice(event.which, 1)[0]?.leave()
          if (event.do === 'answer') await store.answer()
          // A crash here would leave what the store has: all that passed is in it.
          expect(passed).toBeLessThanOrEqual(store.bytes)
          expect(store.bytes).toBeLessThanOrEqual(cap)
          expect(store.bytes - all.spare('g_1')).toBeGreaterThanOrEqual(passed)
        }
        await store.answer()
        await Promise.all(asked)
        for (const share of open) await share.leave()
        await store.answer()
        expect(store.bytes).toBe(passed)
      },
    ),
  )
})
