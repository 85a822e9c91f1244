/** The policy of a node: booted from its slots, watched, and settled as last good after ten clean minutes. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { BUILTIN_BUNDLE, examine, PolicyEngine } from '#policy'
import type { HighWater, PublicKeys } from '#policy'
import { bootPolicy } from './boot.ts'
import type { Boot } from './boot.ts'
import { examineApart } from './examiner.ts'
import { PolicySlots } from './slots.ts'
import { Watchdog } from './watchdog.ts'

const CLEAN_MS = 600_000

export interface NodePolicy {
  readonly engine: PolicyEngine
  readonly boot: Boot
}

/** The keys trusted to sign policies: `<key id>.pem` each. A missing directory trusts nobody. */
export function trustedKeys(directory: string): PublicKeys {
  try {
    const names = readdirSync(directory).filter((name) => name.endsWith('.pem'))
    return new Map(
      names.map((name) => [name.slice(0, -4), readFileSync(join(directory, name), 'utf8')]),
    )
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return new Map()
    throw error
  }
}

/**
 * Opens the policy of a node.
 * Takes: its directory (slots, and `keys/` with those who may sign), what the log remembers of earlier
 * bundles, and the stack that undoes it. Where no bundle can be used the engine denies everything, and
 * `boot.passed` says why.
 */
export async function openNodePolicy(
  directory: string,
  marks: readonly HighWater[],
  undo: AsyncDisposableStack,
): Promise<NodePolicy> {
  const slots = PolicySlots.open(directory)
  const watchdog = undo.use(new Watchdog({ directory }))
  const engine = PolicyEngine.unavailable({ guard: watchdog.guard })
  const boot = await bootPolicy({
    slots,
    keys: trustedKeys(join(directory, 'keys')),
    builtin: readFileSync(BUILTIN_BUNDLE),
    marks,
    // The built-in one is known to the byte; another one may loop before it is trusted.
    examine: (bytes, options) =>
      options.trust === 'builtin' ? examine(bytes, options) : examineApart(bytes, options),
  })
  const { candidate, origin } = boot
  if (candidate === null) return { engine, boot }
  engine.adopt(candidate)
  const { seq, digest } = candidate.identity
  // The built-in one cannot be left out of the next start: there is nothing behind it.
  watchdog.watch(origin === 'builtin' ? null : digest)
  if (origin === 'active') {
    const timer = setTimeout(() => settleIfClean(engine, slots, { seq, digest }), CLEAN_MS)
    timer.unref()
    undo.defer(() => clearTimeout(timer))
  }
  return { engine, boot }
}

function settleIfClean(engine: PolicyEngine, slots: PolicySlots, mark: HighWater): void {
  const { bundle_digest, errors } = engine.status()
  if (bundle_digest === mark.digest && errors === 0) slots.settle(mark)
}
