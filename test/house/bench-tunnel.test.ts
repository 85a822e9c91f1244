/** What the tunnel's bench makes of its readings: rows, ratios, plans. No path is started. */
import { expect, test } from 'vitest'
import { cellOf, type Cell, type Running } from '../../bench/tunnel/cell.ts'
import { encodeName, decodeName, bulk, isBulk } from '../../bench/tunnel/line.ts'
import { latencyRows, quantiles } from '../../bench/tunnel/latency.ts'
import { Absent, type Peer, type Site } from '../../bench/tunnel/path.ts'
import { ceiling, draw } from '../../bench/tunnel/plot.ts'
import { startAll } from '../../bench/tunnel/start.ts'
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

test('a line is named in eight octets that say themselves', () => {
  for (const name of [
    { path: 7, index: 4095, purpose: 'bulk' },
    { path: 65_535, index: 0xfffff, purpose: 'echo' },
  ] as const)
    expect(decodeName(encodeName(name))).toEqual(name)
  expect(() => decodeName(Buffer.alloc(8))).toThrow('a line of kind 0')
})

test('octets that were lost, doubled or moved are seen', () => {
  const chunk = bulk(1024)
  expect(isBulk(chunk, 512)).toBe(true)
  expect(isBulk(chunk.subarray(3), 3)).toBe(true)
  expect(isBulk(chunk.subarray(3), 4)).toBe(false)
  expect(isBulk(chunk.with(700, 0), 0)).toBe(false)
})

test('an absent peer, and one that does not start, leave the others running and say why', async () => {
  const peer = (name: string, start: Peer['start']): Peer => ({ name, says: name, start })
  const ended: string[] = []
  const fine: Peer['start'] = () =>
    Promise.resolve({
      entry: { kind: 'tcp', port: 1 },
      hops: { gateway: [], agent: [] },
      [Symbol.asyncDispose]: () => Promise.resolve(void ended.push('there')),
    })
  const peers = [
    peer('gone', () => Promise.reject(new Absent('gone is not installed'))),
    peer('broken', () => Promise.reject(new Error('the port is taken'))),
    peer('there', fine),
    peer('unasked', () => Promise.reject(new Error('nobody asked'))),
  ]
  const cells = new Cells()
  const plan = { peersAt: new Map([[1, ['gone', 'broken', 'there']]]) }
  {
    await using paths = new AsyncDisposableStack()
    const running = await startAll(paths, { peers, site: {} as Site, plan, cells })
    expect(running.map(({ name, number }) => [name, number])).toEqual([['there', 3]])
  }
  expect(ended).toEqual(['there'])
  expect(cells.why('gone', '')).toBe('gone is not installed')
  expect(cells.why('broken', '')).toBe('it does not start: the port is taken')
})

test('the 99th percentile is a time that was measured', () => {
  const times = Array.from({ length: 200 }, (_, at) => 200 - at)
  expect(quantiles(times)).toEqual({ p50: 100, p99: 198 })
})

test('small requests beside bulk are held to three times their idle p99 and two milliseconds', () => {
  const times = (path: string, idle: number, busy: number) => ({
    path,
    bulk: 'up' as const,
    idle: { p50: idle, p99: idle },
    busy: { p50: busy, p99: busy },
    alone: 2e9,
    beside: 1e9,
  })
  const rows = latencyRows([times('sallyport', 1, 10), times('ssh', 1, 20)], 'no us', 'no ssh')
  expect(rows.slice(0, 2).map(({ value }) => value)).toEqual([2, 0.5])
  const without = latencyRows([times('sallyport', 1, 10)], 'no us', 'no ssh')
  expect(without[1]).toMatchObject({ value: null, why: 'no ssh' })
})

test.for<[number, number]>([
  [0, 1],
  [0.83, 1],
  [1.1, 1.5],
  [4.2, 5],
  [11, 15],
])('the axis for %d ends at %d', ([value, top]) => expect(ceiling(value)).toBeCloseTo(top))

test('the picture has a line per path and says where nothing was measured', () => {
  const cells = new Cells()
  for (const streams of [1, 16]) {
    cells.add({ ...cell('sallyport', 0.8), streams })
    cells.add({ ...cell('haproxy', 0.7), streams })
  }
  const svg = draw(cells, new Map())
  expect(svg.match(/<polyline/g)).toHaveLength(4)
  expect(svg).not.toMatch(/NaN|Infinity|undefined/)
  expect(svg.match(/not measured in this run/g)).toHaveLength(2)
  const far = new Map([[100, cells]])
  expect(draw(cells, far).match(/<polyline/g)).toHaveLength(8)
})
