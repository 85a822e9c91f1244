/**
 * The whole path beside its peers: load generator, gateway with policy, metering and log on, agent and
 * target as processes of their own on loopback, and the same load and target for whoever else carries
 * bytes from a port to a process behind a device. What is measured is in tunnel/, a file each.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { selfSigned } from '../test/transport/certificate.ts'
import type { Bench, Row, RunOptions } from './row.ts'
import type { Running } from './tunnel/cell.ts'
import type { Load } from './tunnel/load.ts'
import { measureMatrix } from './tunnel/matrix.ts'
import { Absent, type Peer, type Site } from './tunnel/path.ts'
import { chisel } from './tunnel/peers/chisel.ts'
import { frp } from './tunnel/peers/frp.ts'
import { haproxy } from './tunnel/peers/haproxy.ts'
import { http2 } from './tunnel/peers/http2.ts'
import { pipe } from './tunnel/peers/pipe.ts'
import { ssh } from './tunnel/peers/ssh.ts'
import { yamux } from './tunnel/peers/yamux.ts'
import { planOf, type Plan } from './tunnel/plan.ts'
import { Remote } from './tunnel/rpc.ts'
import { barRows, cellRows, Cells, fairnessRow } from './tunnel/rows.ts'
import { sallyport } from './tunnel/sallyport.ts'
import type { Target } from './tunnel/target.ts'

const PEERS: readonly Peer[] = [sallyport, haproxy, ssh, pipe, http2, yamux, chisel, frp]
const program = (name: string) => join(import.meta.dirname, 'tunnel', name)

export const bench: Bench = {
  name: 'tunnel',
  title: 'vendor → gateway → agent → target, beside those who carry bytes the same way',
  async run({ quick, only = [] }: RunOptions): Promise<Row[]> {
    const plan = planOf(quick, only)
    const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
    try {
      const rows = await measured(directory, plan)
      // Whoever names parts wants to read those alone.
      return only.length === 0 ? rows : rows.filter(({ why }) => why !== plan.leftOut)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  },
}

async function measured(directory: string, plan: Plan): Promise<Row[]> {
  await using load = new Remote<Load>(program('load.ts'))
  await using target = new Remote<Target>(program('target.ts'))
  const ends = { load, target }
  const site: Site = {
    directory,
    target: await target.call('listen', 0),
    certificate: await selfSigned(),
    lines: Math.max(...plan.peersAt.keys()),
  }
  const cells = new Cells()
  await using paths = new AsyncDisposableStack()
  const running = await startAll(paths, site, plan, cells)
  if (plan.sections.has('matrix')) await measureMatrix(ends, running, plan, cells)
  const says = Object.fromEntries(PEERS.map(({ name, says: words }) => [name, words]))
  return [
    ...barRows(cells, says, plan.leftOut),
    fairnessRow(cells, plan.leftOut),
    ...cellRows(cells),
  ]
}

/** Starts whatever the plan names; who is not here, or does not start, is told in the rows. */
async function startAll(
  paths: AsyncDisposableStack,
  site: Site,
  plan: Plan,
  cells: Cells,
): Promise<Running[]> {
  const wanted = new Set([...plan.peersAt.values()].flat())
  const running: Running[] = []
  for (const [at, peer] of PEERS.entries()) {
    if (!wanted.has(peer.name)) continue
    const began = performance.now()
    try {
      const path = paths.use(await peer.start(site))
      running.push({ name: peer.name, number: at + 1, path })
      process.stderr.write(`  ${peer.name} runs (${(performance.now() - began).toFixed(0)} ms)\n`)
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      cells.missing(peer.name, error instanceof Absent ? why : `it does not start: ${why}`)
      process.stderr.write(`  ${peer.name} is left out: ${why}\n`)
    }
  }
  return running
}
