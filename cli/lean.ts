/**
 * How Node runs an agent on a small device. Figures: bench/BASELINE.md; why: docs/decisions/0012-agent-build.md.
 */
import { isSea } from 'node:sea'

/**
 * Node's own arguments: a young generation of 1 MiB and an old one of at most 64, one thread beside the
 * first, and no optimising compilers, which are 3 MiB of code that an agent reads in to save a tenth of
 * what relaying costs.
 */
export const LEAN_ARGUMENTS: readonly string[] = [
  '--max-semi-space-size=1',
  '--max-old-space-size=64',
  '--optimize-for-size',
  '--v8-pool-size=1',
  '--no-maglev',
  '--no-turbofan',
]

/** glibc gives every thread memory of its own to carve up unless it is told otherwise. */
const ARENAS = 'MALLOC_ARENA_MAX'

/** Arguments of Node, and variables. */
export interface Manner {
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
}

/**
 * How an agent is to be run where this one is not run so already; undefined where it is. Whoever gives Node arguments,
 * or sets MALLOC_ARENA_MAX, has chosen: theirs stay.
 */
export function leanManner(): Manner | undefined {
  const chosen = process.execArgv.length > 0 && !isSea()
  if (chosen || process.env[ARENAS] !== undefined) return undefined
  return { args: isSea() ? [] : LEAN_ARGUMENTS, env: { [ARENAS]: '1' } }
}
