/**
 * Whose connection is opened next. Each is looked up, decided and logged; so a burst of one person's, however many
 * sessions and tunnels it comes over, is spread over turns of the loop and over time, and nobody else's waits behind it.
 */
import { systemClock } from '#tunnel'
import { Refusal } from '../problem.ts'
import type { LiveSession } from '../sessions/live.ts'
import { Allowance } from '../sessions/pace.ts'
import { hasRoom } from '../sessions/stream.ts'

/** So many of one person's begin at once, and so many a second: what one tunnel may ask for (docs/protocol.md section 8). */
const AT_ONCE = 50
const PER_SECOND = 100
/** So many of theirs may wait: as many as the widest session holds. */
const MOST_WAITING = 256
/** In one turn of the loop one of each person's begins, of so many persons at most. */
const A_TURN = 4
/** Above so many persons, those whose allowance is whole again are forgotten. */
const REMEMBERED = 1000

/** When things happen: monotonic milliseconds, the next turn of the loop, and later. */
export interface LoopClock {
  now(): number
  /** Calls `run` in the next turn. */
  soon(run: () => void): void
  /** Calls `run` after `ms`; what it gives takes that back. */
  after(ms: number, run: () => void): () => void
}

const loopClock: LoopClock = {
  now: () => systemClock.now(),
  soon: (run) => void setImmediate(run),
  after: (ms, run) => systemClock.after(ms, run),
}

/** `go`: it is this one's turn. `gone`: it was taken back while it waited. `full`: as many wait as may. */
export type Turn = 'go' | 'gone' | 'full'

/** What is asked for, for as long as nobody takes it back. */
interface Asked {
  readonly cancelled: boolean
}

interface Waiting {
  readonly asked: Asked
  readonly resolve: (turn: Turn) => void
}

/** One person's. */
class Line {
  readonly allowance: Allowance
  #waiting: Waiting[] = []

  constructor(now: number) {
    this.allowance = new Allowance(PER_SECOND, AT_ONCE, now)
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0
  }

  /** False where as many wait already that nobody has taken back. */
  add(one: Waiting): boolean {
    if (this.#waiting.length >= MOST_WAITING) this.#clear()
    if (this.#waiting.length >= MOST_WAITING) return false
    this.#waiting.push(one)
    return true
  }

  /** Lets the first begin that still wants to, if the allowance has room; whether one did. */
  begin(now: number): boolean {
    if (this.#waiting[0]?.asked.cancelled === true) this.#clear()
    if (this.isEmpty || !this.allowance.take(now)) return false
    this.#waiting.shift()?.resolve('go')
    return true
  }

  #clear(): void {
    const gone = this.#waiting.filter(({ asked }) => asked.cancelled)
    this.#waiting = this.#waiting.filter(({ asked }) => !asked.cancelled)
    for (const { resolve } of gone) resolve('gone')
  }
}

/** What is said where as many wait as may. */
export const TOO_MANY =
  'as many of your connections as may wait to be opened already; try again in a second'

/**
 * Resolves when one more connection of `session`, that is no stream of a client's tunnel, may be opened. One that there is
 * no room for is not made to wait to hear so. Throws Refusal: `session.limit` (as many wait as may), `session.ended` (it
 * is not wanted any more).
 */
export async function inTheirTurn(
  openings: Pick<Openings, 'turn'>,
  session: LiveSession,
  asked: Asked,
): Promise<void> {
  if (!hasRoom(session)) return
  const turn = await openings.turn(session.subject.id, asked)
  if (turn === 'full') throw new Refusal('session.limit', TOO_MANY)
  if (turn === 'gone') throw new Refusal('session.ended', 'nobody waits for this connection')
}

export class Openings {
  readonly #clock: LoopClock
  readonly #lines = new Map<string, Line>()
  /** Those who wait, who began last at the end. */
  #queue: Line[] = []
  #planned = false
  #cancel: (() => void) | undefined

  constructor(clock: LoopClock = loopClock) {
    this.#clock = clock
  }

  /** Resolves when `asked` of this person may be opened, or is not to be. Never rejects. */
  async turn(person: string, asked: Asked): Promise<Turn> {
    const line = this.#lineOf(person)
    const { promise, resolve } = Promise.withResolvers<Turn>()
    const first = line.isEmpty
    if (!line.add({ asked, resolve })) return 'full'
    if (first) this.#queue.push(line)
    this.#plan()
    return await promise
  }

  #lineOf(person: string): Line {
    const known = this.#lines.get(person)
    if (known !== undefined) return known
    const now = this.#clock.now()
    if (this.#lines.size >= REMEMBERED)
      for (const [name, { isEmpty, allowance }] of this.#lines)
        if (isEmpty && allowance.isWhole(now)) this.#lines.delete(name)
    const line = new Line(now)
    this.#lines.set(person, line)
    return line
  }

  #plan(): void {
    if (this.#planned) return
    this.#planned = true
    this.#clock.soon(() => this.#run())
  }

  /** One turn: each that waits is looked at once, from whoever has waited longest for theirs. */
  #run(): void {
    this.#planned = false
    this.#cancel?.()
    const now = this.#clock.now()
    const waiting: Line[] = []
    const begun: Line[] = []
    for (const line of this.#queue)
      if (begun.length < A_TURN && line.begin(now)) begun.push(line)
      else waiting.push(line)
    this.#queue = [...waiting, ...begun].filter(({ isEmpty }) => !isEmpty)
    this.#next(now)
  }

  /** In the next turn, if anybody may begin then, or when the first of them may. */
  #next(now: number): void {
    let least = Infinity
    for (const { allowance } of this.#queue) least = Math.min(least, allowance.wait(now))
    if (least === 0) this.#plan()
    else if (least < Infinity) this.#cancel = this.#clock.after(least, () => this.#plan())
  }
}
