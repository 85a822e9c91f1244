/**
 * A Modbus session's connection held to its obligations. What writes is decided by policy, and is in the log before it
 * is on its way; refused requests are answered, counted and logged.
 */
import type { AuditLog } from '#audit'
import { ModbusGate } from '#ot'
import type { GateOutcome, ModbusRequest, ModbusVerdict, Rules, Ruling } from '#ot'
import type { Decision } from '#policy'
import { refOf, type DecisionRef } from '../decisions.ts'
import { actorOf, srcOf } from '../events.ts'
import { coveringGrant, inUse } from '../grants/elevation.ts'
import { expiresAt, type Grant } from '../grants/grant.ts'
import type { LiveSession, LiveStream } from '../sessions/live.ts'
import { openedFacts, sessionFacts, type SessionRoom } from '../sessions/room.ts'
import type { Tap } from '../recordings/taps.ts'
import type { Filter, Filtered } from './splice.ts'

/** The first refusal is an event at once; those after it are counted, one event a second. */
const COUNT_MS = 1000

type Room = Pick<SessionRoom, 'log' | 'decisions' | 'now' | 'report'>

/** The filter of one connection, which `rules` were agreed for with the agent. */
export function modbusFilter(
  room: Room,
  session: LiveSession,
  stream: LiveStream,
  rules: Rules,
  tap?: Tap,
): Filter {
  const refusals = new Refusals(session, room.log, room.report)
  const writes = new Writes(room, session, stream)
  const gate = new ModbusGate({
    ...rules,
    rule: (request) => {
      const ruled = writes.rule(request)
      if (ruled.denied !== undefined) refusals.explain(request.number, ruled.denied)
      if (ruled.ruling === 'hold')
        void writes
          .record(request, ruled)
          .then((recorded) => settle(request.number, recorded && room.now() < ruled.until))
      return ruled.ruling
    },
  })
  let act: ((made: Filtered) => void) | undefined
  let timer: NodeJS.Timeout | undefined
  let passed: (() => void) | undefined
  let stopped = false
  // While the session is held, for the gate no time goes by: nobody is late.
  let frozenAt: number | undefined
  let lost = 0
  const clock = (): number => (frozenAt ?? performance.now()) - lost
  const arm = () => {
    clearTimeout(timer)
    if (stopped || frozenAt !== undefined) return
    const at = gate.wakeAt()
    if (at === undefined) return
    timer = setTimeout(
      () => {
        const out = gate.tick(clock())
        act?.(tell(out, 'client'))
        arm()
        leave()
      },
      Math.max(1, at - clock()),
    )
    timer.unref()
  }
  const tell = (out: GateOutcome, from: 'client' | 'device'): Filtered => {
    tap?.judged(from === 'client' ? 'in' : 'out', out)
    for (const verdict of out.verdicts) {
      if (!verdict.allowed) refusals.add(verdict)
      session.verdicts[verdict.allowed ? 'passed' : 'refused']++
      if (verdict.allowed && verdict.operation === 'write') session.verdicts.writes++
    }
    if (out.violation !== undefined) refusals.violation(out.violation.message)
    const cut = out.violation
    return from === 'client'
      ? { onward: out.toTarget, back: out.toClient, cut }
      : { onward: out.toClient, back: [], cut }
  }
  const leave = () => {
    if (passed === undefined || gate.holding > 0) return
    const done = passed
    passed = undefined
    done()
  }
  /** A write is in the log and in time, or is not. Withdrawn meanwhile, it goes nowhere. */
  const settle = (number: number, fine: boolean) => {
    if (stopped) return
    const passes = fine && session.state === 'open' && stream.narrowed === undefined
    act?.(tell(gate.settle(number, passes, clock()), 'client'))
    arm()
    leave()
  }
  return {
    attach(given) {
      act = given
    },
    fromClient(chunk) {
      const made = tell(gate.fromClient(chunk, clock()), 'client')
      arm()
      return made
    },
    fromDevice(chunk) {
      const made = tell(gate.fromTarget(chunk, clock()), 'device')
      arm()
      return made
    },
    ended(given) {
      passed = given
      leave()
    },
    held(held) {
      if (held) frozenAt ??= performance.now()
      else if (frozenAt !== undefined) {
        lost += performance.now() - frozenAt
        frozenAt = undefined
      }
      arm()
    },
    stop() {
      stopped = true
      clearTimeout(timer)
      refusals.stop()
    },
  }
}

/** What became of one request: with the decisions that let it pass, or the one that did not. */
interface Ruled {
  readonly ruling: Ruling
  readonly decisions: readonly Decision[]
  readonly denied?: Decision
  /** Of a write: the grant that names what is written. */
  readonly by?: Grant | undefined
  /** Of a write: when the first of the grants that let it pass is over, in epoch milliseconds. */
  readonly until: number
}

const untouched = { decisions: [], until: Infinity } as const

/** Operations that policy decides one by one: every write, and under `ot_each` every other. */
class Writes {
  readonly #room: Room
  readonly #session: LiveSession
  readonly #stream: LiveStream

