/**
 * Notices from what is stored to whoever must know: one loop collects, one for each channel sends, and none waits for
 * another. At least once: a message that was sent and not crossed off before a crash is sent again, with the same id.
 */
import { setTimeout } from 'node:timers/promises'
import {
  LONGEST_MS,
  MOST_OF_SERIES,
  isPast,
  isUrgent,
  messageOf,
  pauseAfter,
  type Notice,
} from './notice.ts'
import type { NewWaiting, NoticeStore, Waiting } from './queue.ts'

/** A way to people. `send` rejects where the message was not taken for good; its words are shown, and hold no secret. */
export interface Channel {
  readonly name: string
  /** Who is written to of a notice; [''] for a channel that has no recipients of its own. */
  recipients(notice: Notice): Promise<readonly string[]>
  send(waiting: Waiting): Promise<void>
}

export interface NoticesHealth {
  readonly waiting: number
  /** Given up since the node started. */
  readonly given_up: number
  readonly last_error: string | null
}

interface DispatchRoom {
  readonly store: NoticeStore
  readonly channels: readonly Channel[]
  readonly origin: string
  /** Everything there is to tell now, alarms first. */
  readonly look: () => Promise<readonly Notice[]>
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
  /** A node that stops waits so long for what is being sent. Default 2,000 ms. */
  readonly leaveMs?: number
}

/** So many messages wait in one channel; alarms have room of their own beyond. */
const MOST_WAITING = 1000
const MOST_URGENT = 1200
/** So many are read from the store at once. */
const PAGE = 64
/** A message that nobody took for so long is given up. */
const GIVE_UP_MS = 86_400_000
const FORGET_MS = 30 * 86_400_000
const LOOK_MS = 15_000
/** A channel that has just failed rests. */
const REST_MS = 5_000

/** Does `work` again and again: at once, when it is poked, and else after the milliseconds that it gives. */
class Loop implements AsyncDisposable {
  readonly #work: () => Promise<number>
  readonly #leaveMs: number
  #timer: NodeJS.Timeout | undefined
  #turn: Promise<void> | undefined
  #again = false
  #stopped = false

  constructor(work: () => Promise<number>, leaveMs: number) {
    this.#work = work
    this.#leaveMs = leaveMs
  }

