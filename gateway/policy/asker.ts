/**
 * Asks a candidate in a thread of its own. Nobody has let it near a request yet: what loops or eats memory in
 * it ends that thread, and costs the thread that decides no more than handing the questions over.
 */
import { Worker } from 'node:worker_threads'
import { bareInput, POINT_NAMES, PolicyError } from '#policy'
import type { Candidate, Decision, Input, Point } from '#policy'

/** What the thread is sent, any number of times, each answered in its turn. */
export interface Questions {
  readonly point: Point
  readonly inputs: readonly Input[]
}

const HEAP_MB = 256
/** So long the thread may be silent while something is asked: an evaluation takes microseconds. */
const SILENT_MS = 5_000

interface Waiting {
  readonly resolve: (decisions: readonly Decision[]) => void
  readonly reject: (error: PolicyError) => void
}

/** Starts its thread at the first question; disposing it ends that. */
export class Asker implements AsyncDisposable {
  readonly #candidate: Candidate
  readonly #silentMs: number
  readonly #waiting: Waiting[] = []
  #worker: Worker | undefined
  #timer: NodeJS.Timeout | undefined
  #failed: PolicyError | undefined

  constructor(candidate: Candidate, silentMs = SILENT_MS) {
    this.#candidate = candidate
    this.#silentMs = silentMs
  }

  /** Errors (PolicyError): bundle.loops where no answer came in time, or the thread failed; then for ever. */
  async ask(point: Point, inputs: readonly Input[]): Promise<readonly Decision[]> {
    if (this.#failed !== undefined) throw this.#failed
    const worker = (this.#worker ??= this.#start())
    const { promise, resolve, reject } = Promise.withResolvers<readonly Decision[]>()
    this.#waiting.push({ resolve, reject })
    if (this.#waiting.length === 1) this.#watch()
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    worker.postMessage({ point, inputs } satisfies Questions)
    return await promise
  }

  /**
   * Has it answer at every point before it is kept: no vector that it carries need have asked it anything.
   * Takes the time in epoch seconds. Errors (PolicyError): bundle.loops; module.eval where it cannot answer,
   * or not with a decision document.
   */
  async prove(at: number): Promise<void> {
    for (const point of POINT_NAMES) {
      const [decision] = await this.ask(point, [bareInput(point, at)])
      const broken = decision?.denials.find(({ code }) => code === 'policy.error')
      if (broken !== undefined) throw new PolicyError('module.eval', `${point}: ${broken.ref}`)
    }
  }

  #start(): Worker {
    const worker = new Worker(new URL('./asker-worker.ts', import.meta.url), {
      workerData: this.#candidate,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    })
    worker.on('message', (decisions: readonly Decision[]) => {
      this.#waiting.shift()?.resolve(decisions)
      this.#watch()
    })
    worker.once('error', (cause) => this.#fail('the thread that it was asked in failed', cause))
    worker.once('exit', () => this.#fail('the thread that it was asked in ended'))
    return worker
  }

  /** From now on, while something is asked: an answer, or the end. */
  #watch(): void {
    clearTimeout(this.#timer)
    if (this.#waiting.length === 0) return
    const text = `no answer within ${this.#silentMs} ms`
    this.#timer = setTimeout(() => this.#fail(text), this.#silentMs)
  }

  #fail(detail: string, cause?: unknown): void {
    clearTimeout(this.#timer)
    this.#failed ??= new PolicyError('bundle.loops', detail, cause === undefined ? {} : { cause })
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failed)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer)
    await this.#worker?.terminate()
  }
}
