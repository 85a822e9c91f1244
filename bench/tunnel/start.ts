/** Starts whatever a plan names; who is not here, or does not start, is remembered with the reason. */
import type { Running } from './cell.ts'
import { Absent, type Peer, type Site } from './path.ts'
import type { Plan } from './plan.ts'
import type { Cells } from './rows.ts'

export interface Starting {
  /** All there are; their order gives the numbers. */
  readonly peers: readonly Peer[]
  readonly site: Site
  readonly plan: Pick<Plan, 'peersAt'>
  readonly cells: Cells
}

/** The paths are ended with `paths`. */
export async function startAll(
  paths: AsyncDisposableStack,
  { peers, site, plan, cells }: Starting,
): Promise<Running[]> {
  const wanted = new Set([...plan.peersAt.values()].flat())
  const running: Running[] = []
  for (const [at, peer] of peers.entries()) {
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
