/**
 * One sink over the epochs of a log: what an epoch that ended still owes it is sent beside the newest one, each from its
 * own cursor, and to whoever asks it is one sink. docs/audit.md section "Epochs".
 */
import { join } from 'node:path'
import type { AuditLog, ShippedLog } from '../contract.ts'
import type { EndedEpoch } from '../succession.ts'
import { cursorOf } from './cursor.ts'
import type { Shipper, SinkHealth } from './sink.ts'

/** An ended epoch as a sink sees a log: nothing is added to it, and what the sink has to say goes into the newest. */
function shipped({ directory, origin, last }: EndedEpoch, log: AuditLog): ShippedLog {
  return {
    directory,
    origin,
    size: last.size,
    signed: last,
    append: (event) => log.append(event),
    checkpoint: async () => last,
    onCheckpoint: () => () => undefined,
  }
}

const worst = ['DOWN', 'LAGGING', 'OK'] as const

/** Several epochs' shippers as one; the last is the newest epoch's. */
class Together implements Shipper {
  readonly #all: readonly [Shipper, ...Shipper[]]

  constructor(newest: Shipper, older: readonly Shipper[]) {
    this.#all = [newest, ...older]
  }

  health(): SinkHealth {
    const [newest] = this.#all
    const every = this.#all.map((one) => one.health())
    const sum = (of: (one: SinkHealth) => number): number =>
      every.reduce((total, one) => total + of(one), 0)
    return {
      ...newest.health(),
      state: worst.find((state) => every.some((one) => one.state === state)) ?? 'OK',
      sent: sum(({ sent }) => sent),
      connects: sum(({ connects }) => connects),
      rewinds: sum(({ rewinds }) => rewinds),
      stubs: sum(({ stubs }) => stubs),
      lastError: every.find(({ lastError }) => lastError !== null)?.lastError ?? null,
    }
  }

  lag(): { readonly events: number } {
    return { events: this.#all.reduce((total, one) => total + one.lag().events, 0) }
  }

  async flush(timeoutMs: number): Promise<boolean> {
    const flushed = await Promise.all(this.#all.map((one) => one.flush(timeoutMs)))
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
 * it where the sink is new. `ship` begins one; `over`: that epoch has ended.
 */
export function shipEpochs(
  log: AuditLog,
  ended: readonly EndedEpoch[],
  name: string,
  ship: (one: ShippedLog, over: boolean) => Shipper,
): Shipper {
  const owing = ended.filter(
    ({ directory, last }) => (cursorOf(join(directory, 'ship', `${name}.cur`)) ?? 0) < last.size,
  )
  const newest = ship(log, false)
  if (owing.length === 0) return newest
  return new Together(
    newest,
    owing.map((one) => ship(shipped(one, log), true)),
  )
}
