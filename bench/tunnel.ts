/**
 * The whole path beside its peers: load generator, gateway with policy, metering and log on, agent and
 * target as processes of their own on loopback, and the same load and target for whoever else carries
 * bytes from a port to a process behind a device. What is measured is in tunnel/, a file each.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { selfSigned } from '../test/transport/certificate.ts'
import type { Bench, Row, RunOptions } from './row.ts'
import type { Load } from './tunnel/load.ts'
import { measureMatrix } from './tunnel/matrix.ts'
import type { Peer, Site } from './tunnel/path.ts'
import { chisel } from './tunnel/peers/chisel.ts'
import { frp } from './tunnel/peers/frp.ts'
import { haproxy } from './tunnel/peers/haproxy.ts'
import { http2 } from './tunnel/peers/http2.ts'
import { pipe } from './tunnel/peers/pipe.ts'
import { ssh } from './tunnel/peers/ssh.ts'
import { yamux } from './tunnel/peers/yamux.ts'
import { planOf, type Plan } from './tunnel/plan.ts'
import { draw } from './tunnel/plot.ts'
import { Remote } from './tunnel/rpc.ts'
import { barRows, cellRows, Cells, fairnessRow } from './tunnel/rows.ts'
import { sallyport } from './tunnel/sallyport.ts'
import {
  closeLines,
  distancePart,
  FAR,
  idlePart,
  latencyPart,
  layerPart,
  linePart,
  neighbourPart,
  stalledPart,
  type Run,
} from './tunnel/sections.ts'
import { startAll } from './tunnel/start.ts'
import type { Target } from './tunnel/target.ts'

const PEERS: readonly Peer[] = [sallyport, haproxy, ssh, pipe, http2, yamux, chisel, frp]
const SAYS = Object.fromEntries(PEERS.map(({ name, says }) => [name, says]))
const program = (name: string) => join(import.meta.dirname, 'tunnel', name)

export const bench: Bench = {
  name: 'tunnel',
  title: 'vendor → gateway → agent → target, beside those who carry bytes the same way',
  async run({ quick, only = [], plot }: RunOptions): Promise<Row[]> {
    const plan = planOf(quick, only)
    const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
    try {
      const { rows, picture } = await measured(directory, plan, quick)
      if (plot !== undefined) writeFileSync(plot, picture)
      // Whoever names parts wants to read those alone.
      return only.length === 0 ? rows : rows.filter(({ why }) => why !== plan.leftOut)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  },
}

async function measured(directory: string, plan: Plan, quick: boolean) {
  await using load = new Remote<Load>(program('load.ts'))
  await using target = new Remote<Target>(program('target.ts'))
  const site: Site = {
    directory,
    target: await target.call('listen', 0),
    certificate: await selfSigned(),
    lines: Math.max(...plan.peersAt.keys()),
    uplink: (port) => Promise.resolve(port),
  }
  const run: Run = { began: performance.now(), plan, quick, ends: { load, target }, site }
  const cells = new Cells()
  const near = await nearRows(run, cells)
  const far = await distancePart(run, PEERS)
  const stalled = await stalledPart(run)
  const neighbour = await neighbourPart(run)
  const rows = [
    ...neighbour,
    ...barRows(cells, SAYS, plan.leftOut),
    fairnessRow(cells, plan.leftOut),
    ...near,
    ...stalled,
    ...(plan.sections.has('matrix') ? cellRows(cells, plan) : []),
    ...[...far].flatMap(([rtt, distant]) => cellRows(distant, FAR, `rtt${rtt}_`)),
  ]
  return { rows, picture: draw(cells, far) }
}

/** What is measured while the paths of this machine's loopback run; they end with it. */
async function nearRows(run: Run, cells: Cells): Promise<Row[]> {
  const { plan, site, ends } = run
  const needed = (['matrix', 'latency'] as const).some((one) => plan.sections.has(one))
  await using paths = new AsyncDisposableStack()
  const running = needed ? await startAll(paths, { peers: PEERS, site, plan, cells }) : []
  // Small requests first: they are measured with nothing else open.
  const first = [...(await latencyPart(run, running, cells)), ...(await linePart(run))]
  if (plan.sections.has('matrix')) await measureMatrix(ends, running, plan, cells)
  for (const path of running) await closeLines(ends, path)
  return [...first, ...(await layerPart(run)), ...(await idlePart(run))]
}
