/**
 * Happy Eyeballs, RFC 8305: of the addresses that a name has, families in turn, the first that answers, and none kept
 * waiting by one that does not. Knows no socket and no clock but the one that it is given.
 */
import type { Clock } from './tunnel.ts'

/** RFC 8305 section 8: Connection Attempt Delay. */
export const ATTEMPT_DELAY_MS = 250
/** RFC 8305 section 8: Resolution Delay, how long the answer for IPv4 waits for that for IPv6. */
export const RESOLUTION_DELAY_MS = 50
/** A name with more addresses of a family than these is dialled at the first of them. */
export const MAX_ADDRESSES = 16

export interface Race<T> {
  /** The addresses of each family; rejects where there are none. */
  readonly lookUp: (family: 4 | 6) => Promise<readonly string[]>
  /** Tries one; gives up when the signal says so, and then rejects. */
  readonly begin: (address: string, signal: AbortSignal) => Promise<T>
  /** Gets what was won too late. */
  readonly discard: (late: T) => void
  readonly clock: Clock
  readonly signal: AbortSignal
}

/**
 * The first of all attempts that succeeds; the others have been given up when this resolves. Rejects with the
 * error of the one attempt, or with an AggregateError of all of them, whose `code` is that of the most telling one;
 * with that of a lookup where there was nothing to try; with an AbortError (`ABORT_ERR`) when the signal is aborted.
 */
export async function firstOf<T>(race: Race<T>): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>()
  const course = new Course(race, resolve, reject)
  const stop = () => course.fail(aborted(race.signal.reason))
  race.signal.addEventListener('abort', stop, { once: true })
  try {
    if (race.signal.aborted) stop()
    else course.start()
    return await promise
  } finally {
    race.signal.removeEventListener('abort', stop)
    course.end()
  }
}

class Course<T> {
  readonly #race: Race<T>
  readonly #won: (value: T) => void
  readonly #lost: (error: unknown) => void
  readonly #over = new AbortController()
  readonly #queues = new Map<4 | 6, string[]>([
    [6, []],
    [4, []],
  ])
  readonly #errors: unknown[] = []
  readonly #unknown: unknown[] = []
  /** Lookups that have not answered. */
  #asking = new Set<4 | 6>([6, 4])
  #running = 0
  #newest = 0
  #last: 4 | 6 = 4
  /** Whether the next one may begin as soon as there is an address. */
  #free = false
  #cancel: () => void = () => {}

  constructor(race: Race<T>, won: (value: T) => void, lost: (error: unknown) => void) {
    this.#race = race
    this.#won = won
    this.#lost = lost
  }

  start(): void {
    for (const family of [6, 4] as const)
      this.#race.lookUp(family).then(
        (addresses) => this.#found(family, addresses),
        (error: unknown) => {
          this.#unknown.push(error)
          this.#found(family, [])
        },
      )
  }

  fail(error: unknown): void {
    // First: an attempt that was won in this same turn must find it over, or nobody would have its socket.
    this.end()
    this.#lost(error)
  }

  end(): void {
    this.#cancel()
    this.#over.abort()
  }

  #found(family: 4 | 6, addresses: readonly string[]): void {
    if (this.#over.signal.aborted) return
    this.#asking.delete(family)
    this.#queues.get(family)?.push(...addresses.slice(0, MAX_ADDRESSES))
    // Section 3: IPv6 goes at once; IPv4 gives it a moment more, and no longer.
    if (this.#newest > 0 || this.#free) this.#step()
    else if (family === 6 ? addresses.length > 0 || this.#asking.size === 0 : !this.#asking.has(6))
      this.#go()
    else if (family === 4 && addresses.length > 0)
      this.#cancel = this.#race.clock.after(RESOLUTION_DELAY_MS, () => this.#go())
  }

  #go(): void {
    this.#cancel()
    this.#free = true
    this.#step()
  }

  /** Begins the next attempt where it may and there is one; is over where nothing is left. */
  #step(): void {
    if (this.#over.signal.aborted) return
    const address = this.#free ? this.#take() : undefined
    if (address !== undefined) this.#begin(address)
    else if (this.#running === 0 && this.#asking.size === 0 && this.#empty()) this.#nothing()
  }

  #empty(): boolean {
    return [...this.#queues.values()].every((queue) => queue.length === 0)
  }

  /** Section 4: families in turn. */
  #take(): string | undefined {
    const [other, same] = this.#last === 4 ? ([6, 4] as const) : ([4, 6] as const)
    for (const family of [other, same]) {
      const address = this.#queues.get(family)?.shift()
      if (address === undefined) continue
      this.#last = family
      return address
    }
    return undefined
  }

  #begin(address: string): void {
    const { clock, begin, discard } = this.#race
    const number = ++this.#newest
    this.#running++
    this.#free = false
    this.#cancel()
    this.#cancel = clock.after(ATTEMPT_DELAY_MS, () => this.#go())
    begin(address, this.#over.signal).then(
      (value) => {
        if (this.#over.signal.aborted) discard(value)
        else {
          this.end()
          this.#won(value)
        }
      },
      (error: unknown) => {
        this.#running--
        this.#errors.push(error)
        // Section 5: a failure of the newest makes room at once; one of an older one changes nothing.
        if (number === this.#newest) this.#go()
        else this.#step()
      },
    )
  }

  #nothing(): void {
    this.end()
    this.#lost(
      this.#errors.length > 0
        ? summary(this.#errors)
        : (this.#unknown[0] ?? new Error('no address')),
    )
  }
}

/** What says of a whole family that it is not there, and nothing of the other side. */
const NO_WAY = new Set(['ENETUNREACH', 'EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EHOSTUNREACH', 'EACCES'])

function summary(errors: readonly unknown[]): unknown {
  if (errors.length === 1) return errors[0]
  const told = errors.find((error) => !NO_WAY.has(codeOf(error))) ?? errors[0]
  const words = [...new Set(errors.map((error) => (error instanceof Error ? error.message : '')))]
  return Object.assign(new AggregateError(errors, words.join('; ')), { code: codeOf(told) })
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function aborted(cause: unknown): Error {
  const error = new Error('the attempt was given up', { cause })
  return Object.assign(error, { name: 'AbortError', code: 'ABORT_ERR' })
}
