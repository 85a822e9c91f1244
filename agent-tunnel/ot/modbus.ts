/**
 * Modbus/TCP as a gate: requests are read whole, judged, and written anew; nothing is passed on as
 * it came. Replies reach the client in the order of its requests. audit brief, section 6.
 */
import {
  ILLEGAL_FUNCTION,
  read,
  refusal,
  type Operation,
  type Rules,
  type Span,
  type Window,
} from './verdict.ts'

export type { Window } from './verdict.ts'

export interface ModbusOptions extends Rules {
  readonly level: number
  readonly windows: ReadonlyArray<readonly Window[]>
  /**
   * Asked of each well-formed request that the rules let pass, at once and in order. `hold`: it goes on, and what comes
   * behind it, when `settle` says so. `busy`: it is answered 06, to be sent again later. Absent: every one passes.
   */
  readonly rule?: (request: ModbusRequest) => Ruling
}

/** A request as whoever rules on it sees it. */
export interface ModbusRequest {
  /** Names it to `settle`. */
  readonly number: number
  readonly operation: Operation
  readonly unit: number
  readonly functionCode: number
  /** What it touches: none where it names no addresses, two where it reads and writes. */
  readonly spans: readonly Span[]
}

export type Ruling = 'pass' | 'hold' | 'refuse' | 'busy'

/** What was asked, and whether it passed. */
export interface ModbusVerdict {
  /** Of its request, as whoever ruled on it was told. */
  readonly number: number
  readonly allowed: boolean
  /** The whole frame, as the client sent it. */
  readonly request: Uint8Array
  readonly operation: Operation
  readonly unit: number
  readonly functionCode: number
  readonly address: number | null
  readonly quantity: number | null
  /** The exception the client got; null where the request passed. */
  readonly exception: number | null
}

export interface GateOutcome {
  readonly toTarget: readonly Uint8Array[]
  readonly toClient: readonly Uint8Array[]
  readonly verdicts: readonly ModbusVerdict[]
  /** The connection must end: what came is not Modbus/TCP, so no verdict about it can be right. */
  readonly violation?: { readonly code: string; readonly message: string }
}

interface Outstanding {
  readonly tid: number
  readonly unit: number
  readonly functionCode: number
  verdict: ModbusVerdict
  /** Set once it can be answered; a refused request has its answer from the start. */
  answer: Uint8Array | undefined
  /** What the target has not got yet; a held one keeps those behind it. */
  unsent: Uint8Array | undefined
  held: boolean
  /** When it came, or, once the target has it, when that was. */
  since: number
}

const HEADER = 7
const MAX_OUTSTANDING = 16
/** Refused requests wait behind a slow reply too; a client that piles them up is not a client. */
const MAX_QUEUED = 64
const TIMEOUT_MS = 5_000
const SERVER_BUSY = 6
/** The way to the target is ours, and it is shut: the target is not at fault, and 04 would say that it is. */
const PATH_UNAVAILABLE = 0x0a
const TARGET_SILENT = 0x0b

function frame(tid: number, unit: number, pdu: Uint8Array): Uint8Array {
  const length = pdu.length + 1
  const out = new Uint8Array(HEADER + pdu.length)
  out.set([tid >> 8, tid & 255, 0, 0, length >> 8, length & 255, unit])
  out.set(pdu, HEADER)
  return out
}

function exceptionTo(
  request: { tid: number; unit: number; functionCode: number },
  code: number,
): Uint8Array {
  return frame(request.tid, request.unit, Uint8Array.of(request.functionCode | 0x80, code))
}

/** Answers a request that has not gone on, and never will. */
function shut(one: Outstanding): void {
  one.answer = exceptionTo(one, PATH_UNAVAILABLE)
  one.unsent = undefined
  one.held = false
  one.verdict = { ...one.verdict, allowed: false, exception: PATH_UNAVAILABLE }
}

/** Collects frames of at most 260 octets from any chunks. */
class Frames {
  readonly #held = new Uint8Array(HEADER + 253)
  #size = 0
  /** When the first octet of an incomplete frame came; undefined between frames. */
  since: number | undefined

