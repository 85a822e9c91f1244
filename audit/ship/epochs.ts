/**
 * One sink over the epochs of a log: what an epoch that ended still owes it is sent beside the newest one, each from its
 * own cursor and until that is at the end, and to whoever asks it is one sink. docs/audit.md section "Epochs".
 */
import { join } from 'node:path'
import type { AuditLog, ShippedLog } from '../contract.ts'
import type { EndedEpoch } from '../succession.ts'
import { cursorOf } from './cursor.ts'
import type { Shipper, SinkHealth } from './sink.ts'

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

/** Several epochs' shippers as one. What has finished counts in the sums, and is asked nothing else. */
class Together implements Shipper {
  readonly #newest: Shipper
  readonly #all: readonly Shipper[]
  readonly #finished: ReadonlySet<Shipper>

  constructor(newest: Shipper, older: readonly Shipper[], finished: ReadonlySet<Shipper>) {
    this.#newest = newest
    this.#all = [newest, ...older]
    this.#finished = finished
  }

  health(): SinkHealth {
    const every = this.#all.map((one) => one.health())
    const going = this.#going().map((one) => one.health())
    const sum = (of: (one: SinkHealth) => number): number =>
      every.reduce((total, one) => total + of(one), 0)
    return {
      ...this.#newest.health(),
      state: worst.find((state) => going.some((one) => one.state === state)) ?? 'OK',
      sent: sum(({ sent }) => sent),
      connects: sum(({ connects }) => connects),
      rewinds: sum(({ rewinds }) => rewinds),
      stubs: sum(({ stubs }) => stubs),
      owed: sum(({ owed }) => owed),
      lastError: going.find(({ lastError }) => lastError !== null)?.lastError ?? null,
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
  log: AuditLog,
  ended: readonly EndedEpoch[],
  name: string,
  ship: (one: ShippedLog) => Shipper,
): Shipper {
  const owing = ended.filter(
    ({ directory, last }) => (cursorOf(join(directory, 'ship', `${name}.cur`)) ?? 0) < last.size,
  )
  const newest = ship(log)
  if (owing.length === 0) return newest
  const finished = new Set<Shipper>()
  const older = owing.map((epoch) => {
    const one: Shipper = ship(
      shipped(epoch, log, () => {
        finished.add(one)
        void one.close()
      }),
    )
    return one
  })
  return new Together(newest, older, finished)
}
