/**
 * An evaluation cannot be interrupted. A second thread looks at whether one has been going on for too long;
 * then it writes down under which archive, on disk, and ends the process: the next start leaves it out.
 */
import { Worker } from 'node:worker_threads'

const LIMIT_MS = 250

/** Three shared words: evaluations begun, evaluations ended, and whose the last one is. */
export const BEGUN = 0
export const ENDED = 1
export const WHOSE = 2
/** Values of the third: the bundle in force, or one that is looked at beside it. */
const IN_FORCE = 0
const BESIDE = 1

/** Which archives could be blamed (SHA-256, hex), by the third word; null: nobody. */
export type Blamed = readonly [inForce: string | null, beside: string | null]

export interface WatchOptions {
  /** Directory of the slots (slots.ts). */
  readonly directory: string
  /** Milliseconds one evaluation may take. */
  readonly limitMs?: number
}

export interface Orders {
  readonly shared: SharedArrayBuffer
  readonly directory: string
  readonly limitMs: number
}

export class Watchdog implements AsyncDisposable {
  readonly #counts: Int32Array<SharedArrayBuffer>
  readonly #worker: Worker
  #blamed: Blamed = [null, null]

  constructor({ directory, limitMs = LIMIT_MS }: WatchOptions) {
    const shared = new SharedArrayBuffer(12)
    this.#counts = new Int32Array(shared)
    const workerData = { shared, directory, limitMs } satisfies Orders
    this.#worker = new Worker(new URL('./watch.ts', import.meta.url), { workerData })
    this.#worker.unref()
  }

  /** Which archive decides from now on (SHA-256, hex); null: none that could be blamed. */
  watch(digest: string | null): void {
    this.#blamed = [digest, this.#blamed[1]]
    this.#worker.postMessage(this.#blamed)
  }

  /** Which archive is evaluated beside it, by engines that carry `beside`. */
  watchBeside(digest: string | null): void {
    this.#blamed = [this.#blamed[0], digest]
    this.#worker.postMessage(this.#blamed)
  }

  /** For `EngineOptions.guard` of the engine in force. */
  readonly guard = this.#guardOf(IN_FORCE)

  /** For that of an engine on trial. */
  readonly beside = this.#guardOf(BESIDE)

  #guardOf(whose: number): { enter(): void; leave(): void } {
    return {
      enter: (): void => {
        Atomics.store(this.#counts, WHOSE, whose)
        Atomics.add(this.#counts, BEGUN, 1)
      },
      leave: (): void => {
        Atomics.add(this.#counts, ENDED, 1)
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate()
  }
}
