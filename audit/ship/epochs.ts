/**
 * One sink over the epochs of a log: what an epoch that ended still owes it is sent beside the newest one, each from its
 * own cursor and until that is at the end, and to whoever asks it is one sink. docs/audit.md section "Epochs".
 */
import { join } from 'node:path'
import type { AuditLog, ShippedLog } from '../contract.ts'
import type { EpochedLog } from '../epoched.ts'
import type { EndedEpoch } from '../succession.ts'
import { cursorOf } from './cursor.ts'
import type { Shipper, SinkHealth } from './sink.ts'

/** A log that is shipped; one that goes over to later epochs while it is written says which it writes, and when. */
export type Shipping = AuditLog & Partial<Pick<EpochedLog, 'newest' | 'onEpoch'>>

/** An ended epoch as a sink sees a log: nothing is added to it, and what the sink has to say goes into the newest. */
function shipped(
  { directory, origin, last }: EndedEpoch,
  log: AuditLog,
  taken: () => void,
): ShippedLog {
  return {
    directory,
    origin,
    size: last.size,
    signed: last,
    append: (event) => log.append(event),
    checkpoint: async () => last,
    onCheckpoint: () => () => undefined,
    taken,
  }
}

const worst = ['DOWN', 'LAGGING', 'OK'] as const

/** The log as the sinks of its newest epoch see it: that epoch alone, and what they have to say goes into whichever it is. */
function newestOf(log: Shipping): ShippedLog {
  const { newest } = log
  if (newest === undefined) return log
  return {
    directory: newest.directory,
    origin: newest.origin,
    get size() {
      return newest.size
    },
    get signed() {
      return newest.signed
    },
    append: (event) => log.append(event),
    // One that has ended is signed to its end.
    checkpoint: () =>
      log.newest === newest ? newest.checkpoint() : Promise.resolve(newest.signed),
    onCheckpoint: (listener) => newest.onCheckpoint(listener),
  }
}

type Ship = (one: ShippedLog) => Shipper

/** Several epochs' shippers as one. What has finished counts in the sums, and is asked nothing else. */
class Together implements Shipper {
  readonly #log: Shipping
  readonly #ship: Ship
  #newest: Shipper
  #all: Shipper[]
  readonly #finished = new Set<Shipper>()
  readonly #unlisten: () => void
  /** Sinks of an epoch that ended meanwhile, on their way from its newest to its last. */
  #moving: Promise<void> = Promise.resolve()
  #closing = false
  /** Why an epoch is not shipped that should be; null: all are. The next start ships it. */
  #left: string | null = null

  constructor(log: Shipping, owing: readonly EndedEpoch[], ship: Ship) {
    this.#log = log
    this.#ship = ship
    this.#newest = ship(newestOf(log))
    this.#all = [this.#newest]
    for (const epoch of owing) this.#rest(epoch)
    this.#unlisten = log.onEpoch?.((ended) => this.#goOver(ended)) ?? (() => undefined)
  }

  /** Ships what an epoch that ended still owes. */
  #rest(epoch: EndedEpoch): void {
    const one: Shipper = this.#ship(
      shipped(epoch, this.#log, () => {
        this.#finished.add(one)
        void one.close()
      }),
    )
    this.#all.push(one)
  }

  /** The log has gone on in its next epoch. One cursor is one shipper's: the rest of the old is begun once that has let go. */
  #goOver(ended: EndedEpoch): void {
    const old = this.#newest
    const leave = (error: unknown): void => {
      this.#left ??= error instanceof Error ? error.message : String(error)
    }
    const moved = old.close().then(() => {
      this.#finished.add(old)
      if (!this.#closing) this.#rest(ended)
    })
    this.#moving = Promise.all([this.#moving, moved.catch(leave)]).then(() => undefined)
    try {
      this.#newest = this.#ship(newestOf(this.#log))
      this.#all.push(this.#newest)
    } catch (error) {
      leave(error)
      throw error
    }
  }

  health(): SinkHealth {
    const every = this.#all.map((one) => one.health())
    const going = this.#going().map((one) => one.health())
    const sum = (of: (one: SinkHealth) => number): number =>
      every.reduce((total, one) => total + of(one), 0)
    return {
      ...this.#newest.health(),
      state:
        this.#left === null
          ? (worst.find((state) => going.some((one) => one.state === state)) ?? 'OK')
          : 'DOWN',
      sent: sum(({ sent }) => sent),
      connects: sum(({ connects }) => connects),
      rewinds: sum(({ rewinds }) => rewinds),
      stubs: sum(({ stubs }) => stubs),
      owed: sum(({ owed }) => owed),
      lastError: this.#left ?? going.find(({ lastError }) => lastError !== null)?.lastError ?? null,
    }
  }

  #going(): readonly Shipper[] {
    return this.#all.filter((one) => !this.#finished.has(one))
  }

  lag(): { readonly events: number } {
    return { events: this.#all.reduce((total, one) => total + one.lag().events, 0) }
  }

  async flush(timeoutMs: number): Promise<boolean> {
    const flushed = await Promise.all(this.#going().map((one) => one.flush(timeoutMs)))
    return flushed.every(Boolean)
  }

  async close(): Promise<void> {
    this.#closing = true
    this.#unlisten()
    await this.#moving
    await Promise.all(this.#all.map((one) => one.close()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/**
 * Ships the newest epoch to the sink `name`, and of each of `ended` what its cursor says that the sink has not got: all of
 * it where the sink is new. `ship` begins one; it is closed once it has taken an epoch that has ended.
 */
export function shipEpochs(
  log: Shipping,
  ended: readonly EndedEpoch[],
  name: string,
  ship: Ship,
): Shipper {
  const owing = ended.filter(
    ({ directory, last }) => (cursorOf(join(directory, 'ship', `${name}.cur`)) ?? 0) < last.size,
  )
  // What nothing is owed of, and what does not go over to another epoch, is one log's.
  if (owing.length === 0 && log.onEpoch === undefined) return ship(log)
  return new Together(log, owing, ship)
}
