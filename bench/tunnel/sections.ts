/** The parts of a run beside throughput, each to its rows: what is left out is said, what fails fails alone. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Row } from '../row.ts'
import type { Ends, Running } from './cell.ts'
import { measureIdle } from './idle.ts'
import { latencyRows, measureLatency, type Times } from './latency.ts'
import type { Link } from './link.ts'
import { measureMatrix } from './matrix.ts'
import type { Peer, Site } from './path.ts'
import type { Plan, Section } from './plan.ts'
import {
  CONDITIONS,
  LINK_BYTES_PER_SECOND,
  measureLayer,
  measureLine,
  measureStall,
  meansFor,
} from './raw.ts'
import { Remote } from './rpc.ts'
import { Cells } from './rows.ts'
import { measureNeighbours } from './neighbour.ts'
import type { Load } from './load.ts'
import type { Target } from './target.ts'
import { startAll } from './start.ts'
import { startSallyport } from './sallyport.ts'
import { measureStalled, STALLED } from './stalled.ts'

export interface Run {
  readonly plan: Plan
  readonly quick: boolean
  readonly ends: Ends
  readonly site: Site
  /** When the run began, in performance.now()'s milliseconds. */
  readonly began: number
}

/** What a part of --quick takes on two busy cores, seconds, and when the last must have ended. */
const QUICK_SECONDS: Readonly<Partial<Record<Section, number>>> = {
  latency: 12,
  rtt: 15,
  layer: 9,
}
const QUICK_END_SECONDS = 115

function late({ quick, began }: Run, section: Section): boolean {
  const elapsed = (performance.now() - began) / 1000
  return quick && elapsed + (QUICK_SECONDS[section] ?? 0) > QUICK_END_SECONDS
}

/** Runs one part; an error becomes rows that say so. */
async function part(
  run: Run,
  section: Section,
  metrics: readonly string[],
  work: () => Promise<Row[]>,
): Promise<Row[]> {
  const none = (why: string): Row[] =>
    metrics.map((metric) => ({ metric, value: null, unit: '', reference: '', why }))
  if (!run.plan.sections.has(section)) return none(run.plan.leftOut)
  if (late(run, section)) return none('left out by --quick: there is no time left')
  const elapsed = ((performance.now() - run.began) / 1000).toFixed(1)
  process.stderr.write(`  ${section}: ${metrics[0]} (after ${elapsed} s)\n`)
  try {
    return await work()
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    process.stderr.write(`  ${section} failed: ${why}\n`)
    return none(`it failed: ${why.split('\n')[0]}`)
  }
}

/** Small requests on our own path, ssh -R and the HAProxy chain. */
export async function latencyPart(run: Run, running: readonly Running[], cells: Cells) {
  const metrics = ['p99_under_bulk_vs_idle', 'p99_under_bulk_vs_ssh']
  return await part(run, 'latency', metrics, async () => {
    const names = run.quick ? ['sallyport', 'ssh'] : ['sallyport', 'ssh', 'haproxy']
    const paths = running.filter(({ name }) => names.includes(name))
    const times: Times[] = await measureLatency(run.ends, paths, {
      rounds: 5,
      ms: run.quick ? 300 : 1500,
      directions: run.quick ? ['up'] : ['up', 'down'],
    })
    const why = (path: string) => cells.why(path, run.plan.leftOut)
    return latencyRows(times, why('sallyport'), why('ssh'))
  })
}

export async function idlePart(run: Run) {
  return await part(run, 'idle', ['rss_per_idle_tunnel_kib'], async () => [
    await measureIdle(run.site, 5, 400),
  ])
}

export async function layerPart(run: Run) {
  const { certificate } = run.site
  const plan = run.quick ? { rounds: 5, ms: 250 } : { rounds: 5, ms: 1500 }
  const metrics = ['stalled_readers_rate', 'stalled_readers_mib']
  return [
    ...(await part(run, 'layer', ['opens_vs_http2', 'bytes_per_idle_stream'], () =>
      measureLayer(certificate, plan),
    )),
    ...(await part(run, 'layer', metrics, () => measureStall(certificate, plan))),
  ]
}

