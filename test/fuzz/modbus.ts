/**
 * Frames of every kind, true and spoiled, cut anywhere, through two gates in a row as gateway and agent
 * have them, to a target that answers, lies or is silent. A second reading of the rules, written from the
 * table of the specification as patterns of hex digits, says what may arrive. Nothing else may, in no
 * other order; every request has its one answer, in the order it was asked, or the connection has ended.
 */
import { ModbusGate, type GateOutcome, type Window } from '#ot'

/** mulberry32: small, seeded, good enough to choose with. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}
type Pick = ReturnType<typeof generator>

interface Rules {
  readonly level: number
  readonly windows: readonly (readonly Window[])[]
}

/** The specification's rows: the whole PDU as a pattern, what it touches, whether it writes. */
const W = '([0-9a-f]{4})'
const rows: readonly {
  readonly form: RegExp
  readonly most: readonly number[]
  readonly writes: boolean
  /** Octets of data that the quantity asks for; undefined where there are none. */
  readonly data?: (quantity: number) => number
}[] = [
  { form: new RegExp(`^0[12]${W}${W}$`), most: [2000], writes: false },
  { form: new RegExp(`^0[34]${W}${W}$`), most: [125], writes: false },
  { form: /^11$/, most: [], writes: false },
  { form: /^2b0e0[1-4][0-9a-f]{2}$/, most: [], writes: false },
  { form: new RegExp(`^05${W}(?:0000|ff00)$`), most: [], writes: true },
  { form: new RegExp(`^06${W}[0-9a-f]{4}$`), most: [], writes: true },
  { form: new RegExp(`^16${W}[0-9a-f]{8}$`), most: [], writes: true },
  {
    form: new RegExp(`^0f${W}${W}([0-9a-f]{2})((?:[0-9a-f]{2})*)$`),
    most: [1968],
    writes: true,
    data: (quantity) => Math.ceil(quantity / 8),
  },
  {
    form: new RegExp(`^10${W}${W}([0-9a-f]{2})((?:[0-9a-f]{2})*)$`),
    most: [123],
    writes: true,
    data: (quantity) => 2 * quantity,
  },
]
const READ_WRITE = new RegExp(`^17${W}${W}${W}${W}([0-9a-f]{2})((?:[0-9a-f]{2})*)$`)

const number = (hex: string | undefined) => Number.parseInt(hex ?? 'ffff', 16)

/** What a PDU touches and whether it writes; undefined where no row lets it pass at any level. */
function reference(pdu: string): { spans: [number, number][]; writes: boolean } | undefined {
  if (/^18[0-9a-f]{4}$/.test(pdu)) return { spans: [[-1, 1]], writes: false }
  const both = READ_WRITE.exec(pdu)
  if (both !== null) {
    const [from, read, to, write, bytes] = both.slice(1, 6).map(number) as [
      number,
      number,
      number,
      number,
      number,
    ]
    const counted = bytes === 2 * write && (both[6] ?? '').length === 2 * bytes
    if (!counted || read < 1 || read > 125 || write < 1 || write > 121) return undefined
    return {
      spans: [
        [from, read],
        [to, write],
      ],
      writes: true,
    }
  }
  for (const { form, most, writes, data } of rows) {
    const found = form.exec(pdu)
    if (found === null) continue
    if (found[1] === undefined) return { spans: [], writes }
    const quantity = most.length === 0 ? 1 : number(found[2])
    if (quantity < 1 || quantity > (most[0] ?? 1)) return undefined
    if (data !== undefined) {
      const bytes = number(found[3])
      if (bytes !== data(quantity) || (found[4] ?? '').length !== 2 * bytes) return undefined
    }
    return { spans: [[number(found[1]), quantity]], writes }
  }
  return undefined
}

/** Whether the specification lets `frame` reach the target. */
function may(frame: Uint8Array, { level, windows }: Rules): boolean {
  const unit = frame[6] ?? 0
  const read = reference(Buffer.from(frame.subarray(7)).toString('hex'))
  if (read === undefined || level === 0) return false
  if (read.writes && (level < 2 || unit === 0)) return false
  if (read.spans.some(([from, count]) => from >= 0 && from + count > 65_536)) return false
  return windows.every(
    (list) =>
      list.some((window) => window.unit === unit) &&
      read.spans.every(([from, count]) =>
        list.some(
          (window) => window.unit === unit && window.from <= from && from + count - 1 <= window.to,
        ),
      ),
  )
}

const CODES = [1, 2, 3, 4, 5, 6, 7, 8, 0x0b, 0x0f, 0x10, 0x11, 0x14, 0x16, 0x17, 0x18, 0x2b, 0x5a]

function words(...values: readonly number[]): number[] {
  return values.flatMap((value) => [(value >> 8) & 255, value & 255])
}

