/**
 * Where bundles come from by themselves: an OPA bundle server, long polled, or a file that somebody
 * drops. Whatever comes is verified like any upload; what is refused is said once and tried again
 * when it changes.
 */
import { readFileSync, statSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { Agent, fetch } from 'undici'
import { PolicyError } from '#policy'
import { Refusal } from '../problem.ts'
import { BUNDLE_TYPE } from './publish.ts'

export interface SourceSettings {
  /** `https://…`: the whole address of the bundle. */
  readonly url?: string | undefined
  /** PEM of the authority that signed the server's certificate; without one the system's. */
  readonly ca_file?: string | undefined
  /** One line: a bearer token. */
  readonly token_file?: string | undefined
  /** A bundle that somebody puts there, whole, by renaming. */
  readonly file?: string | undefined
  /** Seconds between looks where the server does not wait, and between looks at a file. */
  readonly poll_s?: number | undefined
}

export interface SourceHealth {
  /** The file, or the address without what may be secret in it. */
  readonly from: string
  /** `WAITING`: before the first look is through, or one that somebody asked for. */
  readonly state: 'WAITING' | 'OK' | 'FAILED'
  /** Epoch seconds of the last look that worked; null before the first. */
  readonly checked_at: number | null
  /** Of what the server has, as it called that last; null where it calls it nothing, and of a file. */
  readonly etag: string | null
  /** What went wrong at the last look, or why what is there is refused. */
  readonly error: string | null
}

export interface SourceRoom {
  /** Verifies and keeps or activates; throws Refusal `policy.bundle`. */
  take(archive: Uint8Array<ArrayBuffer>, from: string): Promise<void>
  /** What did not come to its end is tried again when it comes again: somebody asked for that. */
  forgive(): void
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

const MAX_BUNDLE_BYTES = 16 * 1024 * 1024
const POLL_S = 30
const WAIT_S = 55
/** Longer than the server may wait. */
const REQUEST_MS = 75_000
/** An answer within this was not waited for; so many in a row are taken for what a busy server sends. */
const QUICK_MS = 1_000
const MOST_QUICK = 4
/** So long whoever asked for a look waits for it. */
const AGAIN_MS = 20_000
const BACKOFF_MS = [1_000, 2_000, 5_000, 15_000, 30_000] as const

/** What a look found: an archive, and how to remember that it was dealt with. */
interface Found {
  readonly archive?: Uint8Array<ArrayBuffer>
  readonly waited: boolean
  readonly done?: () => void
  readonly etag?: string | undefined
}
interface Place {
  look(signal: AbortSignal): Promise<Found>
  /** What is there is found at the next look, whether it was dealt with or not. */
  forget(): void
}

/** A look that somebody asked for. */
interface Again {
  readonly through: Promise<void>
  readonly resolve: () => void
}

/** A verdict that the same octets meet until somebody asks for another look; anything else may pass. */
function isFinal(error: unknown): boolean {
  return (
    error instanceof Refusal && error.code === 'policy.bundle' && error.shownCode !== 'bundle.slow'
  )
}

/** Looks until it is disposed. */
export class BundleSource implements AsyncDisposable {
  readonly #room: SourceRoom
  readonly #from: string
  readonly #place: Place
  readonly #pollMs: number
  readonly #stopping = new AbortController()
  readonly #agent: Agent | undefined
  #running: Promise<void> = Promise.resolve()
  #health: SourceHealth
  #refused: string | null = null
  /** Asked for, and not through. */
  #again: Again | undefined
  /** Ends the wait of the look under way, and the pause after it. */
  #hurry = new AbortController()

  constructor(settings: SourceSettings, room: SourceRoom) {
    this.#room = room
    this.#from = settings.url === undefined ? (settings.file ?? '') : shownUrl(settings.url)
    this.#pollMs = (settings.poll_s ?? POLL_S) * 1000
    const [checked_at, etag, error] = [null, null, null]
    this.#health = { from: this.#from, state: 'WAITING', checked_at, etag, error }
    if (settings.url === undefined) this.#place = dropped(settings.file ?? '')
    else {
      const ca = settings.ca_file === undefined ? {} : { ca: readFileSync(settings.ca_file) }
      this.#agent = new Agent({
        connect: ca,
        connections: 1,
        bodyTimeout: REQUEST_MS,
        headersTimeout: REQUEST_MS,
      })
      this.#place = served(settings, this.#agent)
    }
  }

  start(): void {
    this.#running = this.#run()
  }

  health(): SourceHealth {
    return this.#health
  }

  /**
   * Looks at once, also at what was refused. Gives how it stands when that look is through; `WAITING` where it is not
   * after `waitMs` milliseconds: the status says later how it went.
   */
  async again(waitMs = AGAIN_MS): Promise<SourceHealth> {
    if (this.#again === undefined) {
      const { promise: through, resolve } = Promise.withResolvers<void>()
      this.#again = { through, resolve }
      this.#hurry.abort()
    }
    const late = setTimeout(waitMs, 'late', { ref: false })
    const came = await Promise.race([this.#again.through, late])
    return came === 'late' ? { ...this.#health, state: 'WAITING' } : this.#health
  }

  /** Whether the look that begins was asked for; then what was dealt with is found once more. */
  #begin(): Again | undefined {
    this.#hurry = new AbortController()
    if (this.#again === undefined) return undefined
    this.#place.forget()
    this.#room.forgive()
    return this.#again
  }

  #through(again: Again | undefined): void {
    if (again === undefined) return
    this.#again = undefined
    again.resolve()
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    let [failures, quick] = [0, 0]
    while (!signal.aborted) {
      let pause: number
      const began = performance.now()
      const again = this.#begin()
      const either = AbortSignal.any([signal, this.#hurry.signal])
      try {
        const found = await this.#place.look(either)
        if (found.archive !== undefined) await this.#taken(found, found.archive)
        failures = 0
        quick = performance.now() - began < QUICK_MS ? quick + 1 : 0
        // A server that says it waits and answers at once, again and again, is polled like one that does not wait.
        pause = found.waited && quick < MOST_QUICK ? 0 : this.#pollMs
        const checked_at = Math.floor(this.#room.now() / 1000)
        const [error, etag = null] = [this.#refused, found.etag]
        const state = error === null ? 'OK' : 'FAILED'
        this.#health = { from: this.#from, state, checked_at, etag, error }
      } catch (error) {
        if (signal.aborted) return
        if (either.aborted) continue
        this.#failed(error)
        pause = BACKOFF_MS[Math.min(failures++, BACKOFF_MS.length - 1)] ?? this.#pollMs
      }
      this.#through(again)
      await setTimeout(pause, undefined, { signal: either, ref: false }).catch(() => undefined)
    }
  }

  /** What passes is tried again; a final verdict is kept in sight until a bundle was taken. */
  async #taken({ done }: Found, archive: Uint8Array<ArrayBuffer>): Promise<void> {
    try {
      await this.#room.take(archive, this.#from)
      this.#refused = null
    } catch (error) {
      if (!isFinal(error)) throw error
      this.#failed(error)
      this.#refused = this.#health.error
    }
    done?.()
  }

  #failed(error: unknown): void {
    const text = textOf(error)
    if (text !== this.#health.error) this.#room.report(error, `policy from ${this.#from}`)
    this.#health = { ...this.#health, state: 'FAILED', error: text }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort()
    await this.#running
    this.#through(this.#again)
    await this.#agent?.destroy()
  }
}

/** Without the query: who may see the status need not know them. */
function shownUrl(text: string): string {
  const { origin, pathname } = new URL(text)
  return `${origin}${pathname}`
}

/** `fetch failed` says nothing; what is under it does. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { cause } = error
  return cause instanceof Error ? `${error.message}: ${cause.message}` : error.message
}

/** A bundle server: ETag, and a wait where it offers one (OPA's long polling). */
function served({ url = '', token_file: tokenFile }: SourceSettings, dispatcher: Agent): Place {
  let etag: string | undefined
  const look = async (signal: AbortSignal): Promise<Found> => {
    const token = tokenFile === undefined ? undefined : readFileSync(tokenFile, 'utf8').trim()
    const answer = await fetch(url, {
      dispatcher,
      redirect: 'error',
      signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_MS)]),
      headers: {
        prefer: `modes=snapshot;wait=${WAIT_S}`,
        ...(etag === undefined ? {} : { 'if-none-match': etag }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
    })
    const waited = answer.headers.get('content-type')?.startsWith(BUNDLE_TYPE) === true
    if (answer.status === 304) return { waited, etag }
    if (answer.status !== 200) {
      await answer.body?.cancel()
      throw new Error(`the bundle server answered ${answer.status}`)
    }
    const archive = await bounded(answer.body)
    const tag = answer.headers.get('etag') ?? undefined
    const done = (): void => {
      etag = tag
    }
    return { archive, done, waited: waited && tag !== undefined, etag: tag }
  }
  return { look, forget: () => void (etag = undefined) }
}

async function bounded(body: AsyncIterable<unknown> | null): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = []
  let total = 0
  for await (const part of body ?? []) {
    if (!(part instanceof Uint8Array)) continue
    total += part.length
    if (total > MAX_BUNDLE_BYTES) throw new PolicyError('bundle.size', 'longer than 16 MB')
    parts.push(part)
  }
  return new Uint8Array(Buffer.concat(parts))
}

/** A file, read when it has changed. */
function dropped(path: string): Place {
  let seen = ''
  const look = async (): Promise<Found> => {
    const there = statSync(path, { throwIfNoEntry: false })
    const mark = there === undefined ? '' : `${there.ino}.${there.size}.${there.mtimeMs}`
    if (there === undefined || mark === seen) return { waited: false }
    // A pipe or a device would have the gateway stand still until somebody writes.
    if (!there.isFile()) throw new Error('what is there is no file')
    if (there.size > MAX_BUNDLE_BYTES) throw new PolicyError('bundle.size', 'longer than 16 MB')
    const done = (): void => {
      seen = mark
    }
    return { archive: new Uint8Array(readFileSync(path)), done, waited: false }
  }
  return { look, forget: () => void (seen = '') }
}