/** One row per condition; quick has the bar's alone. */
export async function linePart(run: Run) {
  const plan = run.quick ? { rounds: 5, ms: 300 } : { rounds: 5, ms: 1500 }
  const rows: Row[] = []
  for (const [at, condition] of CONDITIONS.entries()) {
    // What the machine cannot do is said even where there is no time for what it can.
    if (run.quick && at > 0 && (await meansFor(condition)).how !== 'none') {
      rows.push({
        metric: condition.metric,
        value: null,
        unit: 'x',
        reference: '',
        why: run.plan.leftOut,
      })
      continue
    }
    rows.push(
      ...(await part(run, 'rtt', [condition.metric], async () => {
        return [await measureLine(run.site.certificate, condition, plan)]
      })),
    )
  }
  return rows
}

const DISTANCES = [2, 20, 100] as const
/** What is measured over them. */
export const FAR = {
  peersAt: new Map([[1, ['sallyport', 'haproxy', 'ssh', 'http2']]]),
  directions: ['up'],
} as const satisfies Partial<Plan>

/** One stream through whole paths whose gateway and agent are far apart; cells by round trip. */
export async function distancePart(
  run: Run,
  peers: readonly Peer[],
): Promise<ReadonlyMap<number, Cells>> {
  const all = new Map<number, Cells>()
  if (!run.plan.sections.has('distance')) return all
  for (const rttMs of DISTANCES) {
    process.stderr.write(`  distance: ${rttMs} ms\n`)
    const cells = new Cells()
    all.set(rttMs, cells)
    await using link = new Remote<Link>(join(import.meta.dirname, 'link.ts'))
    const directory = join(run.site.directory, `rtt-${rttMs}`)
    mkdirSync(directory)
    const bytesPerSecond = LINK_BYTES_PER_SECOND
    const site: Site = {
      ...run.site,
      directory,
      lines: 1,
      uplink: (port) => link.call('open', { port, rttMs, bytesPerSecond }),
    }
    await using paths = new AsyncDisposableStack()
    const running = await startAll(paths, { peers, site, plan: FAR, cells })
    const plan = { ...run.plan, ...FAR, rounds: 1 }
    // Windows grow first; what they do meanwhile counts for nothing.
    await measureMatrix(run.ends, running, { ...plan, warmMs: 3000, windowMs: 100 }, new Cells())
    await measureMatrix(run.ends, running, { ...plan, rounds: 5, warmMs: 1000 }, cells)
    for (const path of running) await closeLines(run.ends, path)
  }
  return all
}

export async function closeLines({ load, target }: Ends, { number }: Running): Promise<void> {
  await load.call('close', number)
  await target.call('close', number)
}

/** Beyond the numbers of the peers. */
const STALLED_PATHS = { silent: 98, stalled: 99 } as const

export async function stalledPart(run: Run) {
  const metrics = ['rate', 'gateway_mib', 'agent_mib', 'flood_rate', 'flood_drops', 'flood_ended']
  const named = metrics.map((metric) => `stalled_path_${metric}`)
  return await part(run, 'stalled', named, async () => {
    await using paths = new AsyncDisposableStack()
    const start = async (name: 'silent' | 'stalled') => {
      const directory = join(run.site.directory, name)
      mkdirSync(directory)
      const path = paths.use(await startSallyport({ ...run.site, directory, lines: STALLED + 16 }))
      return { name: 'sallyport', number: STALLED_PATHS[name], path }
    }
    const both = { silent: await start('silent'), stalled: await start('stalled') }
    return await measureStalled(run.ends, both, { rounds: 5, warmMs: 300, ms: 700 })
  })
}

/** Beyond those. */
const NEIGHBOURS = { bulk: 96, small: 97 } as const

/** A path as in the matrix, and beside it in the same gateway a device that nothing but small requests are for. */
export async function neighbourPart(run: Run) {
  return await part(run, 'neighbour', ['neighbour_p50_up_16', 'neighbour_p99_up_16'], async () => {
    await using paths = new AsyncDisposableStack()
    const directory = join(run.site.directory, 'neighbour')
    mkdirSync(directory)
    const path = paths.use(await startSallyport({ ...run.site, directory, lines: 16 }))
    const program = (name: string) => join(import.meta.dirname, name)
    const load = paths.use(new Remote<Load>(program('load.ts')))
    const target = paths.use(new Remote<Target>(program('target.ts')))
    const beside = await path.beside('press-beside', await target.call('listen', 0))
    const bulk = { ends: run.ends, running: { name: 'sallyport', number: NEIGHBOURS.bulk, path } }
    const running = { name: 'beside', number: NEIGHBOURS.small, path: beside }
    const small = { ends: { load, target }, running }
    return await measureNeighbours(bulk, small, {
      rounds: 5,
      ms: run.quick ? 300 : 600,
      streams: [16, 1],
      directions: run.plan.directions,
    })
  })
}
