/** A Modbus session's connection held to its obligations: refused requests are answered, counted and logged. */
import type { AuditLog } from '#audit'
import { ModbusGate, type GateOutcome, type ModbusVerdict } from '#ot'
import { actorOf } from '../events.ts'
import { heldLevel } from '../sessions/stream.ts'
import type { LiveSession } from '../sessions/live.ts'
import type { Tap } from '../recordings/taps.ts'
import type { Filter, Filtered } from './splice.ts'

/** The first refusal is an event at once; those after it are counted, one event a second. */
const COUNT_MS = 1000

/** The filter of one connection. The agent has the same rules. */
export function modbusFilter(
  session: LiveSession,
  log: Pick<AuditLog, 'append'>,
  report: (error: unknown, what: string) => void,
  tap?: Tap,
): Filter {
  const { ot_level, ot_windows } = session.obligations
  const gate = new ModbusGate({ level: heldLevel(ot_level), windows: ot_windows })
  const refusals = new Refusals(session, log, report)
  let act: ((made: Filtered) => void) | undefined
  let timer: NodeJS.Timeout | undefined
  const arm = () => {
    clearTimeout(timer)
    const at = gate.wakeAt()
    if (at === undefined) return
    timer = setTimeout(
      () => {
        const out = gate.tick(performance.now())
        act?.(settle(out, 'client'))
        arm()
      },
      Math.max(1, at - performance.now()),
    )
    timer.unref()
  }
  const settle = (out: GateOutcome, from: 'client' | 'device'): Filtered => {
    tap?.judged(from === 'client' ? 'in' : 'out', out)
    for (const verdict of out.verdicts) if (!verdict.allowed) refusals.add(verdict)
    if (out.violation !== undefined) refusals.violation(out.violation.message)
    const cut = out.violation
    return from === 'client'
      ? { onward: out.toTarget, back: out.toClient, cut }
      : { onward: out.toClient, back: [], cut }
  }
  return {
    attach(given) {
      act = given
    },
    fromClient(chunk) {
      const made = settle(gate.fromClient(chunk, performance.now()), 'client')
      arm()
      return made
    },
    fromDevice(chunk) {
      const made = settle(gate.fromTarget(chunk, performance.now()), 'device')
      arm()
      return made
    },
    stop() {
      clearTimeout(timer)
      refusals.stop()
    },
  }
}

class Refusals {
  readonly #session: LiveSession
  readonly #log: Pick<AuditLog, 'append'>
  readonly #report: (error: unknown, what: string) => void
  #count = 0
  #last: ModbusVerdict | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(
    session: LiveSession,
    log: Pick<AuditLog, 'append'>,
    report: (error: unknown, what: string) => void,
  ) {
    this.#session = session
    this.#log = log
    this.#report = report
  }

  add(verdict: ModbusVerdict): void {
    this.#session.denials++
    if (this.#timer !== undefined) {
      this.#count++
      this.#last = verdict
      return
    }
    this.#tell('ot.deny', verdict, 1)
    this.#timer = setTimeout(() => this.#flush(), COUNT_MS)
    this.#timer.unref()
  }

  violation(message: string): void {
    this.#append('ot.violation', message, {})
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#flush()
  }

  #flush(): void {
    this.#timer = undefined
    if (this.#last !== undefined) this.#tell('ot.deny', this.#last, this.#count)
    this.#count = 0
    this.#last = undefined
  }

  #tell(code: 'ot.deny', verdict: ModbusVerdict, count: number): void {
    this.#append(
      code,
      `Modbus function ${verdict.functionCode} refused ${count === 1 ? 'once' : `${count} times`}`,
      {
        unit: verdict.unit,
        function_code: verdict.functionCode,
        address: verdict.address ?? undefined,
        quantity: verdict.quantity ?? undefined,
        exception: verdict.exception ?? undefined,
        count,
      },
    )
  }

  #append(
    code: 'ot.deny' | 'ot.violation',
    message: string,
    data: {
      unit?: number
      function_code?: number
      address?: number | undefined
      quantity?: number | undefined
      exception?: number | undefined
      count?: number
    },
  ): void {
    const { device, process, grant, id, subject } = this.#session
    this.#log
      .append({
        code,
        message,
        status: 'failure',
        disposition: 'blocked',
        actor: actorOf(subject),
        device,
        process,
        grant,
        session: id,
        data,
      })
      .catch((error: unknown) =>
        this.#report(error, `a refusal in session ${id} could not be recorded`),
      )
  }
}