  constructor(room: Room, session: LiveSession, stream: LiveStream) {
    this.#room = room
    this.#session = session
    this.#stream = stream
  }

  /** On what the last decision about the session stood on, at this very moment. */
  rule({ operation, unit, functionCode, spans }: ModbusRequest): Ruled {
    const { obligations, footing, subject, state, grant, elevation, consent } = this.#session
    const writes = operation === 'write'
    if (!writes && !obligations.ot_each) return { ruling: 'pass', ...untouched }
    if (footing === undefined || state !== 'open' || this.#stream.narrowed !== undefined)
      return { ruling: 'refuse', ...untouched }
    // Policy is not asked about what could not be written down as fast as it comes.
    if (writes && !this.#session.writes.take(performance.now()))
      return { ruling: 'busy', ...untouched }
    const decisions: Decision[] = []
    const now = Math.floor(this.#room.now() / 1000)
    let by: Grant | undefined
    let until = Infinity
    const { source, observed = null } = this.#stream
    const grants = inUse(footing.grants, grant)
    const asked = { ...footing.target, consent }
    // One that reads and writes touches two ranges, and must be allowed both.
    for (const span of spans.length === 0 ? [undefined] : spans) {
      const decision = this.#room.decisions.ask('ot.verb', {
        ...sessionFacts(subject, source, asked, grants, observed),
        session: openedFacts(this.#session, null),
        ot: {
          protocol: 'modbus',
          op: writes ? 'write' : 'read',
          function: functionCode,
          unit,
          address: span?.address ?? null,
          count: span?.quantity ?? null,
        },
      })
      if (!decision.allow) return { ruling: 'refuse', ...untouched, denied: decision }
      decisions.push(decision)
      // What is written comes last.
      by = span && coveringGrant(elevation.grants, unit, span, now)
      if (by !== undefined) until = Math.min(until, expiresAt(by) * 1000)
    }
    return { ruling: writes ? 'hold' : 'pass', decisions, by, until }
  }

  /** Whether the write is on disk with the decision that allowed it. Never rejects. */
  async record(
    { unit, functionCode, spans }: ModbusRequest,
    { decisions, by: covering }: Ruled,
  ): Promise<boolean> {
    const { id, subject, device, process, grant } = this.#session
    const written = spans.at(-1)
    const by = covering?.statement
    const event = {
      code: 'ot.write' as const,
      message: `Modbus function ${functionCode} to unit ${unit}, from address ${written?.address ?? 0} on ${written?.quantity ?? 0}`,
      status: 'success' as const,
      disposition: 'allowed' as const,
      actor: actorOf(subject),
      src: srcOf(this.#stream.source),
      device,
      process,
      grant: by?.id ?? grant,
      ticket: by?.ticket ?? undefined,
      session: id,
      decisions: decisions.map(refOf),
      data: {
        unit,
        function_code: functionCode,
        address: written?.address,
        quantity: written?.quantity,
      },
    }
    try {
      const kept = decisions.map((decision) => this.#room.decisions.recorded(decision))
      await Promise.all([this.#room.log.append(event), ...kept])
      return true
    } catch (error) {
      this.#room.report(error, `a write in session ${id} could not be recorded, and was refused`)
      return false
    }
  }
}

class Refusals {
  readonly #session: LiveSession
  readonly #log: Pick<AuditLog, 'append'>
  readonly #report: (error: unknown, what: string) => void
  /** Decisions of policy that refused a request, until its verdict comes. */
  readonly #denied = new Map<number, Decision>()
  #count = 0
  #last: ModbusVerdict | undefined
  #lastDenied: Decision | undefined
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

  /** The decision that refuses a request whose verdict comes next. */
  explain(number: number, denied: Decision): void {
    this.#denied.set(number, denied)
  }

  add(verdict: ModbusVerdict): void {
    this.#session.denials++
    const denied = this.#denied.get(verdict.number)
    this.#denied.delete(verdict.number)
    if (this.#timer !== undefined) {
      this.#count++
      this.#last = verdict
      this.#lastDenied = denied
      return
    }
    this.#tell(verdict, 1, denied)
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
    if (this.#last !== undefined) this.#tell(this.#last, this.#count, this.#lastDenied)
    this.#count = 0
    this.#last = undefined
    this.#lastDenied = undefined
  }

  #tell(verdict: ModbusVerdict, count: number, denied: Decision | undefined): void {
    this.#append(
      'ot.deny',
      `Modbus function ${verdict.functionCode} refused ${count === 1 ? 'once' : `${count} times`}`,
      {
        unit: verdict.unit,
        function_code: verdict.functionCode,
        address: verdict.address ?? undefined,
        quantity: verdict.quantity ?? undefined,
        exception: verdict.exception ?? undefined,
        count,
      },
      denied === undefined ? undefined : refOf(denied),
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
    decision?: DecisionRef,
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
        reason: decision?.codes[0],
        decisions: decision === undefined ? undefined : [decision],
        data,
      })
      .catch((error: unknown) =>
        this.#report(error, `a refusal in session ${id} could not be recorded`),
      )
  }
}
