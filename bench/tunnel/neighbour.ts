/**
 * Small requests on one tunnel beside bulk on another of the same gateway. Device, agent, load generator
 * and target are two of each, so that what the two have in common is the gateway alone, and the machine.
 */
import type { Row } from '../row.ts'
import {
  measure,
  measureWhile,
  openLines,
  type Cell,
  type Direction,
  type Ends,
  type Running,
} from './cell.ts'
import { ECHO, GAP_MS, quantiles, REQUEST_BYTES, type Quantiles } from './latency.ts'
import { median, row } from './rows.ts'

export interface NeighbourPlan {
  readonly rounds: number
  readonly ms: number
  /** Numbers of bulk streams. */
  readonly streams: readonly number[]
  readonly directions: readonly Direction[]
}

/** A path that runs, and what is at its ends. */
export interface Whole {
  readonly ends: Ends
  readonly running: Running
}

interface Round {
  readonly streams: number
  readonly direction: Direction
  readonly idle: Quantiles
  readonly busy: Quantiles
  /** Of the bulk streams beside small requests, over what they did before the first. */
  readonly rate: number
  readonly cpu: number
}

interface Way {
  readonly streams: number
  readonly direction: Direction
}

const WARM_MS = 250
/** Small requests are expected for three seconds after the last, and then the bulk is by itself. */
const FORGOTTEN_MS = 3500
const pause = (ms: number) => new Promise((wake) => setTimeout(wake, ms))

/** CPU-seconds of gateway and agent for a gigabyte. */
const cpuOf = ({ cpu }: Cell) => cpu.gateway + cpu.agent

/** Four rows for each number of streams and direction. */
export async function measureNeighbours(
  bulk: Whole,
  small: Whole,
  plan: NeighbourPlan,
): Promise<Row[]> {
  await openLines(bulk.ends, bulk.running, Math.max(...plan.streams))
  const { number: path, path: made } = small.running
  await small.ends.load.call('open', { path, entry: made.entry, purpose: 'echo', count: ECHO })
  const ways = plan.streams.flatMap((streams) =>
    plan.directions.map((direction) => ({ streams, direction })),
  )
  const ask = { path, ms: plan.ms, gap: GAP_MS, size: REQUEST_BYTES }
  const ping = async () => quantiles(await small.ends.load.call('ping', ask))
  const rounds: Round[] = []
  for (let round = 0; round < plan.rounds; round++) {
    await pause(FORGOTTEN_MS)
    const alone: Cell[] = []
    for (const way of ways)
      alone.push(await measure(bulk.ends, bulk.running, { ...way, warmMs: WARM_MS, ms: plan.ms }))
    // Both after the same pause: windows shrink in one.
    await pause(FORGOTTEN_MS)
    for (const [at, way] of ways.entries()) {
      const idle = await ping()
      const window = { ...way, warmMs: WARM_MS }
      const [beside, busy] = await measureWhile(bulk.ends, bulk.running, window, ping)
      const first = alone[at] ?? beside
      const rate = beside.gigabytesPerSecond / first.gigabytesPerSecond
      rounds.push({ ...way, idle, busy, rate, cpu: cpuOf(beside) / cpuOf(first) })
    }
  }
  return plan.streams.flatMap((streams) =>
    plan.directions.flatMap((direction) =>
      rowsOf(
        { streams, direction },
        rounds.filter((one) => one.streams === streams && one.direction === direction),
      ),
    ),
  )
}

function rowsOf({ streams, direction }: Way, rounds: readonly Round[]): Row[] {
  const name = `${direction}_${streams}`
  const beside = `beside ${streams} bulk ${streams === 1 ? 'stream' : 'streams'} ${direction} on another tunnel of the gateway`
  const times = (['p50', 'p99'] as const).map((which) => {
    const idle = median(rounds.map((one) => one.idle[which]))
    const reference = `64 octets there and back ${beside}; idle ${idle.toFixed(2)} ms`
    const metric = `neighbour_${which}_${name}`
    return row(
      { metric, unit: 'ms', reference },
      rounds.map((one) => one.busy[which]),
      '',
    )
  })
  const bulk = (['rate', 'cpu'] as const).map((which) => {
    const what = which === 'rate' ? 'rate' : 'CPU for a gigabyte, gateway and agent,'
    const reference = `the bulk's ${what} beside those requests over what it was by itself`
    const metric = `neighbour_bulk_${which}_${name}`
    return row(
      { metric, unit: 'x', reference },
      rounds.map((one) => one[which]),
      '',
    )
  })
  return [...times, ...bulk]
}
