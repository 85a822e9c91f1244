/** The policy of a node: booted from its slots, watched, and settled as last good after ten clean minutes. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { BUILTIN_BUNDLE, examine, PolicyEngine } from '#policy'
import type { HighWater, PublicKeys, Staleness } from '#policy'
import { bootPolicy } from './boot.ts'
import type { Boot } from './boot.ts'
import { examineApart } from './examiner.ts'
import type { Examine } from './examiner.ts'
import { PolicySlots } from './slots.ts'
import { Watchdog } from './watchdog.ts'

const CLEAN_MS = 600_000

/** The parts a node's policy is made of; service.ts brings them together. */
export interface PolicyParts {
  readonly engine: PolicyEngine
  readonly boot: Boot
  readonly slots: PolicySlots
  readonly watchdog: Watchdog
  readonly keys: PublicKeys
  /** What a bundle past its age still decides, whichever engine has it; undefined: the engine's own rule. */
  readonly staleness: Staleness | undefined
}

/** The keys trusted to sign policies: `<key id>.pem` each. A missing directory trusts nobody. */
function trustedKeys(directory: string): PublicKeys {
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
  more: {
    readonly keys?: PublicKeys
    readonly now?: () => number
    readonly staleness?: Staleness | undefined
  } = {},
): Promise<PolicyParts> {
  const slots = PolicySlots.open(directory)
  for (const mark of marks) slots.recall(mark)
  const watchdog = undo.use(new Watchdog({ directory }))
  const { now, staleness } = more
  const engine = PolicyEngine.unavailable({
    guard: watchdog.guard,
    ...(now === undefined ? {} : { now }),
    ...(staleness === undefined ? {} : { staleness }),
  })
  const keys = new Map([...trustedKeys(join(directory, 'keys')), ...(more.keys ?? [])])
  const boot = await bootPolicy({
    slots,
    keys,
    builtin: readFileSync(BUILTIN_BUNDLE),
    marks,
    examine: look,
  })
  const parts = { engine, boot, slots, watchdog, keys, staleness }
  const { candidate, origin } = boot
  if (candidate === null) return parts
  engine.adopt(candidate)
  const { digest } = candidate.identity
  // The built-in one cannot be left out of the next start: there is nothing behind it.
  watchdog.watch(origin === 'builtin' ? null : digest)
  // A promotion that a power cut halved: the archive was in place, the mark was not.
  const { high_water: mark } = slots.state
  const { seq } = candidate.identity
  if (origin === 'active' && (mark === null || seq > mark.seq)) slots.raise({ seq, digest })
  return parts
}

/** The built-in one is known to the byte; another one may loop before it is trusted. */
export const look: Examine = (bytes, options) =>
  options.trust === 'builtin' ? examine(bytes, options) : examineApart(bytes, options)

/** After ten minutes without an error, what is in force becomes what a start may fall back to. */
export function settleLater(
  engine: PolicyEngine,
  slots: PolicySlots,
  mark: HighWater,
  failed: (error: unknown) => void,
): Disposable {
  const { errors } = engine.status()
  const timer = setTimeout(() => {
    const now = engine.status()
    if (now.bundle_digest !== mark.digest || now.errors !== errors) return
    try {
      slots.settle(mark)
    } catch (error) {
      failed(error)
    }
  }, CLEAN_MS)
  timer.unref()
  return { [Symbol.dispose]: () => clearTimeout(timer) }
}
