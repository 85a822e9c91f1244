/**
 * An evaluation cannot be interrupted. A second thread looks at whether one has been going on for too long;
 * then it writes down under which archive, on disk, and ends the process: the next start leaves it out.
 */
import { Worker } from 'node:worker_threads'

const LIMIT_MS = 250

/** Two shared words: evaluations begun, evaluations ended. */
export const BEGUN = 0
export const ENDED = 1

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

  constructor({ directory, limitMs = LIMIT_MS }: WatchOptions) {
    const shared = new SharedArrayBuffer(8)
    this.#counts = new Int32Array(shared)
    const workerData = { shared, directory, limitMs } satisfies Orders
    this.#worker = new Worker(new URL('./watch.ts', import.meta.url), { workerData })
    this.#worker.unref()
  }

  /** Which archive decides from now on (SHA-256, hex); null: none that could be blamed. */
  watch(digest: string | null): void {
    this.#worker.postMessage(digest)
  }

  /** For `EngineOptions.guard`. */
  readonly guard = {
    enter: (): void => {
      Atomics.add(this.#counts, BEGUN, 1)
    },
    leave: (): void => {
      Atomics.add(this.#counts, ENDED, 1)
    },
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate()
  }
}
