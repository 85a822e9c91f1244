/** Throughput and CPU of every path at every number of streams, the paths taking turns in every round. */
import { measure, measureVolume, openLines, type Ends, type Running } from './cell.ts'
import type { Plan } from './plan.ts'
import type { Cells } from './rows.ts'

/** Measures what the plan says with the paths that run; a path that fails is left out from then on. */
export async function measureMatrix(
  ends: Ends,
  running: readonly Running[],
  plan: Plan,
  cells: Cells,
): Promise<void> {
  const failed = new Set<Running>()
  const attempt = async (path: Running, work: () => Promise<unknown>): Promise<void> => {
    if (failed.has(path)) return
    try {
      await work()
    } catch (error) {
      failed.add(path)
      const why = error instanceof Error ? error.message : String(error)
      cells.missing(path.name, `it failed: ${why.split('\n')[0]}`)
      process.stderr.write(`  ${path.name} failed: ${why}\n`)
    }
  }
  const began = performance.now()
  const late = (round: number): boolean => {
    const spent = performance.now() - began
    return spent > plan.matrixMs && (round >= LEAST || spent > 1.3 * plan.matrixMs)
  }
  for (const [streams, names] of plan.peersAt) {
    const here = running.filter(({ name }) => names.includes(name))
    for (const path of here)
      await attempt(path, async () => {
        const took = await openLines(ends, path, streams)
        process.stderr.write(`  ${path.name}: ${streams} streams open (${took.toFixed(0)} ms)\n`)
      })
    for (let round = 0; round < plan.rounds && !late(round); round++)
      for (const direction of plan.directions)
        for (const path of turned(here, round))
          await attempt(path, async () => {
            const way = { streams, direction }
            const { warmMs, windowMs: ms, volume: bytes } = plan
            cells.add(
              streams < MANY
                ? await measure(ends, path, { ...way, warmMs, ms })
                : await measureVolume(ends, path, { ...way, bytes }),
            )
          })
    const seconds = ((performance.now() - began) / 1000).toFixed(1)
    process.stderr.write(`  ${streams} streams done, ${seconds} s\n`)
  }
}

/** From so many lines on it is a volume that is timed, not a window. */
const MANY = 256
/** Rounds there are even where the time is over, unless it is long over. */
const LEAST = 3

/** Every round begins with another path, so that nobody always follows the same one. */
function turned<T>(list: readonly T[], by: number): T[] {
  const at = list.length === 0 ? 0 : by % list.length
  return [...list.slice(at), ...list.slice(0, at)]
}
