/** Who may begin a handshake: each source its own allowance, strangers one together, the proven none but theirs. */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Admission, type Account, type AdmissionCode } from '../../../gateway/listen/admission.ts'
import { Allowance } from '../../../gateway/listen/allowance.ts'
import { keepSources } from '../../../gateway/listen/sources.ts'

const off = { perSource: 0, open: 0, strangers: 0, strangersOpen: 0 }
const isIn = (entered: Account | AdmissionCode): entered is Account => typeof entered !== 'string'

/** How many of `times` come in, all in one instant. */
function crowd(admission: Admission, address: string, times: number, now: number): number {
  return Array.from({ length: times }, () => admission.enter(address, now)).filter(isIn).length
}

describe('admission', () => {
  test('without limits everybody comes in', () => {
    expect(crowd(new Admission(off, 0), '10.0.0.1', 10_000, 0)).toBe(10_000)
  })

  test('a source has four seconds at once, then its rate; another one is not touched', () => {
    const admission = new Admission({ ...off, perSource: 10 }, 0)
    expect(crowd(admission, '10.0.0.1', 100, 0)).toBe(40)
    expect(admission.enter('10.0.0.1', 0)).toBe('source.rate')
    expect(crowd(admission, '10.0.0.2', 100, 0)).toBe(40)
    expect(crowd(admission, '10.0.0.1', 100, 1000)).toBe(10)
    expect(crowd(admission, '10.0.0.1', 100, 3_600_000)).toBe(40)
  })

  test.for([
    ['2001:db8:1:2::1', '2001:db8:1:2:ffff::9', true],
    ['2001:db8:1:2::1', '2001:db8:1:3::1', false],
    ['2001:db8::1', '2001:db8:0:0:5::', true],
    ['::1', '::2', true],
    ['10.0.0.1', '10.0.0.2', false],
  ] as const)('%s and %s are one source: %s', ([one, other, same]) => {
    const admission = new Admission({ ...off, perSource: 1 }, 0)
    expect(crowd(admission, one, 10, 0)).toBe(4)
    expect(crowd(admission, other, 10, 0)).toBe(same ? 0 : 4)
  })

  test('open connections of one source are counted, and leaving makes room', () => {
    const admission = new Admission({ ...off, open: 3 }, 0)
    const entered = Array.from({ length: 3 }, () => admission.enter('10.0.0.1', 0))
    expect(admission.enter('10.0.0.1', 0)).toBe('source.connections')
    for (const one of entered) if (isIn(one)) admission.leave(one, 0)
    expect(crowd(admission, '10.0.0.1', 9, 0)).toBe(3)
  })

  test('many strangers share one allowance; who has proven to belong here is not one', () => {
    const admission = new Admission({ ...off, strangers: 10 }, 0)
    admission.proven('10.9.9.9', 0)
    let entered = 0
    for (let at = 0; at < 1000; at++)
      if (isIn(admission.enter(`10.1.${at >> 8}.${at & 255}`, 0))) entered++
    expect(entered).toBe(40)
    expect(admission.enter('10.8.8.8', 0)).toBe('strangers.rate')
    expect(isIn(admission.enter('10.9.9.9', 0))).toBe(true)
    // A day later it is a stranger again.
    crowd(admission, '10.8.8.8', 100, 86_400_000)
    expect(admission.enter('10.9.9.9', 86_400_000)).toBe('strangers.rate')
  })

  test('strangers fill no place that is kept for who belongs here', () => {
    const admission = new Admission({ ...off, strangersOpen: 3 }, 0)
    admission.proven('10.9.9.9', 0)
    const entered = ['10.0.0.1', '10.0.0.2', '10.0.0.3'].map((from) => admission.enter(from, 0))
    expect(entered.every(isIn)).toBe(true)
    expect(admission.enter('10.0.0.4', 0)).toBe('strangers.connections')
    expect(crowd(admission, '10.9.9.9', 10, 0)).toBe(10)
    // One of them turns out to belong here: its place is free for the next stranger, once.
    admission.proven('10.0.0.2', 0)
    admission.proven('10.0.0.2', 0)
    const next = admission.enter('10.0.0.4', 0)
    expect(isIn(next)).toBe(true)
    expect(admission.enter('10.0.0.5', 0)).toBe('strangers.connections')
    for (const one of [...entered, next]) if (isIn(one)) admission.leave(one, 0)
    expect(crowd(admission, '10.0.0.6', 10, 0)).toBe(3)
  })

  test('a million addresses cost bounded memory, and do not open the door', () => {
    const admission = new Admission({ ...off, perSource: 1, open: 10 }, 0)
    const before = process.memoryUsage().heapUsed
    let entered = 0
    for (let at = 0; at < 300_000; at++)
      if (isIn(admission.enter(`10.${at >> 16}.${(at >> 8) & 255}.${at & 255}`, at / 1000)))
        entered++
    expect(entered).toBeLessThan(50_100)
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(60 * 2 ** 20)
  })

  test('whatever the order, no more are in than entered, and none is lost', () => {
    const step = fc.record({
      source: fc.constantFrom('10.0.0.1', '10.0.0.2', '::1'),
      enters: fc.boolean(),
      after: fc.nat(2000),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const admission = new Admission(
          { perSource: 2, open: 5, strangers: 3, strangersOpen: 4 },
          0,
        )
        const inside = new Map<string, Account[]>()
        let now = 0
        for (const { source, enters, after } of steps) {
          now += after
          const here = inside.get(source) ?? []
          inside.set(source, here)
          if (enters) {
            const entered = admission.enter(source, now)
            if (isIn(entered)) here.push(entered)
          } else {
            const leaving = here.pop()
            if (leaving !== undefined) admission.leave(leaving, now)
          }
          expect(here.length).toBeLessThanOrEqual(5)
        }
      }),
    )
  })
})