/** A PDU that is likely right. */
function pduOf(pick: Pick): number[] {
  const code = CODES[pick(CODES.length)] ?? 3
  const address = pick(3) === 0 ? pick(65_536) : 90 + pick(40)
  const few = 1 + pick(pick(4) === 0 ? 2100 : 12)
  const noise = (length: number) => Array.from({ length }, () => pick(256))
  if (code <= 4) return [code, ...words(address, few)]
  if (code === 5) return [code, ...words(address, pick(2) * 0xff00)]
  if (code === 6) return [code, ...words(address, pick(65_536))]
  if (code === 0x0f) return [code, ...words(address, few), (few + 7) >> 3, ...noise((few + 7) >> 3)]
  if (code === 0x10)
    return [code, ...words(address, few % 124), (2 * (few % 124)) & 255, ...noise(2 * (few % 124))]
  if (code === 0x11) return [code]
  if (code === 0x16) return [code, ...words(address, pick(65_536), pick(65_536))]
  if (code === 0x17)
    return [
      code,
      ...words(address, few % 130, 90 + pick(40), few % 122),
      (2 * (few % 122)) & 255,
      ...noise(2 * (few % 122)),
    ]
  if (code === 0x18) return [code, ...words(address)]
  if (code === 0x2b) return [code, pick(4) === 0 ? 0x0d : 0x0e, pick(6), pick(3)]
  return [code, ...noise(pick(8))]
}

/** A frame and what may be wrong with it. */
function frameOf(tid: number, pick: Pick): Uint8Array {
  const pdu = pduOf(pick)
  const spoil = pick(12)
  if (spoil === 0) pdu.push(pick(256))
  if (spoil === 1) pdu.pop()
  if (spoil === 2) pdu[pick(pdu.length || 1)] = pick(256)
  // A second frame behind the first, hidden in its length.
  if (spoil === 3) pdu.push(...words(tid, 0, 6), 1, 6, ...words(100, 1))
  const bytes = Uint8Array.of(...words(tid, 0, pdu.length + 1), pick(8) === 0 ? pick(4) : 1, ...pdu)
  if (pick(150) === 0) bytes[2 + pick(4)] = pick(256)
  return bytes
}

const LIMIT = 260
/** A connection has about this many frames before the next begins. */
const FRAMES = 24

/** The body of a reply that answers no request: of another unit, or to another function. */
const LIE = 'eeee11eeee'

/** The target's answers to what arrived: true, absent, with another id, or lies. */
function answers(arrived: readonly Uint8Array[], pick: Pick): Uint8Array[] {
  const made = arrived
    .filter(() => pick(12) > 0)
    .map((frame) => {
      const code = frame[7] ?? 0
      const body = pick(6) === 0 ? [code | 0x80, 2] : [code, 2, 0, pick(256)]
      const reply = Uint8Array.of(
        frame[0] ?? 0,
        frame[1] ?? 0,
        0,
        0,
        0,
        body.length + 1,
        frame[6] ?? 0,
        ...body,
      )
      if (pick(20) === 0) reply[1]! ^= 1
      if (pick(20) > 0) return reply
      const lie = Uint8Array.of(
        ...reply.subarray(0, 4),
        0,
        7,
        reply[6] ?? 0,
        code,
        ...Buffer.from(LIE, 'hex'),
      )
      lie[6 + pick(2)]! ^= 4
      return lie
    })
  return made
}

class Line {
  readonly #rules: Rules
  readonly #pick: Pick
  readonly #gateway: ModbusGate
  readonly #agent: ModbusGate
  readonly sent: Uint8Array[] = []
  readonly arrived: Uint8Array[] = []
  readonly answered: Uint8Array[] = []
  ended = false
  #now = 0

  constructor(rules: Rules, pick: Pick) {
    this.#rules = rules
    this.#pick = pick
    this.#gateway = new ModbusGate(rules)
    this.#agent = new ModbusGate(rules)
  }

