/**
 * Throughput and CPU per gigabyte against the number of streams and against the round trip, as one SVG
 * without a library: four panels on one page, a line per path, the same colour for it everywhere.
 */
import type { Cell } from './cell.ts'
import { hopCpu, median, type Cells } from './rows.ts'

interface Point {
  /** Where on the axis, 0 … number of ticks - 1. */
  readonly at: number
  readonly value: number
}

interface Panel {
  readonly title: string
  readonly unit: string
  readonly axis: string
  readonly ticks: readonly string[]
  readonly lines: ReadonlyMap<string, readonly Point[]>
}

const COLOURS: Readonly<Record<string, string>> = {
  sallyport: '#c2410c',
  haproxy: '#1d4ed8',
  ssh: '#047857',
  pipe: '#6b7280',
  http2: '#7c3aed',
  yamux: '#be185d',
  chisel: '#a16207',
  frp: '#0e7490',
}
const WIDTH = 1080
const HEIGHT = 820
const PLOT = { width: 390, height: 250 } as const
const ORIGINS = [
  { x: 80, y: 90 },
  { x: 610, y: 90 },
  { x: 80, y: 470 },
  { x: 610, y: 470 },
] as const

/** The picture; a panel without measurements says so. `far`: cells by round trip in milliseconds. */
export function draw(near: Cells, far: ReadonlyMap<number, Cells>): string {
  const panels = [...byStreams(near), ...byDistance(far)]
  const names = Object.keys(COLOURS).filter((name) => panels.some(({ lines }) => lines.has(name)))
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" font-family="sans-serif" font-size="13" fill="#1f2937">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    legend(names),
    ...panels.map((panel, at) => drawn(panel, ORIGINS[at] ?? ORIGINS[0])),
    '</svg>',
    '',
  ].join('\n')
}

interface Figure {
  readonly title: string
  readonly unit: string
  readonly of: (cell: Cell) => number
}

const gigabytes: Figure = {
  title: 'throughput up',
  unit: 'GB/s',
  of: (cell) => cell.gigabytesPerSecond,
}
const megabytes: Figure = {
  title: 'throughput up, one stream',
  unit: 'MB/s',
  of: (cell) => 1000 * cell.gigabytesPerSecond,
}
const cpu: Figure = { title: 'CPU of gateway and agent', unit: 'CPU-s per GB', of: hopCpu }

function byStreams(cells: Cells): Panel[] {
  const up = cells.kinds().filter(({ direction }) => direction === 'up')
  const counts = [...new Set(up.map(({ streams }) => streams))].toSorted((a, b) => a - b)
  const names = [...new Set(up.map(({ path }) => path))]
  return [gigabytes, cpu].map(({ title, unit, of }) => ({
    title: `${title}, by streams`,
    unit,
    axis: 'streams',
    ticks: counts.map(String),
    lines: linesOf(names, counts, (name, streams) => cells.of(name, streams, 'up').map(of)),
  }))
}

function byDistance(far: ReadonlyMap<number, Cells>): Panel[] {
  const names = [
    ...new Set([...far.values()].flatMap((cells) => cells.kinds().map(({ path }) => path))),
  ]
  return [megabytes, cpu].map(({ title, unit, of }) => ({
    title: `${title}, by round trip`,
    unit,
    axis: 'round trip between gateway and agent, ms (line of 0.5 Gbit/s)',
    ticks: [...far.keys()].map(String),
    lines: linesOf(names, [...far.keys()], (name, rtt) =>
      (far.get(rtt)?.of(name, 1, 'up') ?? []).map(of),
    ),
  }))
}

function linesOf(
  names: readonly string[],
  places: readonly number[],
  values: (name: string, place: number) => readonly number[],
): Map<string, readonly Point[]> {
  return new Map(
    names.map((name) => [
      name,
      places.flatMap((place, at) => {
        const measured = values(name, place).filter(Number.isFinite)
        return measured.length === 0 ? [] : [{ at, value: median(measured) }]
      }),
    ]),
  )
}

function legend(names: readonly string[]): string {
  return names
    .map((name, at) => {
      const x = 80 + at * 118
      return `<line x1="${x}" y1="34" x2="${x + 24}" y2="34" stroke="${COLOURS[name]}" stroke-width="${weight(name)}"/><text x="${x + 30}" y="38">${name}</text>`
    })
    .join('\n')
}

function weight(name: string): number {
  return name === 'sallyport' ? 4 : 2
}

/** A round number at or above `value` that five steps divide well. */
export function ceiling(value: number): number {
  if (!(value > 0)) return 1
  const unit = 10 ** Math.floor(Math.log10(value))
  const steps = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10]
  return unit * (steps.find((step) => step * unit >= value) ?? 10)
}

function drawn(panel: Panel, { x, y }: { readonly x: number; readonly y: number }): string {
  const { width, height } = PLOT
  const { lines, ticks } = panel
  const head = `<text x="${x}" y="${y - 14}" font-weight="bold">${panel.title} (${panel.unit})</text>`
  const values = [...lines.values()].flat().map(({ value }) => value)
  if (values.length === 0)
    return `${head}\n<text x="${x}" y="${y + 30}" fill="#6b7280">not measured in this run</text>`
  const top = ceiling(Math.max(...values))
  const across = (at: number) =>
    x + (ticks.length > 1 ? (at / (ticks.length - 1)) * width : width / 2)
  const up = (value: number) => y + height - (value / top) * height
  const grid = Array.from({ length: 6 }, (_, step) => {
    const value = (step / 5) * top
    const line = up(value).toFixed(1)
    return `<line x1="${x}" y1="${line}" x2="${x + width}" y2="${line}" stroke="#e5e7eb"/><text x="${x - 8}" y="${(up(value) + 4).toFixed(1)}" text-anchor="end" fill="#6b7280">${Number(value.toPrecision(3))}</text>`
  })
  const below = ticks.map(
    (tick, at) =>
      `<text x="${across(at).toFixed(1)}" y="${y + height + 20}" text-anchor="middle" fill="#6b7280">${tick}</text>`,
  )
  const axis = `<text x="${x + width / 2}" y="${y + height + 40}" text-anchor="middle" fill="#6b7280">${panel.axis}</text>`
  const drawnLines = [...lines].toReversed().map(([name, points]) => {
    const places = points.map(({ at, value }) => `${across(at).toFixed(1)},${up(value).toFixed(1)}`)
    const dots = points.map(
      ({ at, value }) =>
        `<circle cx="${across(at).toFixed(1)}" cy="${up(value).toFixed(1)}" r="${weight(name) + 1}" fill="${COLOURS[name]}"/>`,
    )
    return `<polyline points="${places.join(' ')}" fill="none" stroke="${COLOURS[name]}" stroke-width="${weight(name)}"/>${dots.join('')}`
  })
  return [head, ...grid, ...below, axis, ...drawnLines].join('\n')
}
