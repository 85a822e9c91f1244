/** Who listens for each target now, looked at every few seconds, told when it changes. */
import type { Clock } from '#tunnel'
import type { Target } from './config.ts'
import type { Observed } from './scope/observed.ts'
import type { ProcessScope } from './scope/owner.ts'

/** One target as the gateway is told of it. `listener` null: nobody listens, or it is not on this machine. */
export interface TargetReport {
  readonly process: string
  readonly kind: Target['kind']
  readonly listener: Observed | null
}

const LOOK_EVERY_MS = 3000
/** Every so many looks is one at all processes: somebody may have joined those who listen. */
const FULL_LOOK_EVERY = 5

export class ListenerWatch implements Disposable {
  readonly #scope: ProcessScope
  readonly #targets: ReadonlyMap<string, Target>
  readonly #clock: Clock
  readonly #changed: (reports: readonly TargetReport[]) => void
  readonly #failed: (error: unknown) => void
  #last: readonly TargetReport[] | undefined
  #cancel: (() => void) | undefined
  #stopped = false
  #looks = 0

  /** `changed` is called with all targets whenever one of them differs from the look before. */
  constructor(options: {
    readonly scope: ProcessScope
    readonly targets: ReadonlyMap<string, Target>
    readonly clock: Clock
    readonly changed: (reports: readonly TargetReport[]) => void
    readonly failed: (error: unknown) => void
  }) {
    this.#scope = options.scope
    this.#targets = options.targets
    this.#clock = options.clock
    this.#changed = options.changed
    this.#failed = options.failed
  }

  /** The last look; empty before the first. */
  get current(): readonly TargetReport[] {
    return this.#last ?? []
  }

  /** Looks now, then every few seconds until disposed. Resolves after the first look. */
  async start(): Promise<void> {
    try {
      await this.#look()
    } catch (error) {
      this.#failed(error)
    }
    if (this.#stopped) return
    this.#cancel = this.#clock.after(LOOK_EVERY_MS, () => void this.start())
  }

  [Symbol.dispose](): void {
    this.#stopped = true
    this.#cancel?.()
  }

  async #look(): Promise<void> {
    const local = [...this.#targets].filter(([, target]) => target.kind === 'tcp')
    const seen = await this.#scope.observeListeners(
      local.map(([, target]) => target.endpoint),
      this.#looks++ % FULL_LOOK_EVERY === 0,
    )
    const byName = new Map(local.map(([name], at) => [name, seen[at] ?? null]))
    const reports = [...this.#targets].map(([process, { kind }]) => ({
      process,
      kind,
      listener: byName.get(process) ?? null,
    }))
    const changed = JSON.stringify(reports) !== JSON.stringify(this.#last)
    this.#last = reports
    if (changed && !this.#stopped) this.#changed(reports)
  }
}
