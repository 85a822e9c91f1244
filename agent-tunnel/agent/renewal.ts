/** When the certificate is renewed, and how often it is tried: 2/3 of its life, then again and again. */
import { renewAt, retryAfter } from '#est'
import type { Clock } from '#tunnel'
import type { DeviceClock } from './clock.ts'
import { AgentError, messageOf } from './errors.ts'
import type { Pair } from './identity.ts'
import type { Log } from './log.ts'

/** The device's clock may jump; it is read again at least this often. */
const LOOK_EVERY_MS = 60_000
/** A gateway that asks for renewals is obeyed this often at most; nor does a wrong clock renew more often. */
const ASKED_EVERY_MS = 60_000
/** Between two tries at least, and at most this share of the life, however wrong the clock. */
const LEAST_RETRY_MS = 30_000
const RETRY_SHARE = 20
/** Shares of the life after which a certificate that is still not renewed is an alarm. */
const ALARMS = [0.75, 0.9]

export interface RenewalOptions {
  readonly clock: DeviceClock
  readonly monotonic: Clock
  readonly random: () => number
  readonly log: Log
  /** The newest pair. */
  readonly pair: () => Pair
  /** Gets the next one; rejects when that failed. */
  readonly renew: (pair: Pair) => Promise<Pair>
  readonly renewed: (pair: Pair) => void
}

/** Renews in time until disposed. */
export class Renewal implements Disposable {
  readonly #options: RenewalOptions
  /** One draw for this run: devices installed together do not renew together. */
  readonly #jitter: number
  #cancel: (() => void) | undefined
  #busy = false
  #stopped = false
  #askedAt = -Infinity
  /** Monotonic: a date that is corrected meanwhile must not put the next try off by years. */
  #notBefore = -Infinity
  #alarmed = 0

  constructor(options: RenewalOptions) {
    this.#options = options
    this.#jitter = options.random() * 2 - 1
    this.#wait()
  }

  /** The gateway asks for it now. */
  ask(): void {
    const now = this.#options.monotonic.now()
    if (now - this.#askedAt < ASKED_EVERY_MS) return
    this.#askedAt = now
    void this.#try()
  }

  [Symbol.dispose](): void {
    this.#stopped = true
    this.#cancel?.()
  }

  #wait(): void {
    this.#cancel?.()
    if (this.#stopped) return
    const { clock, monotonic, pair } = this.#options
    const { notBefore, notAfter } = pair()
    const due = Math.max(
      renewAt(notBefore, notAfter, this.#jitter) - clock.now(),
      this.#notBefore - monotonic.now(),
    )
    this.#cancel = monotonic.after(Math.max(0, Math.min(due, LOOK_EVERY_MS)), () => {
      if (due <= LOOK_EVERY_MS) void this.#try()
      else this.#wait()
    })
  }

  async #try(): Promise<void> {
    if (this.#busy || this.#stopped) return
    this.#busy = true
    const { log, monotonic, pair, renew, renewed } = this.#options
    const old = pair()
    try {
      const next = await renew(old)
      this.#alarmed = 0
      this.#notBefore = monotonic.now() + ASKED_EVERY_MS
      log('info', 'certificate.renewed', {
        serial: next.leaf.serialNumber,
        not_after: next.leaf.validTo,
      })
      if (!this.#stopped) renewed(next)
    } catch (error) {
      const wait = this.#waitAfter(error, old)
      this.#notBefore = monotonic.now() + wait
      log(this.#alarm(old), 'certificate.not_renewed', {
        reason: messageOf(error),
        not_after: old.leaf.validTo,
        retry_in_ms: wait,
      })
    } finally {
      this.#busy = false
      this.#wait()
    }
  }

  /** As long as the gateway said, else by what is left of the life; past the end too. */
  #waitAfter(error: unknown, { notBefore, notAfter }: Pair): number {
    const asked = error instanceof AgentError ? (error.retryAfterMs ?? 0) : 0
    const longest = Math.max(LEAST_RETRY_MS, (notAfter - notBefore) / RETRY_SHARE)
    const left = retryAfter(this.#options.clock.now(), notAfter)
    return Math.round(Math.min(longest, Math.max(left, asked)))
  }

  /** An alarm is an error in the log, each once; in between it is a warning. */
  #alarm({ notBefore, notAfter }: Pair): 'warn' | 'error' {
    const lived = (this.#options.clock.now() - notBefore) / (notAfter - notBefore)
    const passed = ALARMS.filter((share) => lived >= share).length
    if (passed <= this.#alarmed) return 'warn'
    this.#alarmed = passed
    return 'error'
  }
}