  /** What is poked while it works is done once more after that. */
  poke(): void {
    if (this.#stopped) return
    this.#again = true
    this.#turn ??= this.#run()
  }

  async #run(): Promise<void> {
    clearTimeout(this.#timer)
    let wait = 0
    while (this.#again && !this.#stopped) {
      this.#again = false
      wait = await this.#work()
    }
    this.#turn = undefined
    if (this.#stopped) return
    this.#timer = globalThis.setTimeout(() => this.poke(), wait)
    this.#timer.unref()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    // What is under way is sent again after the next start, if it is not crossed off in time.
    await Promise.race([this.#turn, setTimeout(this.#leaveMs, undefined, { ref: false })])
  }
}

export class NoticeDispatch implements AsyncDisposable {
  readonly #room: DispatchRoom
  readonly #collector: Loop
  readonly #senders: ReadonlyMap<Channel, Loop>
  #health: NoticesHealth = { waiting: 0, given_up: 0, last_error: null }
  #restUntil = new Map<Channel, number>()
  #failing = false
  #stopped = false

  constructor(room: DispatchRoom) {
    this.#room = room
    const { leaveMs = 2_000 } = room
    this.#collector = new Loop(() => this.#guarded(() => this.#collect()), leaveMs)
    this.#senders = new Map(
      room.channels.map((channel) => [
        channel,
        new Loop(() => this.#guarded(() => this.#send(channel)), leaveMs),
      ]),
    )
    this.poke()
    // What was left from before this start waits for no news.
    for (const sender of this.#senders.values()) sender.poke()
  }

  /** Something changed that may be news. */
  poke(): void {
    this.#collector.poke()
  }

  health(): NoticesHealth {
    return this.#health
  }

  /** What store or policy throws is said once, and tried again. */
  async #guarded(work: () => Promise<number>): Promise<number> {
    try {
      const wait = await work()
      this.#failing = false
      return wait
    } catch (error) {
      if (!this.#failing && !this.#stopped)
        this.#room.report(error, 'notices could not be looked after')
      this.#failing = true
      return LOOK_MS
    }
  }

  async #collect(): Promise<number> {
    const { store, channels, look, now } = this.#room
    const all = await look()
    for (const channel of channels) await this.#add(channel, all)
    const waiting = await store.tidy(now() - FORGET_MS)
    this.#health = { ...this.#health, waiting }
    return LOOK_MS
  }

  /**
   * What is new to this channel waits in it from here on. At the first that finds no room it ends: all is looked at again,
   * and keeps its turn. Room is asked for first, for who is to be told is much work.
   */
  async #add(channel: Channel, all: readonly Notice[]): Promise<void> {
    const { store, origin, now } = this.#room
    const { name } = channel
    const keys = all.map(({ key }) => key)
    const fresh = new Set(await store.newOf(name, keys))
    for (const notice of all) {
      if (!fresh.has(notice.key)) continue
      const { key, series } = notice
      if (series !== undefined && (await store.toldOf(name, series)) >= MOST_OF_SERIES) continue
      const urgent = isUrgent(notice)
      const most = urgent ? MOST_URGENT : MOST_WAITING
      if ((await store.countOf(name)) >= most) return
      const message = messageOf(notice, origin)
      const to = await channel.recipients(notice)
      const rows = to.map((recipient): NewWaiting => {
        return { id: `${key} ${name} ${recipient}`, recipient, message }
      })
      if (!(await store.addNotice({ key, channel: name, urgent, rows, now: now(), most }))) return
      this.#senders.get(channel)?.poke()
    }
  }

  /** Everything of one channel that is due; gives how long until something is again. */
  async #send(channel: Channel): Promise<number> {
    const { store, now } = this.#room
    const rest = (this.#restUntil.get(channel) ?? 0) - performance.now()
    if (rest > 0) return rest
    const at = now()
    const latest = at + LONGEST_MS
    const due = await store.dueOf({ channel: channel.name, now: at, latest, limit: PAGE })
    for (const waiting of due) {
      if (isPast(waiting.message, Math.floor(now() / 1000))) {
        await store.drop(waiting.id)
        const { waiting: left, given_up } = this.#health
        this.#health = { ...this.#health, waiting: Math.max(0, left - 1), given_up: given_up + 1 }
        continue
      }
      const failure = await channel.send(waiting).then(
        () => undefined,
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      )
      if (failure === undefined) {
        await store.drop(waiting.id)
        this.#health = { ...this.#health, waiting: Math.max(0, this.#health.waiting - 1) }
        continue
      }
      await this.#failed(channel, waiting, failure)
      this.#restUntil.set(channel, performance.now() + REST_MS)
      return REST_MS
    }
    return due.length < PAGE ? LOOK_MS : 0
  }

  async #failed(channel: Channel, { id, tries, created_at }: Waiting, why: string): Promise<void> {
    const { store, now, report } = this.#room
    const last_error = `${channel.name}: ${why}`.slice(0, 300)
    if (tries === 0) report(new Error(last_error), 'a notice was not taken; it is tried again')
    const over = now() - created_at > GIVE_UP_MS
    if (over) report(new Error(last_error), 'a notice was given up after a day')
    await (over ? store.drop(id) : store.failed(id, now() + pauseAfter(tries + 1)))
    const given_up = this.#health.given_up + (over ? 1 : 0)
    this.#health = { ...this.#health, last_error, given_up }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true
    const loops = [this.#collector, ...this.#senders.values()]
    await Promise.all(loops.map(async (loop) => await loop[Symbol.asyncDispose]()))
  }
}
