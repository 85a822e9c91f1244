/**
 * Modbus/TCP as a gate: requests are read whole, judged, and written anew; nothing is passed on as
 * it came. Replies reach the client in the order of its requests. audit brief, section 6.
 */
import { read, refusal, type Operation, type Rules, type Window } from './verdict.ts'

export type { Window } from './verdict.ts'

export interface ModbusOptions extends Rules {
  readonly level: number
  readonly windows: ReadonlyArray<readonly Window[]>
}

/** What was asked, and whether it passed. */
export interface ModbusVerdict {
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
  /** Set once it can be answered; a refused request has its answer from the start. */
  answer: Uint8Array | undefined
  readonly since: number
}

const HEADER = 7
const MAX_OUTSTANDING = 16
/** Refused requests wait behind a slow reply too; a client that piles them up is not a client. */
const MAX_QUEUED = 64
const TIMEOUT_MS = 5_000
const SERVER_BUSY = 6
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
  readonly #rules: Rules
  readonly #fromClient = new Frames()
  readonly #fromTarget = new Frames()
  readonly #outstanding: Outstanding[] = []
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
      verdicts.push(this.#judge(whole, pdu, now, toTarget))
    }
    return { toTarget, toClient: this.#ready(), verdicts }
  }

  #judge(whole: Uint8Array, pdu: Uint8Array, now: number, toTarget: Uint8Array[]): ModbusVerdict {
    const tid = ((whole[0] ?? 0) << 8) | (whole[1] ?? 0)
    const unit = whole[6] ?? 0
    const functionCode = pdu[0] ?? 0
    const reading = read(pdu)
    const waiting = this.#outstanding.filter(({ answer }) => answer === undefined).length
    const exception =
      refusal(unit, pdu, reading, this.#rules) ??
      (waiting >= MAX_OUTSTANDING ? SERVER_BUSY : undefined)
    const request = { tid, unit, functionCode }
    const answer = exception === undefined ? undefined : exceptionTo(request, exception)
    this.#outstanding.push({ ...request, answer, since: now })
    if (exception === undefined) toTarget.push(frame(tid, unit, pdu))
    const [first] = reading.spans
    return {
      allowed: exception === undefined,
      request: whole,
      operation: reading.operation,
      unit,
      functionCode,
      address: first?.address ?? null,
      quantity: first?.quantity ?? null,
      exception: exception ?? null,
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
    for (const one of this.#outstanding)
      if (one.answer === undefined && now - one.since >= TIMEOUT_MS)
        one.answer = exceptionTo(one, TARGET_SILENT)
    // After the answers: what it left unsaid has been waited for as long.
    if (late(this.#fromTarget.since))
      return this.#violation('reply: a frame did not end within 5 s', [], [])
    return { toTarget: [], toClient: this.#ready(), verdicts: [] }
  }

  /** When `tick` has something to do, in the same clock; undefined while nothing waits. */
  wakeAt(): number | undefined {
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
    return {
      toTarget,
      toClient: this.#ready(),
      verdicts,
      violation: { code: 'modbus.violation', message },
    }
  }
}
