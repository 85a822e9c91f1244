/**
 * Watches what devices expose: a change is recorded, kept, and decides the sessions of the device
 * again. A device that changes without end is recorded once a minute after the first few, with how often
 * it changed; what it settles on is always recorded.
 */
import type { AuditLog, Json } from '#audit'
import type { Clock } from '#tunnel'
import type { Reauthorization } from '../sessions/reevaluate.ts'
import { differences, hasDrift } from './inventory.ts'
import type { Baseline, Difference, Inventory, InventoryStore, KeptInventory } from './inventory.ts'

export interface InventoryRoom {
  readonly store: InventoryStore
  readonly log: Pick<AuditLog, 'append'>
  readonly reauthorization: Pick<Reauthorization, 'withdraw'>
  /** Monotonic time and timers. */
  readonly clock: Clock
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

/** One record of a device in this time, ms, after so many at once. */
export const RECORD_EVERY_MS = 60_000
export const RECORDS_AT_ONCE = 4
/** After a record that failed it is tried again, ms. */
const RETRY_MS = 5000

/** What is known of one device since this node started. */
interface Standing {
  newest: KeptInventory
  /** How often `newest` was replaced by another since the last record. */
  changes: number
  /** Monotonic: until then records are paid for, each with `RECORD_EVERY_MS`. */
  paidUntil: number
  /** Monotonic: no record before. */
  notBefore: number
  recording: boolean
  /** A withdrawal runs; `again` when another is due after it. */
  deciding: boolean
  again: boolean
  cancel: (() => void) | undefined
}

export class InventoryWatch implements Disposable {
  readonly #room: InventoryRoom
  readonly #standings = new Map<string, Standing>()
  #stopped = false

  constructor(room: InventoryRoom) {
    this.#room = room
  }

  /** Takes what the agent of a registered `device` says it exposes now. */
  seen(device: string, inventory: Inventory): void {
    const before = this.#standings.get(device)
    if (before?.newest.hash === inventory.hash) {
      before.newest = { ...before.newest, unreadable: inventory.unreadable }
      return
    }
    const newest = { ...inventory, at: Math.floor(this.#room.now() / 1000) }
    const standing: Standing = before ?? {
      newest,
      changes: 0,
      paidUntil: 0,
      notBefore: 0,
      recording: false,
      deciding: false,
      again: false,
      cancel: undefined,
    }
    if (before === undefined) this.#standings.set(device, standing)
    else standing.changes++
    standing.newest = newest
    void this.#decideAgain(device, standing)
    this.#schedule(device, standing)
  }

  /** What `device` last told, recorded yet or not; undefined where it never did. */
  async current(device: string): Promise<KeptInventory | undefined> {
    return this.#standings.get(device)?.newest ?? (await this.#room.store.inventory(device))
  }

  /** What was accepted of `device`. */
  baseline(device: string): Promise<Baseline | undefined> {
    return this.#room.store.baseline(device)
  }

  /** Resolves when `baseline` is the one of `device`, durably. */
  accept(device: string, baseline: Baseline): Promise<void> {
    return this.#room.store.accept(device, baseline)
  }

  [Symbol.dispose](): void {
    this.#stopped = true
    for (const { cancel } of this.#standings.values()) cancel?.()
  }

  /** One withdrawal of a device at a time: changes during it are asked about together after it. */
  async #decideAgain(device: string, standing: Standing): Promise<void> {
    standing.again = true
    if (standing.deciding) return
    standing.deciding = true
    try {
      while (standing.again) {
        standing.again = false
        // Where nobody listens there is nobody else either; a connection there fails by itself.
        const listening = new Set(
          standing.newest.processes
            .filter(({ programs }) => programs.length > 0)
            .map(({ process }) => process),
        )
        await this.#room.reauthorization.withdraw(
          (session) => session.device === device && listening.has(session.process),
          { trigger: 'process', at: performance.now() },
        )
      }
    } catch (error) {
      this.#room.report(error, `sessions of ${device} could not be decided again`)
    } finally {
      standing.deciding = false
    }
  }

  #schedule(device: string, standing: Standing): void {
    if (standing.recording || standing.cancel !== undefined || this.#stopped) return
    const wait = standing.notBefore - this.#room.clock.now()
    if (wait <= 0) void this.#record(device, standing)
    else
      standing.cancel = this.#room.clock.after(wait, () => {
        standing.cancel = undefined
        void this.#record(device, standing)
      })
  }