  send(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const to = at + 1 + this.#pick(bytes.length)
      this.#now += this.#pick(3)
      this.#fromGateway(this.#gateway.fromClient(bytes.subarray(at, to), this.#now))
      at = to
    }
  }

  /** Time passes until nothing waits. */
  settle(): void {
    for (let turn = 0; turn < 200; turn++) {
      const wakes = [this.#agent.wakeAt(), this.#gateway.wakeAt()].filter((at) => at !== undefined)
      if (wakes.length === 0 || this.ended) return
      this.#now = Math.max(this.#now, Math.min(...wakes))
      this.#fromAgent(this.#agent.tick(this.#now))
      this.#fromGateway(this.#gateway.tick(this.#now))
    }
    throw new Error('time does not end it')
  }

  #fromGateway(made: GateOutcome): void {
    this.answered.push(...made.toClient)
    for (const frame of made.toTarget) {
      const judged = this.#agent.fromClient(frame, this.#now)
      if (judged.verdicts.some(({ allowed }) => !allowed))
        throw new Error('the second gate refused what the first let pass')
      this.#fromAgent(judged)
    }
    if (made.violation !== undefined) this.ended = true
  }

  #fromAgent(made: GateOutcome): void {
    for (const frame of made.toTarget) {
      if (!may(frame, this.#rules)) throw new Error(`leaked: ${Buffer.from(frame).toString('hex')}`)
      this.arrived.push(frame)
    }
    this.#toGateway(made.toClient)
    const back = answers(made.toTarget, this.#pick)
    if (back.length === 0) return
    const bytes = Buffer.concat(back)
    const cut = this.#pick(bytes.length + 1)
    for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
      const passed = this.#agent.fromTarget(part, this.#now)
      if (passed.violation !== undefined) this.ended = true
      this.#toGateway(passed.toClient)
    }
  }

  #toGateway(frames: readonly Uint8Array[]): void {
    for (const frame of frames)
      this.answered.push(...this.#gateway.fromTarget(frame, this.#now).toClient)
  }
}

function rulesOf(pick: Pick): Rules {
  const list = () =>
    Array.from({ length: pick(3) }, () => {
      const from = 80 + pick(40)
      return { unit: pick(3), from, to: from + pick(60) }
    })
  return { level: pick(8) === 0 ? 0 : 1 + pick(2), windows: Array.from({ length: pick(3) }, list) }
}

/** What was sent before the connection ended, frame by frame; the rest was no Modbus. */
function framesOf(bytes: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = []
  for (let at = 0; at + 7 <= bytes.length;) {
    const length = ((bytes[at + 4] ?? 0) << 8) | (bytes[at + 5] ?? 0)
    const code = bytes[at + 7] ?? 0
    const broken = bytes[at + 2] !== 0 || bytes[at + 3] !== 0 || length < 2 || length > 254
    if (broken || at + 6 + length > bytes.length || code === 0 || code >= 0x80) return frames
    frames.push(bytes.subarray(at, at + 6 + length))
    at += 6 + length
  }
  return frames
}

function inOrder(part: readonly string[], whole: readonly string[]): boolean {
  let at = 0
  for (const one of whole) if (one === part[at]) at++
  return at === part.length
}

/** What came of one connection: nothing too much, nothing out of order, nothing false. */
function requireTrue(line: Line, asked: readonly Uint8Array[], rules: Rules): void {
  const hex = (frames: readonly Uint8Array[]) =>
    frames.map((one) => Buffer.from(one).toString('hex'))
  if (!inOrder(hex(line.arrived), hex(asked))) throw new Error('what arrived is not what was sent')
  const allowed = asked.filter((frame) => may(frame, rules)).length
  if (line.arrived.length > allowed) throw new Error('more arrived than may')
  const tids = (frames: readonly Uint8Array[]) =>
    frames.map((one) => `${one[0]},${one[1]},${one[6]}`)
  const order = tids(asked)
  const got = tids(line.answered)
  const whole = line.ended
    ? got.every((tid, nth) => tid === order[nth])
    : got.join() === order.join()
  if (!whole) throw new Error(`answers ${got.join(' ')} to ${order.join(' ')}`)
  if (hex(line.answered).some((one) => one.endsWith(LIE))) throw new Error('a lie was passed on')
}

/** Sends `cases` frames from `seed`. Throws with the rules and the bytes where anything leaks or is lost. */
export async function fuzz(options: { cases: number; seed: number }): Promise<{ cases: number }> {
  const pick = generator(options.seed)
  let [sent, passed, refused] = [0, 0, 0]
  while (sent < options.cases) {
    const rules = rulesOf(pick)
    const line = new Line(rules, pick)
    const stream: Uint8Array[] = []
    try {
      for (let nth = 0; nth < FRAMES && !line.ended && sent < options.cases; nth++, sent++) {
        const frame = frameOf(nth + 1, pick).subarray(0, LIMIT)
        stream.push(frame)
        line.send(frame)
        if (pick(6) === 0) line.settle()
      }
      line.settle()
      const asked = framesOf(Buffer.concat(stream))
      requireTrue(line, asked, rules)
      passed += line.arrived.length
      refused += asked.length - line.arrived.length
    } catch (cause) {
      const bytes = Buffer.concat(stream).toString('hex')
      throw new Error(`rules ${JSON.stringify(rules)}: ${bytes}`, { cause })
    }
  }
  if (options.cases > 1000 && (passed < sent / 20 || refused < sent / 20))
    throw new Error(`the frames are too alike: ${passed} passed, ${refused} refused of ${sent}`)
  return { cases: sent }
}
