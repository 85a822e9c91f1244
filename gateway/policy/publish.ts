/**
 * The policy in force as a bundle server hands it out (OPA's bundle protocol): whole and signed as it
 * came, or as plain Rego for an OPA without a WebAssembly engine. ETag, and long polling.
 */
import { setTimeout } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { asRego } from '#policy'

export interface Published {
  /** SHA-256, hex, of the archive in force; null where nothing is. */
  digest(): string | null
  archive(): Uint8Array<ArrayBuffer>
}

export interface Answer {
  readonly status: 200 | 304 | 404
  readonly headers: Readonly<Record<string, string>>
  readonly body?: Buffer
}

export const BUNDLE_TYPE = 'application/vnd.openpolicyagent.bundles'
/** The longest that an answer is held back for somebody who waits, in seconds. */
const MAX_WAIT_S = 60
const LOOK_MS = 250
/** So many may wait at once. */
const MAX_WAITING = 64

export class BundleServer {
  readonly #policy: Published
  readonly #made = new Map<string, { readonly digest: string; readonly body: Buffer }>()
  #waiting = 0

  constructor(policy: Published) {
    this.#policy = policy
  }

  /**
   * Takes the path (`/bundles/sallyport`, `/bundles/sallyport-rego`) and the request's headers. Gives
   * the answer, at once or when the policy changes. `signal` ends the waiting.
   */
  async answer(
    path: string,
    headers: Readonly<Record<string, string | string[] | undefined>>,
    signal: AbortSignal,
  ): Promise<Answer> {
    const flavour = /^\/bundles\/sallyport(-rego)?(?:\.tar\.gz)?$/.exec(path)
    if (flavour === null || this.#policy.digest() === null) return { status: 404, headers: {} }
    const rego = flavour[1] !== undefined
    const has = String(headers['if-none-match'] ?? '').replace(/^(?:W\/)?"|"$/g, '')
    const tag = (): string => `${this.#policy.digest() ?? ''}${rego ? '-rego' : ''}`
    if (has === tag()) await this.#change(tag(), tag, waitOf(headers['prefer']), signal)
    const etag = tag()
    const common = { etag: `"${etag}"`, 'content-type': BUNDLE_TYPE, 'cache-control': 'no-cache' }
    if (has === etag) return { status: 304, headers: common }
    return { status: 200, headers: common, body: this.#body(rego) }
  }

  async #change(
    from: string,
    tag: () => string,
    seconds: number,
    signal: AbortSignal,
  ): Promise<void> {
    if (seconds === 0 || this.#waiting >= MAX_WAITING) return
    const until = performance.now() + seconds * 1000
    this.#waiting++
    try {
      while (tag() === from && performance.now() < until && !signal.aborted)
        await setTimeout(LOOK_MS, undefined, { signal, ref: false })
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      this.#waiting--
    }
  }

  #body(rego: boolean): Buffer {
    const flavour = rego ? 'rego' : 'signed'
    const digest = this.#policy.digest() ?? ''
    const known = this.#made.get(flavour)
    if (known?.digest === digest) return known.body
    const archive = this.#policy.archive()
    const body = gzipSync(rego ? asRego(archive) : archive)
    this.#made.set(flavour, { digest, body })
    return body
  }
}

/** `Prefer: modes=snapshot;wait=60` (OPA's long polling): how long, in seconds, at most 60. */
function waitOf(prefer: string | string[] | undefined): number {
  const wait = /(?:^|[;,\s])wait=(\d{1,6})/.exec(String(prefer ?? ''))?.[1]
  return Math.min(MAX_WAIT_S, Number(wait ?? 0))
}
