/**
 * A Modbus connection held to its session's rules on the device too: whatever the gateway let pass is
 * judged again, by the same room. What is refused here got past the gateway, and is logged as such.
 */
import { ModbusGate } from '#ot'
import type { GateOutcome, ModbusOptions, ModbusVerdict, Window } from '#ot'
import type { Clock } from '#tunnel'
import type { Log } from './log.ts'

/** Where judged bytes go. */
export interface ModbusEnds {
  readonly toTarget: (frame: Uint8Array) => void
  readonly toClient: (frame: Uint8Array) => void
  /** The connection must end. */
  readonly violated: (message: string) => void
}

const MAX_WINDOW_LISTS = 16
const MAX_WINDOWS = 256
/** Refusals are told one by one up to this many a second. */
const LOGGED_EVERY_MS = 1000

/**
 * The rules in an OPEN's obligations. Undefined where they are not of the form: then no session.
 * A level over 2 is no level.
 */
export function modbusRules(obligations: unknown): ModbusOptions | undefined {
  if (typeof obligations !== 'object' || obligations === null) return undefined
  const { ot_level: level, ot_windows: lists } = obligations as Record<string, unknown>
  if (level !== 0 && level !== 1 && level !== 2) return undefined
  if (!Array.isArray(lists) || lists.length > MAX_WINDOW_LISTS) return undefined
  const windows: Window[][] = []
  for (const list of lists as unknown[]) {
    if (!Array.isArray(list) || list.length > MAX_WINDOWS) return undefined
    const read = (list as unknown[]).map(windowOf)
    if (read.some((window) => window === undefined)) return undefined
    windows.push(read.filter((window) => window !== undefined))
  }
  return { level, windows }
}

function windowOf(value: unknown): Window | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { unit, from, to } = value as Record<string, unknown>
  const within = (number: unknown, most: number): number is number =>
    Number.isInteger(number) && Number(number) >= 0 && Number(number) <= most
  if (!within(unit, 255) || !within(from, 65_535) || !within(to, 65_535)) return undefined
  return { unit, from, to }
}

export class ModbusLine {
  readonly #gate: ModbusGate
  readonly #ends: ModbusEnds
  readonly #clock: Clock
  readonly #refused: (verdict: ModbusVerdict, count: number) => void
  #cancel = () => {}
  #loggedAt = -Infinity
  #unlogged = 0
  #over = false

  constructor(rules: ModbusOptions, ends: ModbusEnds, clock: Clock, log: Log, session: string) {
    this.#gate = new ModbusGate(rules)
    this.#ends = ends
    this.#clock = clock
    this.#refused = ({ unit, functionCode, address, exception }, count) =>
      log('warn', 'modbus.refused', { session, unit, functionCode, address, exception, count })
  }

  /** Octets of the client, as the gateway passed them. */
  fromClient(chunk: Uint8Array): void {
    if (!this.#over) this.#settle(this.#gate.fromClient(chunk, this.#clock.now()))
  }

  fromTarget(chunk: Uint8Array): void {
    if (!this.#over) this.#settle(this.#gate.fromTarget(chunk, this.#clock.now()))
  }

  stop(): void {
    this.#over = true
    this.#cancel()
  }

  #settle(made: GateOutcome): void {
    for (const frame of made.toTarget) this.#ends.toTarget(frame)
    for (const frame of made.toClient) this.#ends.toClient(frame)
    for (const verdict of made.verdicts) if (!verdict.allowed) this.#tell(verdict)
    this.#cancel()
    if (made.violation !== undefined) {
      this.#over = true
      this.#ends.violated(made.violation.message)
      return
    }
    const at = this.#gate.wakeAt()
    if (at === undefined) return
    const wait = Math.max(1, at - this.#clock.now())
    this.#cancel = this.#clock.after(wait, () => {
      if (!this.#over) this.#settle(this.#gate.tick(this.#clock.now()))
    })
  }

  #tell(verdict: ModbusVerdict): void {
    this.#unlogged++
    if (this.#clock.now() - this.#loggedAt < LOGGED_EVERY_MS) return
    this.#refused(verdict, this.#unlogged)
    this.#loggedAt = this.#clock.now()
    this.#unlogged = 0
  }
}
