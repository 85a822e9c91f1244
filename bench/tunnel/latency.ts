/** Small requests, one after the other, on a quiet path and beside one stream that sends all it can. */
import type { Row } from '../row.ts'
import { openLines, type Direction, type Ends, type Running } from './cell.ts'
import { median, row } from './rows.ts'

/** One round of one path. */
export interface Times {
  readonly path: string
  readonly bulk: Direction
  readonly idle: Quantiles
  readonly busy: Quantiles
  /** The bulk stream's octets a second, by itself before the first small request and beside them. */
  readonly alone: number
  readonly beside: number
}

export interface Quantiles {
  readonly p50: number
  readonly p99: number
}

export interface LatencyPlan {
  readonly rounds: number
  readonly ms: number
  readonly directions: readonly Direction[]
}

/** A terminal's key and its echo, or a Modbus request. */
export const REQUEST_BYTES = 64
/** Between an answer and the next request. */
export const GAP_MS = 1
const WARM_MS = 250
/** For the rate of bulk by itself; it is the first that a path does, and programs compile meanwhile. */
const ALONE_WARM_MS = 1500
const ALONE_MS = 500
const pause = (ms: number) => new Promise((wake) => setTimeout(wake, ms))

export function quantiles(times: ArrayLike<number>): Quantiles {
  const sorted = Float64Array.from(times).sort()
  const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99) }
}

/** Every round of every path that runs, in milliseconds. */
export async function measureLatency(
  ends: Ends,
  running: readonly Running[],
  plan: LatencyPlan,
): Promise<Times[]> {
  const all: Times[] = []
  for (const path of running) {
    await openLines(ends, path, 1)
    const { number, path: made } = path
    const ask = { path: number, entry: made.entry, purpose: 'echo', count: ECHO } as const
    await ends.load.call('open', ask)
  }
  // Before the first small request: after one a path may expect more of them for seconds.
  const alone = new Map<string, number>()
  for (const path of running)
    for (const bulk of plan.directions)
      alone.set(`${path.name} ${bulk}`, await bulkAlone(ends, path, bulk))
  for (let round = 0; round < plan.rounds; round++)
    for (const bulk of plan.directions)
      for (const path of running) {
        const times = await once(ends, path, bulk, plan.ms)
        all.push({ ...times, alone: alone.get(`${path.name} ${bulk}`) ?? Number.NaN })
      }
  return all
}

function pumpOf(ends: Ends, { number }: Running, bulk: Direction) {
  return async (size: number): Promise<void> => {
    const ask = { path: number, count: 1, size }
    await (bulk === 'up' ? ends.load.call('pump', ask) : ends.target.call('pump', ask))
  }
}

async function bulkAlone(ends: Ends, path: Running, bulk: Direction): Promise<number> {
  const pump = pumpOf(ends, path, bulk)
  await pump(256 * 1024)
  await pause(ALONE_WARM_MS)
  const [rate] = await during({ ends, path: path.number, bulk }, () => pause(ALONE_MS))
  await pump(0)
  await pause(WARM_MS)
  return rate
}

/** The number of the line for small requests: beyond all others. */
export const ECHO = 0xfffff

async function once(
  ends: Ends,
  path: Running,
  bulk: Direction,
  ms: number,
): Promise<Omit<Times, 'alone'>> {
  const { number } = path
  const ping = { path: number, ms, gap: GAP_MS, size: REQUEST_BYTES }
  const pump = pumpOf(ends, path, bulk)
  const idle = quantiles(await ends.load.call('ping', ping))
  await pump(256 * 1024)
  await pause(WARM_MS)
  const reads = { ends, path: number, bulk }
  const [beside, times] = await during(reads, () => ends.load.call('ping', ping))
  const busy = quantiles(times)
  await pump(0)
  await pause(WARM_MS)
  return { path: path.name, bulk, idle, busy, beside }
}

/** Octets a second that arrive on the bulk stream during `work`, and what that gives. */
async function during<T>(
  { ends, path, bulk }: { readonly ends: Ends; readonly path: number; readonly bulk: Direction },
  work: () => Promise<T>,
): Promise<[number, T]> {
  const receiver: Pick<typeof ends.target, 'call'> = bulk === 'up' ? ends.target : ends.load
  const before = await receiver.call('read', { path, pids: [] })
  const value = await work()
  const after = await receiver.call('read', { path, pids: [] })
  const octets = (after.bytes[0] ?? 0) - (before.bytes[0] ?? 0)
  return [(octets / (after.at - before.at)) * 1_000, value]
}

/** What a small request may take beside bulk: three times what it takes alone, and two milliseconds. */
function allowed({ idle }: Times): number {
  return 3 * idle.p99 + 2
}

/** The two bars, and four figures for each path and direction. */
export function latencyRows(all: readonly Times[], why: string, sshWhy: string): Row[] {
  const of = (path: string, bulk: Direction) =>
    all.filter((one) => one.path === path && one.bulk === bulk)
  const ours = of('sallyport', 'up')
  const theirs = of('ssh', 'up')
  const p99 = (list: readonly Times[], when: 'idle' | 'busy') =>
    list.length === 0 ? '-' : median(list.map((one) => one[when].p99)).toFixed(1)
  return [
    row(
      {
        metric: 'p99_under_bulk_vs_idle',
        unit: 'x',
        reference: `p99 beside one bulk stream (${p99(ours, 'busy')} ms) over 3 × idle p99 + 2 ms, idle ${p99(ours, 'idle')} ms; bar ≤ 1`,
      },
      ours.map((one) => one.busy.p99 / allowed(one)),
      why,
    ),
    row(
      {
        metric: 'p99_under_bulk_vs_ssh',
        unit: 'x',
        reference: `the same request through ssh -R beside one bulk stream (${p99(theirs, 'busy')} ms); bar < 1`,
      },
      ours.flatMap((one, round) => {
        const other = theirs[round]
        return other === undefined ? [] : [one.busy.p99 / other.busy.p99]
      }),
      ours.length === 0 ? why : sshWhy,
    ),
    ...figures(all),
  ]
}

function figures(all: readonly Times[]): Row[] {
  const kinds = new Map(all.map((one) => [`${one.path}_${one.bulk}`, one]))
  return [...kinds].flatMap(([name, { path, bulk }]) => {
    const list = all.filter((one) => one.path === path && one.bulk === bulk)
    const pings = (['p50', 'p99'] as const).map((which) => {
      const idle = median(list.map((one) => one.idle[which]))
      const reference = `64 octets there and back beside one bulk stream ${bulk}; idle ${idle.toFixed(2)} ms`
      return row(
        { metric: `ping_${which}_${name}`, unit: 'ms', reference },
        list.map((one) => one.busy[which]),
        '',
      )
    })
    const alone = median(list.map((one) => one.alone / 1e9))
    const reference = `the bulk stream beside the small requests over itself alone, ${alone.toFixed(2)} GB/s`
    return [
      ...pings,
      row(
        { metric: `bulk_beside_ping_${name}`, unit: 'x', reference },
        list.map((one) => one.beside / one.alone),
        '',
      ),
    ]
  })
}
