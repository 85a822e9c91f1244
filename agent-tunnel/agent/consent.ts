/**
 * Consent on the device, per session, for targets that ask for it. A question is a file under `consent/`,
 * the answer a file beside it, written by the command or by hand by whoever may write there. An OPEN waits a
 * moment for it; the question waits longer, so that a second connection finds it answered. No answer is no.
 */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '#tunnel'
import { AgentError, messageOf } from './errors.ts'
import { makeDirectory, readIfPresent, writeDurably } from './files.ts'
import { readRecord } from './json.ts'
import type { Log } from './log.ts'

export type ConsentCode =
  | 'owner.asked'
  | 'owner.denied'
  | 'owner.silent'
  | 'owner.busy'
  | 'owner.unasked'

/** What the owner is asked. */
export interface Question {
  readonly session: string
  readonly process: string
  /** Where it leads on this device or beside it. */
  readonly target: string
  /** Who wants in, as the gateway says; null where it does not. */
  readonly who: string | null
}

/** A question as it stands on the device. */
export interface StandingQuestion extends Question {
  /** ISO 8601 by this device's clock. */
  readonly asked_at: string
  readonly lapses_at: string
}

export interface Consent {
  /** Who said so, as they called themselves. */
  readonly by: string
  /** Epoch seconds by this device's clock. */
  readonly at: number
}

export type Answer = { readonly consent: Consent } | { readonly code: ConsentCode }

const FOLDER = 'consent'
/** An OPEN is answered before the gateway gives it up, which it does after 10 s. */
const HOLD_MS = 6000
const LOOK_MS = 200
/** Questions that stand at once, and sessions whose answer is remembered. */
const MAX_STANDING = 32
const MAX_REMEMBERED = 1024
const MAX_BY = 64
const SESSION_ID = /^s_[0-9a-hjkmnp-tv-z]{26}$/

interface Entry {
  /** What the answer is to: it is none to another process, target or person. */
  readonly question: Question
  answer: Answer | undefined
  /** Monotonic; then the session is over and its answer forgotten. */
  ends: number
  readonly lapses: number
  readonly waiting: Set<() => void>
}

export interface ConsentsOptions {
  readonly dataDir: string
  readonly clock: Clock
  /** The device's date, epoch ms. */
  readonly now: () => number
  /** How long a question stands. */
  readonly waitMs: number
  readonly log: Log
}

/** The questions of one agent. Made anew, it forgets and withdraws what stood before. */
export class Consents implements Disposable {
  readonly #options: ConsentsOptions
  readonly #folder: string
  readonly #entries = new Map<string, Entry>()
  #cancel: (() => void) | undefined

  constructor(options: ConsentsOptions) {
    this.#options = options
    this.#folder = join(options.dataDir, FOLDER)
    this.#clear()
  }

