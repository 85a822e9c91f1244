/**
 * The bench's own processes and how they are asked: a question is one message, its answer another.
 * A process that ends before it has answered rejects what was asked of it.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'

/** What a process can be asked: a name, one argument, one answer. */
type Asks<T> = { readonly [K in keyof T]: (ask: never) => unknown }
type Ask<F> = F extends (ask: infer A) => unknown ? A : never
type Answer<F> = F extends (ask: never) => infer R ? Awaited<R> : never

interface Question {
  readonly id: number
  readonly name: string
  readonly ask: unknown
}

type Reply =
  | { readonly id: number; readonly answer: unknown }
  | { readonly id: number; readonly error: string }

/** In the child: answers until the parent disconnects, and then ends the process. */
export function answerWith<T extends Asks<T>>(asks: T): void {
  const reply = (message: Reply): void => {
    if (process.connected) process.send?.(message)
  }
  process.on('message', (question: Question) => {
    const handler = asks[question.name as keyof T] as unknown as (ask: unknown) => unknown
    Promise.try(handler, question.ask).then(
      (answer) => reply({ id: question.id, answer }),
      (error: unknown) =>
        reply({
          id: question.id,
          error: error instanceof Error ? (error.stack ?? error.message) : String(error),
        }),
    )
  })
  process.on('disconnect', () => process.exit(0))
}

/** A child of the bench; `T` is the type of what it answers. Ends with the block that holds it. */
export class Remote<T extends Asks<T>> implements AsyncDisposable {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #next = 0

  /**
   * `file` is a program that calls `answerWith`; `flags` are Node's own; `under` is a command that
   * becomes what follows it (`unshare -n`).
   */
  constructor(file: string, flags: readonly string[] = [], under: readonly string[] = []) {
    const [command = process.execPath, ...rest] = under
    const own = under.length === 0 ? [] : [process.execPath]
    this.#child = spawn(command, [...rest, ...own, ...flags, file], {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.pid = this.#child.pid ?? 0
    this.#child.on('message', (reply: Reply) => {
      const waiting = this.#waiting.get(reply.id)
      this.#waiting.delete(reply.id)
      if ('error' in reply) waiting?.reject(new Error(reply.error))
      else waiting?.resolve(reply.answer)
    })
    const fail = (why: string): void => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`${file}: ${why}`))
      this.#waiting.clear()
    }
    this.#child.on('error', (error) => fail(error.message))
    this.#child.on('exit', (code, signal) => fail(`ended with ${code ?? signal}`))
  }

  async call<K extends keyof T & string>(name: K, ask: Ask<T[K]>): Promise<Answer<T[K]>> {
    const id = this.#next++
    const waiting = Promise.withResolvers<unknown>()
    this.#waiting.set(id, waiting)
    this.#child.send({ id, name, ask } satisfies Question)
    return (await waiting.promise) as Answer<T[K]>
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exit = once(this.#child, 'exit')
    if (this.#child.connected) this.#child.disconnect()
    const late = setTimeout(() => this.#child.kill('SIGKILL'), 3000)
    await exit
    clearTimeout(late)
  }
}