  async #record(device: string, standing: Standing): Promise<void> {
    const { clock, report } = this.#room
    const { newest, changes } = standing
    standing.recording = true
    standing.changes = 0
    let due = false
    try {
      if (await this.#recorded(device, newest, changes)) this.#paid(standing)
    } catch (error) {
      due = true
      standing.changes += changes
      standing.notBefore = clock.now() + RETRY_MS
      report(error, `what ${device} exposes could not be recorded`)
    }
    standing.recording = false
    if (due || standing.changes > 0) this.#schedule(device, standing)
  }

  #paid(standing: Standing): void {
    const now = this.#room.clock.now()
    standing.paidUntil = Math.max(standing.paidUntil, now) + RECORD_EVERY_MS
    standing.notBefore = standing.paidUntil - (RECORDS_AT_ONCE - 1) * RECORD_EVERY_MS
  }

  /** False where it is as it was kept, and nothing happened meanwhile. */
  async #recorded(device: string, newest: KeptInventory, changes: number): Promise<boolean> {
    const { store, log } = this.#room
    const [before, baseline] = await Promise.all([store.inventory(device), store.baseline(device)])
    const same = before?.hash === newest.hash
    if (same && changes === 0) return false
    const found = baseline === undefined ? [] : differences(baseline.processes, newest.processes)
    const drift = hasDrift(found)
    const often = changes > 1 ? ` after ${changes} changes` : ''
    const standing = baseline === undefined ? 'no baseline is accepted' : said(drift)
    await log.append({
      code: 'device.inventory',
      message: `${device} exposes ${newest.processes.length} processes, ${same ? 'as before' : 'changed'}${often}; ${standing}`,
      status: 'success',
      device,
      data: {
        targets: json({
          hash: newest.hash,
          processes: newest.processes.length,
          unreadable: newest.unreadable,
          changes,
          changed: told(differences(before?.processes ?? [], newest.processes)),
        }),
        baseline:
          baseline === undefined ? null : json({ hash: baseline.hash, differences: told(found) }),
        drift,
      },
    })
    if (drift && !same) await log.append(finding(device, found))
    await store.putInventory(device, newest)
    return true
  }
}

function said(drift: boolean): string {
  return drift ? 'it is not the accepted baseline' : 'as accepted'
}

function finding(device: string, found: readonly Difference[]) {
  const drifted = found.filter(({ drift }) => drift).map(({ process }) => process)
  const names = [...new Set(drifted)].slice(0, MAX_TOLD)
  return {
    code: 'finding.drift',
    message: `${device} exposes other than was accepted: ${names.join(', ')}`,
    status: 'success',
    device,
    data: {
      finding: 'inventory.drift',
      title: 'What a device exposes is not its accepted baseline',
      detail: json(told(found)),
    },
  } as const
}

/** An event is 32 KiB at most, and holds two such lists: as many rows as fit; the hash stands for all. */
const MAX_TOLD = 32
const MAX_TEXT = 256
const MAX_TOLD_BYTES = 8192

function told(found: readonly Difference[]): object {
  const cut = (text: string | null) =>
    text === null || text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}…`
  const rows: Difference[] = []
  let bytes = 0
  for (const one of found.slice(0, MAX_TOLD)) {
    const row = { ...one, accepted: cut(one.accepted), current: cut(one.current) }
    bytes += Buffer.byteLength(JSON.stringify(row))
    if (bytes > MAX_TOLD_BYTES) break
    rows.push(row)
  }
  return { rows, more: found.length - rows.length }
}

/** Event data is plain JSON. */
function json(value: object): Json {
  return JSON.parse(JSON.stringify(value)) as Json
}
