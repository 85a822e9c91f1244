/** From what was measured to rows: medians over rounds, ratios within a round, and what a row is read against. */
import type { Row } from '../row.ts'
import type { Cell, Direction } from './cell.ts'

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const high = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? Number.NaN) + high) / 2
}

/** Smallest and largest round: `0.93 – 1.04`. */
export function spread(values: readonly number[]): string {
  const said = (value: number) => Number(value.toPrecision(3))
  return `${said(Math.min(...values))} – ${said(Math.max(...values))}`
}

export interface Asked {
  readonly metric: string
  readonly unit: string
  readonly reference: string
}

/** The median of the rounds; without any, a row that says why. */
export function row(asked: Asked, values: readonly number[], why: string): Row {
  const finite = values.filter(Number.isFinite)
  if (finite.length === 0) return { ...asked, value: null, why }
  return { ...asked, value: Number(median(finite).toPrecision(3)), spread: spread(finite) }
}

/** Every round's `ours` over the same round's `theirs`; a round that lacks one of them counts for nothing. */
export function ratios(ours: readonly number[], theirs: readonly number[]): number[] {
  return ours.flatMap((own, round) => {
    const other = theirs[round]
    return other === undefined || other === 0 ? [] : [own / other]
  })
}

export const hopCpu = ({ cpu }: Cell): number => cpu.gateway + cpu.agent

/** All windows of a run, and why those that are missing are. */
export class Cells {
  readonly #cells: Cell[] = []
  readonly #absent = new Map<string, string>()

  add(cell: Cell): void {
    this.#cells.push(cell)
  }

  /** Says why a peer has no cells: it is not installed, or it failed. */
  missing(path: string, why: string): void {
    this.#absent.set(path, why)
  }

  /** In the order of the rounds. */
  of(path: string, streams: number, direction: Direction): readonly Cell[] {
    return this.#cells.filter(
      (cell) => cell.path === path && cell.streams === streams && cell.direction === direction,
    )
  }

  why(path: string, otherwise: string): string {
    return this.#absent.get(path) ?? otherwise
  }

  /** What was measured: path, number of streams, direction. */
  kinds(): readonly { path: string; streams: number; direction: Direction }[] {
    const seen = new Map<string, { path: string; streams: number; direction: Direction }>()
    for (const { path, streams, direction } of this.#cells)
      seen.set(`${path} ${streams} ${direction}`, { path, streams, direction })
    return [...seen.values()]
  }
}

/** One of the bars: our figure over a peer's, at so many streams, upwards. */
export interface Bar {
  readonly metric: string
  readonly peer: string
  readonly streams: number
  readonly figure: 'throughput' | 'cpu'
  readonly bar: string
}

const BARS: readonly Bar[] = [
  ...([1, 16, 256] as const).map((streams) => ({
    metric: `tput_vs_haproxy_${streams}`,
    peer: 'haproxy',
    streams,
    figure: 'throughput' as const,
    bar: streams === 256 ? 'no bar' : 'bar ≥ 0.95',
  })),
  ...([1, 16, 256] as const).map((streams) => ({
    metric: `cpu_vs_haproxy_${streams}`,
    peer: 'haproxy',
    streams,
    figure: 'cpu' as const,
    bar: `bar ≤ ${{ 1: '1.15', 16: '1.20', 256: '1.45' }[streams]}`,
  })),
  { metric: 'tput_vs_http2_1', peer: 'http2', streams: 1, figure: 'throughput', bar: 'bar ≥ 1.4' },
  { metric: 'tput_vs_jsyamux_1', peer: 'yamux', streams: 1, figure: 'throughput', bar: 'bar ≥ 2' },
  ...(['chisel', 'frp'] as const).flatMap((peer) =>
    ([1, 16] as const).map((streams) => ({
      metric: `tput_vs_${peer}_${streams}`,
      peer,
      streams,
      figure: 'throughput' as const,
      bar: streams === 1 ? 'bar ≥ 1.5' : 'bar ≥ 1.0',
    })),
  ),
  { metric: 'tput_vs_ssh_1', peer: 'ssh', streams: 1, figure: 'throughput', bar: 'no bar' },
]

/** The bars, each against its peer in the words of `says`. */
export function barRows(
  cells: Cells,
  says: Readonly<Record<string, string>>,
  leftOut: string,
): Row[] {
  return BARS.map(({ metric, peer, streams, figure, bar }) => {
    const of = figure === 'cpu' ? hopCpu : (cell: Cell) => cell.gigabytesPerSecond
    const [ours, theirs] = ['sallyport', peer].map((path) => cells.of(path, streams, 'up').map(of))
    const unit = figure === 'cpu' ? 'x CPU' : 'x'
    const reference = `${says[peer] ?? peer}; ${bar}`
    const why = cells.why('sallyport', cells.why(peer, leftOut))
    return row({ metric, unit, reference }, ratios(ours ?? [], theirs ?? []), why)
  })
}

/** 16 equal streams: the slowest over the fastest. */
export function fairnessRow(cells: Cells, leftOut: string): Row {
  const values = cells.of('sallyport', 16, 'up').map(({ fairness }) => fairness)
  const theirs = cells.of('haproxy', 16, 'up').map(({ fairness }) => fairness)
  const beside = theirs.length === 0 ? '' : `; HAProxy ${median(theirs).toFixed(2)}`
  return row(
    {
      metric: 'fairness_16',
      unit: 'x',
      reference: `slowest / fastest of 16 bulk streams up; bar ≥ 0.8${beside}`,
    },
    values,
    cells.why('sallyport', leftOut),
  )
}

/** Which paths at how many streams, which way. */
interface Kinds {
  readonly peersAt: ReadonlyMap<number, readonly string[]>
  readonly directions: readonly Direction[]
}

/** Two rows for whatever was to be measured: throughput, and CPU of what carries it with the rest in words. */
export function cellRows(cells: Cells, plan: Kinds, prefix = ''): Row[] {
  const kinds = [...plan.peersAt].flatMap(([streams, paths]) =>
    plan.directions.flatMap((direction) => paths.map((path) => ({ path, streams, direction }))),
  )
  return kinds.flatMap(({ path, streams, direction }) => {
    const why = cells.why(path, 'not measured')
    const all = cells.of(path, streams, direction)
    const of = (figure: (cell: Cell) => number) => median(all.map(figure).filter(Number.isFinite))
    const name = `${prefix}${direction}_${streams}_${path}`
    const cpu = `gateway ${of(({ cpu: c }) => c.gateway).toFixed(2)} + agent ${of(({ cpu: c }) => c.agent).toFixed(2)}`
    const ends = `load ${of(({ cpu: c }) => c.load).toFixed(2)}, target ${of(({ cpu: c }) => c.target).toFixed(2)}`
    const rss = `RSS ${of((cell) => cell.gatewayMiB).toFixed(0)} + ${of((cell) => cell.agentMiB).toFixed(0)} MiB`
    const fair = `slowest/fastest ${of((cell) => cell.fairness).toFixed(2)}`
    return [
      row(
        { metric: `gbps_${name}`, unit: 'GB/s', reference: `${fair}, ${rss}` },
        all.map((cell) => cell.gigabytesPerSecond),
        why,
      ),
      row(
        { metric: `cpu_${name}`, unit: 'CPU-s/GB', reference: `${cpu}; ${ends}` },
        all.map(hopCpu),
        why,
      ),
    ]
  })
}
