/** The caller's side of store.sqlite: typed calls into the worker that owns the file. */
import { Worker } from 'node:worker_threads'
import type { Rooms } from './rooms.ts'

type Operations<R extends keyof Rooms> = Rooms[R]['operations']
type Arguments<F> = F extends (db: never, args: infer A) => unknown ? A : never
type Result<F> = F extends (...args: never[]) => infer V ? V : never

interface Waiter {
  resolve(value: unknown): void
  reject(error: Error): void
}
interface Request {
  readonly id: number
  readonly room: string
  readonly name: string
  readonly args: unknown
}
interface Reply {
  readonly id: number
  readonly value?: unknown
  readonly error?: { readonly name: string; readonly message: string; readonly code?: string }
}

export class StoreError extends Error {
  override readonly name = 'StoreError'
  /** What the worker threw: its class, or a room's own closed code. */
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** Where so many wait for the store, a request waits for others: a commit costs as much for one as for all. */
const SIBLINGS = 3
/** Turns of the event loop that it waits for them. */
const TURNS = 8

export class SqliteThread implements AsyncDisposable {
  readonly #worker: Worker
  readonly #waiting = new Map<number, Waiter>()
  /** What these turns of the event loop ask for: one message, one transaction, one fsync. */
  #outbox: Request[] = []
  #last = 0
  #ended: Error | undefined

  private constructor(worker: Worker) {
    this.#worker = worker
    worker.on('message', (replies: Reply[]) => {
      for (const reply of replies) this.#settle(reply)
    })
    worker.on('error', (error) =>
      this.#end(error instanceof Error ? error : new Error(String(error))),
    )
    worker.on('exit', () => this.#end(new StoreError('store.closed', 'the store is closed')))
  }

  /** False once the worker has ended, for whatever reason: every call rejects from then on. */
  get open(): boolean {
    return this.#ended === undefined
  }

  /** Opens or creates the file at `path`, migrates it, and resolves when it can be used. */
  static async open(path: string): Promise<SqliteThread> {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: { path } })
    const thread = new SqliteThread(worker)
    await new Promise<unknown>((resolve, reject) => thread.#waiting.set(0, { resolve, reject }))
    return thread
  }

  /**
   * Runs one operation in its own savepoint; resolves when the commit that holds it is on disk.
   * Rejects with StoreError: the code is the one the operation threw, or the SQLite error's.
   */
  async call<R extends keyof Rooms, N extends keyof Operations<R> & string>(
    room: R,
    name: N,
    args: Arguments<Operations<R>[N]>,
  ): Promise<Result<Operations<R>[N]>> {
    if (this.#ended !== undefined) throw this.#ended
    const id = ++this.#last
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    this.#waiting.set(id, { resolve, reject })
    if (this.#outbox.push({ id, room, name, args }) === 1) setImmediate(() => this.#gather(TURNS))
    return (await promise) as Result<Operations<R>[N]>
  }

  /** A turn of an idle loop takes no time; one of a busy loop brings more for the same commit. */
  #gather(turns: number): void {
    if (turns === 0 || this.#waiting.size < SIBLINGS) this.#post()
    else setImmediate(() => this.#gather(turns - 1))
  }

  #post(): void {
    const requests = this.#outbox
    this.#outbox = []
    if (requests.length > 0 && this.#ended === undefined) this.#worker.postMessage(requests)
  }

  #settle(reply: Reply): void {
    const waiter = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if (reply.error === undefined) waiter?.resolve(reply.value)
    else waiter?.reject(new StoreError(reply.error.code ?? reply.error.name, reply.error.message))
  }

  #end(error: Error): void {
    this.#ended ??= error
    for (const waiter of this.#waiting.values()) waiter.reject(this.#ended)
    this.#waiting.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended !== undefined) return
    const exited = new Promise((resolve) => this.#worker.once('exit', resolve))
    this.#post()
    this.#worker.postMessage('close')
    await exited
  }
}
