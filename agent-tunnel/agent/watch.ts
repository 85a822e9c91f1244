/**
 * Looks again, each second of a stream, at who owns its other end. Another owner is told; one that any
 * declaration could tell from the first ends the stream, and so does an owner that cannot be seen again.
 */
import type { Clock } from '#tunnel'
import type { ForwardCode } from './ask.ts'
import { messageOf } from './errors.ts'
import type { Log } from './log.ts'
import { LOOK_TIMEOUT_MS } from './observe.ts'
import { sameFacts, unseen } from './scope/observed.ts'
import type { Observed } from './scope/observed.ts'
import type { ProcessScope, Sighting } from './scope/owner.ts'

export interface OwnerWatchOptions {
  readonly session: string
  readonly scope: ProcessScope
  readonly clock: Clock
  readonly log: Log
  readonly end: (code: ForwardCode, message: string) => void
  /** All processes have been looked at; called once, where `first` was not complete. */
  readonly completed: () => void
  /** The owners are others now, alike in everything a declaration can name. */
  readonly resighted: (sighting: Sighting) => void
  /** Tells the gateway that another process owns the session's connection now. */
  readonly ownerChanged: (session: string, observed: Observed) => void
}

const RECHECK_MS = 1000
/** Every so many looks at the known owners comes one at all processes: somebody may have joined. */
const FULL_LOOK_EVERY = 15

export class OwnerWatch implements Disposable {
  readonly #options: OwnerWatchOptions
  #sighting: Sighting
  #incomplete: boolean
  #stopped = false
  #looking = false
  #cancel = () => {}

  constructor(first: Sighting, options: OwnerWatchOptions) {
    this.#sighting = first
    this.#incomplete = !first.complete
    this.#options = options
    if (this.#incomplete) this.#start(true)
    else this.#schedule()
  }

  /** Looks at once, unless a look is on its way. */
  lookNow(): void {
    if (this.#stopped || this.#looking) return
    this.#cancel()
    this.#start(true)
  }

  [Symbol.dispose](): void {
    this.#stopped = true
    this.#cancel()
  }

  async #look(full: boolean): Promise<void> {
    const { clock, scope, end } = this.#options
    const hung = () => end('process.changed', 'the owner of the connection can no longer be seen')
    const cancelHung = clock.after(LOOK_TIMEOUT_MS, hung)
    const again = await scope.recheck(this.#sighting, full).finally(cancelHung)
    if (this.#stopped) return
    if (again.state === 'changed' && !this.#changed(again.sighting)) return
    if (again.state === 'closed' && !this.#closed()) return
    if (this.#incomplete) this.#options.completed()
    this.#incomplete = false
    this.#schedule()
  }

  /** False: that was the end of the stream. */
  #changed(now: Sighting | undefined): boolean {
    const { session, log, ownerChanged, end, resighted } = this.#options
    const observed = now?.observed ?? unseen('accepted')
    const before = this.#sighting.observed
    const alike = now !== undefined && sameFacts(before, observed)
    log('warn', 'owner.changed', { session, alike, before, observed })
    ownerChanged(session, observed)
    if (alike) {
      this.#sighting = now
      resighted(now)
    } else end('process.changed', 'another program owns the connection now')
    return alike
  }

  /** A connection tells its end itself; where there is none, nobody is there any more. */
  #closed(): boolean {
    const { end } = this.#options
    if (this.#incomplete)
      end('process.changed', 'the target closed before all processes were looked at')
    else if (this.#sighting.dialled.transport === 'udp')
      end('target.closed', 'the process on the device is no longer bound to its port')
    else return true
    return false
  }

  #start(full: boolean): void {
    this.#looking = true
    const { session, log, end } = this.#options
    this.#look(full)
      .catch((error: unknown) => {
        log('error', 'owner.unchecked', { session, reason: messageOf(error) })
        end('process.changed', 'the owner of the connection can no longer be seen')
      })
      .finally(() => (this.#looking = false))
  }

  // On the clock's full seconds, all connections at once: they share their looks.
  #schedule(): void {
    const { clock } = this.#options
    const second = Math.round(clock.now() / RECHECK_MS) + 1
    this.#cancel = clock.after(second * RECHECK_MS - clock.now(), () =>
      this.#start(second % FULL_LOOK_EVERY === 0),
    )
  }
}
