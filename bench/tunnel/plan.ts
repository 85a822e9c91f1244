/** What a run measures: which peers at how many streams, how long, how often; cut down by --quick and --only. */
import type { Direction } from './cell.ts'

export interface Plan {
  readonly rounds: number
  readonly warmMs: number
  readonly windowMs: number
  /** Octets sent instead, where there are many lines. */
  readonly volume: number
  /** Later than this no further round of throughput is begun. */
  readonly matrixMs: number
  readonly sections: ReadonlySet<Section>
  /** Peers at a number of streams, each with our own path first. */
  readonly peersAt: ReadonlyMap<number, readonly string[]>
  readonly directions: readonly Direction[]
  /** For rows that have no value. */
  readonly leftOut: string
}

const MiB = 1024 * 1024

const SECTIONS = [
  'matrix',
  'latency',
  'idle',
  'layer',
  'rtt',
  'distance',
  'stalled',
  'neighbour',
] as const
export type Section = (typeof SECTIONS)[number]
/** The others take minutes. */
const QUICK_SECTIONS: readonly Section[] = ['matrix', 'latency', 'layer', 'rtt']

/** Everybody at up to 256; beyond that only who takes a connection per line without a mux of its own. */
const FULL: ReadonlyMap<number, readonly string[]> = new Map(
  [1, 16, 256, 4096].map((streams) => [
    streams,
    streams > 256
      ? ['sallyport', 'haproxy', 'pipe']
      : ['sallyport', 'haproxy', 'ssh', 'pipe', 'http2', 'yamux', 'chisel', 'frp'],
  ]),
)
/** What the bars need. */
const QUICK: ReadonlyMap<number, readonly string[]> = new Map([
  [1, ['sallyport', 'haproxy', 'ssh', 'http2', 'yamux', 'chisel', 'frp']],
  [16, ['sallyport', 'haproxy', 'chisel', 'frp']],
  [256, ['sallyport', 'haproxy']],
])

/** The words, each as what it names. Throws for one that names nothing. */
function chosenBy(only: readonly string[]) {
  const sections = SECTIONS.filter((section) => only.includes(section))
  const directions = (['up', 'down'] as const).filter((one) => only.includes(one))
  const numbers = [...FULL.keys()].filter((streams) => only.includes(String(streams)))
  const peers = (FULL.get(1) ?? []).filter((peer) => only.includes(peer))
  const known = new Set<string>([...sections, ...directions, ...numbers.map(String), ...peers])
  const unknown = only.filter((word) => !known.has(word))
  if (unknown.length > 0) throw new Error(`--only does not know ${unknown.join(', ')}`)
  return { sections, directions, numbers, peers }
}

/** `only`: peers, numbers of streams, `up`, `down`, and sections; what is named is all that is measured. */
export function planOf(quick: boolean, only: readonly string[]): Plan {
  const all = quick ? QUICK : FULL
  const { sections, directions, numbers, peers } = chosenBy(only)
  const narrowed = numbers.length + peers.length + directions.length > 0
  const chosen = numbers.length > 0 ? numbers : [...all.keys()]
  const from = numbers.length + peers.length > 0 ? FULL : all
  return {
    rounds: 5,
    ...(quick
      ? { warmMs: 120, windowMs: 300, volume: 128 * MiB, matrixMs: 45_000 }
      : { warmMs: 300, windowMs: 800, volume: 256 * MiB, matrixMs: 660_000 }),
    sections: new Set<Section>(
      sections.length > 0 ? sections : narrowed ? ['matrix'] : quick ? QUICK_SECTIONS : SECTIONS,
    ),
    peersAt: new Map(
      chosen.map((streams) => [
        streams,
        (from.get(streams) ?? []).filter((peer) => peers.length === 0 || peers.includes(peer)),
      ]),
    ),
    directions: directions.length > 0 ? directions : quick ? ['up'] : ['up', 'down'],
    leftOut:
      only.length > 0 ? 'left out by --only' : quick ? 'left out by --quick' : 'not measured',
  }
}