  /**
   * What the owner says to a session that may live `remainingMs`. Asks once a session, about one process,
   * target and person; whatever else comes under its id is denied. Resolves at the answer, or with
   * `owner.asked` while it is still awaited, or `owner.unasked` where the question cannot be laid before anybody.
   */
  async ask(question: Question, remainingMs: number, signal: AbortSignal): Promise<Answer> {
    const { clock } = this.#options
    this.#forget()
    const known = this.#entries.get(question.session)
    if (known !== undefined && !isSame(known.question, question)) {
      this.#options.log('warn', 'consent.differs', { ...question })
      return { code: 'owner.denied' }
    }
    // The session may last longer than was said when it was first asked about.
    if (known !== undefined) known.ends = Math.max(known.ends, clock.now() + remainingMs)
    if (known?.answer !== undefined) return known.answer
    if (known === undefined && this.#full()) return { code: 'owner.busy' }
    let entry: Entry
    try {
      entry = known ?? this.#put(question, clock.now() + remainingMs)
    } catch (error) {
      const { session } = question
      this.#options.log('error', 'data.unwritable', { session, reason: messageOf(error) })
      return { code: 'owner.unasked' }
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    const cancel = clock.after(HOLD_MS, resolve)
    entry.waiting.add(resolve)
    signal.addEventListener('abort', () => resolve(), { once: true })
    await promise
    entry.waiting.delete(resolve)
    cancel()
    return entry.answer ?? { code: 'owner.asked' }
  }

  [Symbol.dispose](): void {
    this.#cancel?.()
    this.#cancel = undefined
    this.#clear()
  }

  #full(): boolean {
    const standing = [...this.#entries.values()].filter(({ answer }) => answer === undefined)
    return standing.length >= MAX_STANDING || this.#entries.size >= MAX_REMEMBERED
  }

  #put(question: Question, ends: number): Entry {
    const { clock, now, waitMs, log } = this.#options
    const at = now()
    const standing: StandingQuestion = {
      ...question,
      asked_at: new Date(at).toISOString(),
      lapses_at: new Date(at + waitMs).toISOString(),
    }
    makeDirectory(this.#folder)
    // An answer that is older than the question is to another one, or to none.
    rmSync(join(this.#folder, `${question.session}.answer`), { force: true })
    const path = join(this.#folder, `${question.session}.json`)
    writeDurably(path, `${JSON.stringify(standing)}\n`)
    const entry = {
      question,
      answer: undefined,
      ends,
      lapses: clock.now() + waitMs,
      waiting: new Set<() => void>(),
    }
    this.#entries.set(question.session, entry)
    log('warn', 'consent.asked', { ...question })
    this.#cancel ??= clock.after(LOOK_MS, () => this.#look())
    return entry
  }

  #look(): void {
    const { clock } = this.#options
    let standing = 0
    for (const [session, entry] of this.#entries) {
      if (entry.answer !== undefined) continue
      const answer = this.#read(session)
      if (answer !== undefined) this.#settle(session, entry, answer)
      else if (clock.now() >= entry.lapses) this.#settle(session, entry, { code: 'owner.silent' })
      else standing++
    }
    this.#cancel = standing > 0 ? clock.after(LOOK_MS, () => this.#look()) : undefined
  }

  /** Anything but a plain yes is no. */
  #read(session: string): Answer | undefined {
    try {
      const text = readIfPresent(join(this.#folder, `${session}.answer`))
      if (text === undefined) return undefined
      const { answer, by } = readRecord(new TextEncoder().encode(text)) ?? {}
      if (answer !== 'allow') return { code: 'owner.denied' }
      return { consent: { by: nameOf(by), at: Math.floor(this.#options.now() / 1000) } }
    } catch {
      return { code: 'owner.denied' }
    }
  }

  #settle(session: string, entry: Entry, answer: Answer): void {
    entry.answer = answer
    for (const wake of entry.waiting) wake()
    const said = 'consent' in answer ? { by: answer.consent.by } : { code: answer.code }
    this.#options.log('warn', 'consent.settled', { session, ...said })
    this.#remove(session)
  }

  /** Answers of sessions that are over; a question whose session is over is withdrawn. */
  #forget(): void {
    for (const [session, entry] of this.#entries) {
      if (this.#options.clock.now() < entry.ends) continue
      this.#remove(session)
      this.#entries.delete(session)
    }
  }

  /** What cannot be removed is told and left: its answer is known here, and no answer to another question. */
  #remove(session: string): void {
    for (const end of ['json', 'answer'])
      try {
        rmSync(join(this.#folder, `${session}.${end}`), { force: true })
      } catch (error) {
        this.#options.log('error', 'data.unwritable', { session, reason: messageOf(error) })
      }
  }

  #clear(): void {
    try {
      rmSync(this.#folder, { recursive: true, force: true })
    } catch (error) {
      this.#options.log('error', 'data.unwritable', { reason: messageOf(error) })
    }
  }
}

/** Session ids are the gateway's to give: one that comes again for something else is another question. */
function isSame(one: Question, other: Question): boolean {
  return one.process === other.process && one.target === other.target && one.who === other.who
}

/** Printable, because it goes into other people's logs. */
function nameOf(by: unknown): string {
  const name = typeof by === 'string' ? by.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, MAX_BY) : ''
  return name === '' ? 'somebody' : name
}

/** The questions that stand on a device, the oldest first. */
export function standingQuestions(dataDir: string): readonly StandingQuestion[] {
  const folder = join(dataDir, FOLDER)
  let names: string[]
  try {
    names = readdirSync(folder)
  } catch {
    return []
  }
  const found = names.flatMap((name) => {
    const text = name.endsWith('.json') ? readIfPresent(join(folder, name)) : undefined
    const question = text === undefined ? undefined : readRecord(new TextEncoder().encode(text))
    return question === undefined ? [] : [question as unknown as StandingQuestion]
  })
  return found.toSorted((a, b) => (a.asked_at < b.asked_at ? -1 : 1))
}

/** Answers a standing question. Throws AgentError `consent.none` where none stands, `data.unwritable`. */
export function answerQuestion(
  dataDir: string,
  session: string,
  { answer, by }: { readonly answer: 'allow' | 'deny'; readonly by: string },
): StandingQuestion {
  const question = SESSION_ID.test(session)
    ? standingQuestions(dataDir).find((one) => one.session === session)
    : undefined
  if (question === undefined) {
    throw new AgentError(
      'consent.none',
      `Nobody waits for an answer about ${session}.`,
      'See `sallyport agent consent list`: a question lapses, and so does the session it is about.',
    )
  }
  const text = `${JSON.stringify({ answer, by: by.slice(0, MAX_BY) })}\n`
  writeDurably(join(dataDir, FOLDER, `${session}.answer`), text)
  return question
}
