/**
 * Asks a candidate in a thread of its own. Nobody has let it near a request yet: what loops or eats memory in
 * it ends that thread, and costs the thread that decides no more than handing the questions over. What is
 * slow is given up, too: by each answer, and by all of them together.
 */
import { Worker } from 'node:worker_threads'
import { bareInput, POINT_NAMES, PolicyError } from '#policy'
import type { Candidate, Decision, Input, Point, Staleness } from '#policy'

/** What the thread is sent, any number of times, each answered in its turn. */
export interface Questions {
  readonly point: Point
  readonly inputs: readonly Input[]
}

/** What it sends: once that it is ready to decide, then an answer to each. */
export type Answer = 'ready' | readonly Decision[]

const HEAP_MB = 256

/** What the thread begins with. */
export interface Asked {
  readonly candidate: Candidate
  readonly staleness: Staleness | undefined
}

interface AskerOptions extends Partial<AskerLimits> {
  /** What a bundle past its age decides on this node: as under the one in force, or its end would not be foreseen. */
  readonly staleness?: Staleness | undefined
}

/** Milliseconds. */
interface AskerLimits {
  /** From the first question until the thread is ready to decide. */
  readonly startMs: number
  /** For one answer, of a thread that is ready: an evaluation takes microseconds, and in force it would have 250 ms. */
  readonly answerMs: number
  /** For all answers, from when the thread is ready: whoever asks holds up what changes the policy. */
  readonly totalMs: number
}

const LIMITS: AskerLimits = { startMs: 15_000, answerMs: 1_000, totalMs: 60_000 }

interface Waiting {
  readonly resolve: (decisions: readonly Decision[]) => void
  readonly reject: (error: Error) => void
}

/** Starts its thread at the first question; disposing it ends that, and what is asked from then on is refused. */
export class Asker implements AsyncDisposable {
  readonly #asked: Asked
  readonly #limits: AskerLimits
  readonly #waiting: Waiting[] = []
  #worker: Worker | undefined
  #ready = false
  /** Messages that have come. */
  #came = 0
  /** Until it is ready, or the next answer; and for all. */
  #timer: NodeJS.Timeout | undefined
  #deadline: NodeJS.Timeout | undefined
  #failed: Error | undefined

  constructor(candidate: Candidate, { staleness, ...limits }: AskerOptions = {}) {
    this.#asked = { candidate, staleness }
    this.#limits = { ...LIMITS, ...limits }
  }

  /**
   * Errors: PolicyError bundle.slow where the thread was not ready or all answers took too long, bundle.loops
   * where one did not come or the thread failed; then for ever. A plain Error once it is disposed of.
   */
  async ask(point: Point, inputs: readonly Input[]): Promise<readonly Decision[]> {
    if (this.#failed !== undefined) throw this.#failed
    const worker = (this.#worker ??= this.#start())
    const { promise, resolve, reject } = Promise.withResolvers<readonly Decision[]>()
    this.#waiting.push({ resolve, reject })
    if (this.#ready && this.#waiting.length === 1) this.#watch()
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    worker.postMessage({ point, inputs } satisfies Questions)
    return await promise
  }

  /**
   * Has it answer at every point before it is kept: no vector that it carries need have asked it anything.
   * Takes the time in epoch seconds. Errors (PolicyError): those of `ask`; module.eval where it cannot
   * answer, or not with a decision document.
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
      workerData: this.#asked,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    })
    worker.on('message', (answer: Answer) => this.#take(answer))
    worker.once('error', (cause) => this.#broke('the thread that it was asked in failed', cause))
    worker.once('exit', () => this.#broke('the thread that it was asked in ended'))
    const { startMs } = this.#limits
    this.#timer = this.#after(
      startMs,
      'bundle.slow',
      `the thread that it is asked in was not ready within ${startMs} ms`,
    )
    return worker
  }

  #take(answer: Answer): void {
    if (this.#failed !== undefined) return
    this.#came++
    if (answer === 'ready') {
      this.#ready = true
      const { totalMs } = this.#limits
      const text = `the answers took longer than ${totalMs} ms together`
      this.#deadline = setTimeout(() => this.#fail(new PolicyError('bundle.slow', text)), totalMs)
    } else this.#waiting.shift()?.resolve(answer)
    this.#watch()
  }

  /** From now on, while something is asked: an answer, or the end. */
  #watch(): void {
    clearTimeout(this.#timer)
    if (this.#waiting.length === 0) return
    const { answerMs } = this.#limits
    this.#timer = this.#after(answerMs, 'bundle.loops', `no answer within ${answerMs} ms`)
  }

  /** Fails unless something comes in time: after a turn that itself took long, what came during it is taken first. */
  #after(ms: number, code: 'bundle.loops' | 'bundle.slow', detail: string): NodeJS.Timeout {
    return setTimeout(() => {
      const came = this.#came
      setImmediate(() => {
        if (this.#came === came) this.#fail(new PolicyError(code, detail))
      })
    }, ms)
  }

  #broke(detail: string, cause?: unknown): void {
    this.#fail(new PolicyError('bundle.loops', detail, cause === undefined ? {} : { cause }))
  }

  #fail(error: Error): void {
    clearTimeout(this.#timer)
    clearTimeout(this.#deadline)
    this.#failed ??= error
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failed)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new Error('the candidate is asked no more'))
    await this.#worker?.terminate()
  }
}
