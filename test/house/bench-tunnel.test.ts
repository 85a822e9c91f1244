/** What the tunnel's bench makes of its readings: rows, ratios, plans. No path is started. */
import { expect, test } from 'vitest'
import { cellOf, type Cell, type Running } from '../../bench/tunnel/cell.ts'
import { planOf } from '../../bench/tunnel/plan.ts'
import { barRows, Cells, median, ratios, row, spread } from '../../bench/tunnel/rows.ts'

const cell = (path: string, gigabytesPerSecond: number, cpu = 1): Cell => ({
  path,
  streams: 1,
  direction: 'up',
  gigabytesPerSecond,
  cpu: { load: 9, gateway: cpu, agent: cpu, target: 9 },
  fairness: 1,
  gatewayMiB: 1,
  agentMiB: 1,
})
const asked = { metric: 'm', unit: 'x', reference: 'r' }

test.for<[number[], number]>([
  [[3, 1, 2], 2],
  [[4, 1, 2, 3], 2.5],
  [[5], 5],
])('the median of %j is %d', ([values, middle]) => expect(median(values)).toBe(middle))

test('the spread is the smallest and the largest round', () =>
  expect(spread([1.2345, 0.5, 1])).toBe('0.5 – 1.23'))

test('a ratio is made within its round; a round with half a pair counts for nothing', () =>
  expect(ratios([1, 2, 3], [2, 0])).toEqual([0.5]))

test('a row without rounds says why', () =>
  expect(row(asked, [Number.NaN], 'it was not there')).toEqual({
    ...asked,
    value: null,
    why: 'it was not there',
  }))

test('a window is what came between two readings, per process and line', () => {
  const path = { hops: { gateway: [30], agent: [40, 41] } }
  const running = { name: 'us', number: 1, path } as unknown as Running
  const window = { streams: 2, direction: 'up', warmMs: 0, ms: 500 } as const
  const before = { at: 1000, bytes: [1e9, 5e9, 7e9], cpu: [1, 2, 3, 4, 5] }
  const after = { at: 1500, bytes: [2e9, 8e9, 9e9], cpu: [5, 4, 7, 5, 6] }
  const made = cellOf(running, window, before, after)
  expect(made.gigabytesPerSecond).toBe(8)
  expect(made.cpu).toEqual({ load: 1, target: 0.5, gateway: 1, agent: 0.5 })
  expect(made.fairness).toBeCloseTo(1 / 3)
})

test('a bar compares with the peer of the same round, and names its absence', () => {
  const cells = new Cells()
  for (const [ours, theirs] of [
    [0.9, 1],
    [2, 1],
    [1, 1],
  ] as const) {
    cells.add(cell('sallyport', ours, 2))
    cells.add(cell('haproxy', theirs, 1))
  }
  cells.missing('chisel', 'there is no go')
  const rows = new Map(
    barRows(cells, { haproxy: 'HAProxy' }, 'left out').map((one) => [one.metric, one]),
  )
  expect(rows.get('tput_vs_haproxy_1')).toMatchObject({ value: 1, spread: '0.9 – 2' })
  expect(rows.get('tput_vs_haproxy_1')?.reference).toBe('HAProxy; bar ≥ 0.95')
  expect(rows.get('cpu_vs_haproxy_1')).toMatchObject({ value: 2 })
  expect(rows.get('tput_vs_chisel_1')).toMatchObject({ value: null, why: 'there is no go' })
  expect(rows.get('tput_vs_frp_1')).toMatchObject({ value: null, why: 'left out' })
})

test('--only narrows to peers, streams and directions, and to the throughput where it names no section', () => {
  const plan = planOf(true, ['haproxy', '16', 'down'])
  expect([...plan.peersAt]).toEqual([[16, ['haproxy']]])
  expect([plan.directions, [...plan.sections]]).toEqual([['down'], ['matrix']])
  expect([...planOf(true, ['rtt']).sections]).toEqual(['rtt'])
  expect(() => planOf(false, ['yahmux'])).toThrow('--only does not know yahmux')
})