describe('a restart', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'sallyport-sources-')), 'known-sources.json')
  const HOUR = 3_600_000
  /** A run of the node: its monotonic clock starts anew, the date goes on. */
  function run(date: number, monotonic: number) {
    const admission = new Admission({ ...off, strangers: 1 }, monotonic)
    const wrong: string[] = []
    const clocks = { date: () => date, monotonic: () => monotonic }
    const report = (_error: unknown, what: string) => void wrong.push(what)
    return { admission, wrong, keeping: keepSources(admission, { file, clocks, report }) }
  }
  const full = (admission: Admission, now: number) => crowd(admission, '10.1.1.1', 100, now)

  test('makes no stranger of who has proven to belong here within the day', () => {
    const first = run(1_800_000_000_000, 50 * HOUR)
    first.admission.proven('10.9.9.9', 50 * HOUR)
    first.admission.proven('2001:db8:1:2::1', 50 * HOUR - 23 * HOUR)
    first.keeping[Symbol.dispose]()
    const second = run(1_800_000_000_000 + 2 * HOUR, 5)
    full(second.admission, 5)
    expect(isIn(second.admission.enter('10.9.9.9', 5))).toBe(true)
    expect(second.admission.enter('2001:db8:1:2::9', 5)).toBe('strangers.rate')
    expect([...first.wrong, ...second.wrong]).toEqual([])
    second.keeping[Symbol.dispose]()
  })

  test.for(['', '[]', '{"v":1,"sources":[["10.9.9.9"]]}', '{"sources":[["10.9.9.9",1e300]]}'])(
    'a file that is none is said, and nobody is known by it: %s',
    (text) => {
      writeFileSync(file, text)
      const { admission, wrong, keeping } = run(1_800_000_000_000, 5)
      expect(wrong).toHaveLength(1)
      full(admission, 5)
      expect(admission.enter('10.9.9.9', 5)).toBe('strangers.rate')
      keeping[Symbol.dispose]()
    },
  )

  test('a date in the future proves nothing', () => {
    writeFileSync(file, JSON.stringify({ v: 1, sources: [['10.9.9.9', 1_900_000_000_000]] }))
    const { admission, keeping } = run(1_800_000_000_000, 5)
    full(admission, 5)
    expect(admission.enter('10.9.9.9', 5)).toBe('strangers.rate')
    keeping[Symbol.dispose]()
  })
})

describe('an allowance', () => {
  test('thirty at once, then one each two seconds, by name', () => {
    const allowance = new Allowance()
    const times = (name: string, now: number) =>
      Array.from({ length: 100 }, () => allowance.take(name, now)).filter(Boolean).length
    expect(times('press-01', 0)).toBe(30)
    expect(times('press-02', 0)).toBe(30)
    expect(times('press-01', 1999)).toBe(0)
    expect(times('press-01', 4000)).toBe(2)
    expect(times('press-01', 86_400_000)).toBe(30)
  })

  test('names beyond the most push out the one that was heard of longest ago', () => {
    const allowance = new Allowance(0, 1, 2)
    expect([allowance.take('a', 0), allowance.take('b', 0), allowance.take('a', 0)]).toEqual([
      true,
      true,
      false,
    ])
    expect(allowance.take('c', 0)).toBe(true)
    expect(allowance.take('a', 0)).toBe(false)
    expect(allowance.take('b', 0)).toBe(true)
  })
})
