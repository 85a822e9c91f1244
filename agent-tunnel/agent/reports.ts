/** Who listens for each target now, looked at every few seconds, told when it changes. */
import type { Clock } from '#tunnel'
import { Refused } from './ask.ts'
import type { Spawned } from './spawn/declaration.ts'
import { Program } from './spawn/program.ts'
import { listenedFor, reachedAt } from './target.ts'
import type { Target } from './target.ts'
import type { Observed } from './scope/observed.ts'
import type { ProcessScope } from './scope/owner.ts'

/** One target as the gateway is told of it. `listener` null: nobody listens, or it is not on this machine. */
export interface TargetReport {
  readonly process: string
  readonly kind: Target['kind']
  readonly listener: Observed | null
  /** Every TCP address that those who listen for it listen on; null where that could not be seen. */
  readonly listens: readonly string[] | null
}

/** All targets, and how far they could be looked at. */
export interface TargetsReport {
  readonly targets: readonly TargetReport[]
  /** Processes that could not be read for lack of privilege: a further owner could be among them. */
  readonly unreadable: number
}

const LOOK_EVERY_MS = 3000
/** Every so many looks is one at all processes: somebody may have joined those who listen. */
const FULL_LOOK_EVERY = 5

export class ListenerWatch implements Disposable {
  readonly #scope: ProcessScope
  readonly #targets: ReadonlyMap<string, Target>
  readonly #clock: Clock
  readonly #changed: (report: TargetsReport) => void
  readonly #failed: (error: unknown) => void
  #last: TargetsReport | undefined
  #cancel: (() => void) | undefined
  #stopped = false
  #looks = 0
  /** The look on its way, and the one behind it. */
  #looking: Promise<void> | undefined
  #next: Promise<void> | undefined

  /** `changed` is called with all targets whenever one of them differs from the look before: once a look at most. */
  constructor(options: {
    readonly scope: ProcessScope
    readonly targets: ReadonlyMap<string, Target>
    readonly clock: Clock
    readonly changed: (report: TargetsReport) => void
    readonly failed: (error: unknown) => void
  }) {
    this.#scope = options.scope
    this.#targets = options.targets
    this.#clock = options.clock
    this.#changed = options.changed
    this.#failed = options.failed
  }

  /** The last look; empty before the first. */
  get current(): TargetsReport {
    return this.#last ?? { targets: [], unreadable: 0 }
  }

  /** Looks now, then every few seconds until disposed. Resolves after the first look. */
  async start(): Promise<void> {
    await this.lookNow()
    if (this.#stopped) return
    this.#cancel = this.#clock.after(LOOK_EVERY_MS, () => void this.start())
  }

  /** One look more, begun after this call; who calls during a look shares the next. Resolves when it is done, never rejects. */
  async lookNow(): Promise<void> {
    if (this.#looking === undefined) return await this.#begin()
    this.#next ??= this.#looking.then(() => {
      this.#next = undefined
      return this.#begin()
    })
    await this.#next
  }

  #begin(): Promise<void> {
    if (this.#stopped) return Promise.resolve()
    this.#looking = this.#look()
      .catch((error: unknown) => this.#failed(error))
      .finally(() => (this.#looking = undefined))
    return this.#looking
  }

  [Symbol.dispose](): void {
    this.#stopped = true
    this.#cancel?.()
  }

  /** Of programs that are started for a session: what would be started now. */
  async #programs(): Promise<readonly (readonly [string, Observed | null])[]> {
    const declared = [...this.#targets].flatMap(([name, target]) =>
      target.kind === 'spawn' ? [[name, target] as const] : [],
    )
    return Promise.all(
      declared.map(async ([name, target]) => [name, await this.#program(target)] as const),
    )
  }

  async #program(target: Spawned): Promise<Observed | null> {
    try {
      using program = await Program.open(target, this.#scope.executables, 'listener')
      return program.observed
    } catch (error) {
      // It cannot be started now: nobody is there.
      if (error instanceof Refused) return null
      throw error
    }
  }

  async #look(): Promise<void> {
    const local = listenedFor(this.#targets)
    const seen = await this.#scope.exposures(
      local.map(([, target]) => reachedAt(target)),
      this.#looks++ % FULL_LOOK_EVERY === 0,
    )
    const byName = new Map(local.map(([name], at) => [name, seen[at]]))
    const programs = new Map(await this.#programs())
    const targets = [...this.#targets].map(([process, { kind }]): TargetReport => {
      const { observed = programs.get(process) ?? null, listens = [] } = byName.get(process) ?? {}
      return { process, kind, listener: observed, listens }
    })
    const report = { targets, unreadable: this.#scope.unreadable }
    const changed = this.#last === undefined || !sameReport(report, this.#last)
    this.#last = report
    if (changed && !this.#stopped) this.#changed(report)
  }
}

/** Whether two looks saw the same. */
export function sameReport(one: TargetsReport, other: TargetsReport): boolean {
  return comparable(one) === comparable(other)
}

/** Processes come and go: their number alone is no change, whether there are any is. */
function comparable({ targets, unreadable }: TargetsReport): string {
  return JSON.stringify([targets, unreadable > 0])
}