  /** Takes octets from `chunk` at `at`; gives where to go on, and a frame once it is whole. */
  take(
    chunk: Uint8Array,
    at: number,
    now: number,
  ): { next: number; frame?: Uint8Array; fault?: string } {
    this.since ??= now
    const need = this.#size < HEADER ? HEADER : 6 + this.#length()
    const part = chunk.subarray(at, at + need - this.#size)
    this.#held.set(part, this.#size)
    this.#size += part.length
    const next = at + part.length
    if (this.#size >= 4 && ((this.#held[2] ?? 0) | (this.#held[3] ?? 0)) !== 0)
      return { next, fault: 'protocol id is not 0' }
    if (this.#size >= 6 && (this.#length() < 2 || this.#length() > 254))
      return { next, fault: 'length is outside 2..254' }
    if (this.#size < HEADER || this.#size < 6 + this.#length()) return { next }
    const whole = this.#held.slice(0, this.#size)
    this.#size = 0
    this.since = undefined
    return { next, frame: whole }
  }

  #length(): number {
    return ((this.#held[4] ?? 0) << 8) | (this.#held[5] ?? 0)
  }
}

export class ModbusGate {
  readonly #rules: ModbusOptions
  readonly #fromClient = new Frames()
  readonly #fromTarget = new Frames()
  readonly #outstanding: Outstanding[] = []
  /** Those of them whose verdict has not been told yet, because they are held or behind one that is. */
  readonly #queue: Outstanding[] = []
  #number = 0
  #closed = false

  constructor(options: ModbusOptions) {
    this.#rules = options
  }

  /** Octets of the client. `now` is monotonic milliseconds. */
  fromClient(chunk: Uint8Array, now: number): GateOutcome {
    const toTarget: Uint8Array[] = []
    const verdicts: ModbusVerdict[] = []
    for (let at = 0; at < chunk.length && !this.#closed;) {
      const { next, frame: whole, fault } = this.#fromClient.take(chunk, at, now)
      at = next
      if (fault !== undefined) return this.#violation(fault, toTarget, verdicts)
      if (whole === undefined) continue
      const pdu = whole.subarray(HEADER)
      const functionCode = pdu[0] ?? 0
      if (functionCode === 0 || functionCode >= 0x80)
        return this.#violation('function code is not a request', toTarget, verdicts)
      if (this.#outstanding.length >= MAX_QUEUED)
        return this.#violation('too many requests without an answer', toTarget, verdicts)
      this.#judge(whole, pdu, now)
      this.#go(now, toTarget, verdicts)
    }
    return { toTarget, toClient: this.#ready(), verdicts }
  }

  /**
   * What became of a request that was held: it passes, or is answered that it cannot. One that was answered meanwhile,
   * because that took too long, passes no more.
   */
  settle(number: number, passes: boolean, now: number): GateOutcome {
    const toTarget: Uint8Array[] = []
    const verdicts: ModbusVerdict[] = []
    const held = this.#queue.find((one) => one.verdict.number === number)
    if (held !== undefined && held.held && !this.#closed) {
      held.held = false
      if (!passes) shut(held)
      this.#go(now, toTarget, verdicts)
    }
    return { toTarget, toClient: this.#ready(), verdicts }
  }

  /** How many requests wait for `settle`. */
  get holding(): number {
    return this.#closed ? 0 : this.#queue.filter(({ held }) => held).length
  }

  /** Puts a whole request behind those before it, with the answer that it has already. */
  #judge(whole: Uint8Array, pdu: Uint8Array, now: number): void {
    const tid = ((whole[0] ?? 0) << 8) | (whole[1] ?? 0)
    const unit = whole[6] ?? 0
    const functionCode = pdu[0] ?? 0
    const reading = read(pdu)
    const waiting = this.#outstanding.filter(({ answer }) => answer === undefined).length
    const number = ++this.#number
    let exception =
      refusal(unit, pdu, reading, this.#rules) ??
      (waiting >= MAX_OUTSTANDING ? SERVER_BUSY : undefined)
    const { operation, spans } = reading
    const ruling =
      exception === undefined
        ? this.#rules.rule?.({ number, operation, unit, functionCode, spans })
        : undefined
    if (ruling === 'refuse') exception = ILLEGAL_FUNCTION
    if (ruling === 'busy') exception = SERVER_BUSY
    const request = { tid, unit, functionCode }
    const one: Outstanding = {
      ...request,
      verdict: {
        number,
        allowed: exception === undefined,
        request: whole,
        operation,
        unit,
        functionCode,
        address: spans[0]?.address ?? null,
        quantity: spans[0]?.quantity ?? null,
        exception: exception ?? null,
      },
      answer: exception === undefined ? undefined : exceptionTo(request, exception),
      unsent: exception === undefined ? frame(tid, unit, pdu) : undefined,
      held: ruling === 'hold',
      since: now,
    }
    this.#outstanding.push(one)
    this.#queue.push(one)
  }

  /** Lets go what nothing holds any more, in the order in which it came. */
  #go(now: number, toTarget: Uint8Array[], verdicts: ModbusVerdict[]): void {
    for (;;) {
      const next = this.#queue[0]
      if (next === undefined || next.held) return
      this.#queue.shift()
      verdicts.push(next.verdict)
      if (next.unsent === undefined) continue
      toTarget.push(next.unsent)
      next.unsent = undefined
      next.since = now
    }
  }

  /** Octets of the target: only the reply to a request that is waiting passes. */
  fromTarget(chunk: Uint8Array, now: number): GateOutcome {
    for (let at = 0; at < chunk.length && !this.#closed;) {
      const { next, frame: whole, fault } = this.#fromTarget.take(chunk, at, now)
      at = next
      if (fault !== undefined) return this.#violation(`reply: ${fault}`, [], [])
      if (whole === undefined) continue
      const tid = ((whole[0] ?? 0) << 8) | (whole[1] ?? 0)
      const functionCode = (whole[HEADER] ?? 0) & 0x7f
      const asked = this.#outstanding.find(
        (one) =>
          one.answer === undefined &&
          one.unsent === undefined &&
          one.tid === tid &&
          one.unit === whole[6] &&
          one.functionCode === functionCode,
      )
      // A reply nobody waits for, for instance after the timeout, is dropped.
      if (asked !== undefined) asked.answer = frame(tid, asked.unit, whole.subarray(HEADER))
    }
    return { toTarget: [], toClient: this.#ready(), verdicts: [] }
  }

  /** What time alone does: silent targets are answered for, a frame that never ends is a violation. */
  tick(now: number): GateOutcome {
    const late = (began: number | undefined) => began !== undefined && now - began >= TIMEOUT_MS
    if (late(this.#fromClient.since))
      return this.#violation('a frame did not end within 5 s', [], [])
    for (const one of this.#outstanding) {
      if (one.answer !== undefined || now - one.since < TIMEOUT_MS) continue
      if (one.unsent === undefined) one.answer = exceptionTo(one, TARGET_SILENT)
      else shut(one)
    }
    const toTarget: Uint8Array[] = []
    const verdicts: ModbusVerdict[] = []
    this.#go(now, toTarget, verdicts)
    // After the answers: what it left unsaid has been waited for as long.
    if (late(this.#fromTarget.since))
      return this.#violation('reply: a frame did not end within 5 s', toTarget, verdicts)
    return { toTarget, toClient: this.#ready(), verdicts }
  }

  /** When `tick` has something to do, in the same clock; undefined while nothing waits, and after a violation. */
  wakeAt(): number | undefined {
    if (this.#closed) return undefined
    const times = this.#outstanding
      .filter(({ answer }) => answer === undefined)
      .map(({ since }) => since)
    for (const { since } of [this.#fromClient, this.#fromTarget])
      if (since !== undefined) times.push(since)
    return times.length === 0 ? undefined : Math.min(...times) + TIMEOUT_MS
  }

  /** The answers at the head of the queue: a local exception waits for the replies before it. */
  #ready(): Uint8Array[] {
    const out: Uint8Array[] = []
    for (;;) {
      const answer = this.#outstanding[0]?.answer
      if (answer === undefined) return out
      this.#outstanding.shift()
      out.push(answer)
    }
  }

  #violation(
    message: string,
    toTarget: readonly Uint8Array[],
    verdicts: readonly ModbusVerdict[],
  ): GateOutcome {
    this.#closed = true
    // What is held never goes on now, and is told as what it is.
    const never = this.#queue.splice(0)
    for (const one of never) if (one.unsent !== undefined) shut(one)
    return {
      toTarget,
      toClient: this.#ready(),
      verdicts: [...verdicts, ...never.map(({ verdict }) => verdict)],
      violation: { code: 'modbus.violation', message },
    }
  }
}
