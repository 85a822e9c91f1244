/** The writer's thread as the log sees it: asked one thing at a time, never two batches in flight. */
import type { KeyObject } from 'node:crypto'
import { Worker } from 'node:worker_threads'
import { pack } from './batch.ts'
import type { LogLimits, LogOptions } from './options.ts'
import { keptBack, purseOf } from './room.ts'
import type { Answer, Request, ThreadData } from './serve.ts'
import type { Waiting } from './queue.ts'

export class ThreadLink {
  /** It has been asked, and has not answered to the end. */
  busy = true
  readonly #worker: Worker
  /** Memory that came back from the writer. */
  #spare: ArrayBuffer | null = null

  /** `heard` is given every answer, `lost` whatever ended the thread. */
  constructor(
    options: LogOptions,
    limits: Required<LogLimits>,
    keys: readonly KeyObject[],
    promised: SharedArrayBuffer,
    on: { heard(answer: Answer): void; lost(error: Error): void },
  ) {
    const workerData: ThreadData = {
      directory: options.directory,
      origin: options.origin,
      keys,
      segmentBytes: limits.segmentBytes,
      reserve: keptBack(limits),
      promised,
    }
    const thread = options.thread ?? new URL('./thread.ts', import.meta.url)
    this.#worker = new Worker(thread, { workerData })
    this.#worker.on('message', (answer: Answer) => {
      if (answer.kind === 'written') this.#spare = answer.spare
      on.heard(answer)
    })
    this.#worker.on('error', (error) =>
      on.lost(error instanceof Error ? error : new Error(String(error))),
    )
    this.#worker.on('exit', () => on.lost(new Error('the writer thread ended')))
  }

  ask(request: Request): void {
    this.busy = true
    this.#worker.postMessage(request)
  }

  /** Sends a batch, the first of which is to have the index `first`; its head is signed where there is a `signAt`. */
  send(flying: readonly Waiting[], first: number, signAt: number | null): void {
    const rendered = flying.map((one) => one.rendered)
    const batch = pack(rendered, first, this.#spare)
    this.#spare = null
    this.busy = true
    const request: Request = { kind: 'batch', batch, signAt, purse: purseOf(flying) }
    this.#worker.postMessage(request, [batch.bytes.buffer])
  }

  async end(): Promise<void> {
    await this.#worker.terminate()
  }
}
