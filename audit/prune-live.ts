/**
 * Lets go of the oldest events while the gateway writes: recorded and signed first; what is slow is done beside the log, and
 * what touches the log's files by the one hand that writes them, a step between two batches. docs/audit.md section "Pruning".
 */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { AuditLog } from './contract.ts'
import { AuditError } from './errors.ts'
import type { Actor } from './event.ts'
import { pruneEvent, type Plan, type PlanOptions, type Pruned } from './prune-plan.ts'
import type { Answers, Question, Reply } from './prune-thread.ts'
import type { Chore } from './serve.ts'

export interface PruneAsked extends Pick<PlanOptions, 'archive' | 'before'> {
  /** Only says what would go. */
  readonly dry?: boolean
  /** Who asked for it, for the event. */
  readonly by?: Actor
}

type Live = Pick<AuditLog, 'directory' | 'vkeys' | 'append' | 'checkpoint'>

/**
 * Prunes whole segments of a log that is being written. `chore` has the writer do one step. Errors: prune.archive,
 * prune.failed (recorded and not brought to its end; the next prune does that), those of `append`, and log.closed where
 * `signal` says that the log closes.
 */
export async function pruneLive(
  log: Live,
  asked: PruneAsked,
  chore: (chore: Chore) => Promise<void>,
  signal: AbortSignal,
): Promise<Pruned> {
  const { archive, before, dry = false, by } = asked
  const { directory, vkeys: verifierKeys } = log
  await using thread = new Beside(
    { directory, archive, before, verifierKeys, running: true },
    signal,
  )
  const { pruned, going }: Plan = await thread.ask({ kind: 'plan' })
  if (dry || going.length === 0) return pruned
  const { origin, from, first } = pruned
  await log.append(pruneEvent(pruned, archive, by))
  const { size: upTo } = await log.checkpoint()
  await thread.ask({ kind: 'keep', origin, from, first })
  for (const name of going) await chore({ kind: 'remove', name })
  // Last, because it takes room: what it is done for may be a disk that is full.
  const { gone, end } = await thread.ask({ kind: 'thin', first, upTo })
  await chore({ kind: 'adopt', end })
  return { ...pruned, heads: gone }
}

/** The thread beside, one question at a time; gone when this is disposed of. */
class Beside implements AsyncDisposable {
  readonly #worker: Worker
  readonly #signal: AbortSignal

  constructor(options: PlanOptions, signal: AbortSignal) {
    this.#worker = new Worker(new URL('./prune-thread.ts', import.meta.url), {
      workerData: options,
    })
    this.#worker.unref()
    // Whoever waits for an answer hears of it; nobody does between two questions.
    this.#worker.on('error', () => undefined)
    this.#signal = signal
  }

  async ask<K extends Question['kind']>(
    question: Extract<Question, { kind: K }>,
  ): Promise<Answers[K]> {
    const signal = this.#signal
    if (signal.aborted) throw closed()
    this.#worker.postMessage(question)
    const gone = new AbortController()
    try {
      const [reply] = (await Promise.race([
        once(this.#worker, 'message', { signal: AbortSignal.any([gone.signal, signal]) }),
        once(this.#worker, 'exit', { signal: gone.signal }).then(() => {
          throw new AuditError('prune.failed', 'the thread beside the log ended')
        }),
      ])) as [Reply]
      if ('code' in reply) throw new AuditError(reply.code, reply.message)
      return reply.value as Answers[K]
    } catch (cause) {
      if (signal.aborted) throw closed(cause)
      if (cause instanceof AuditError) throw cause
      const message = cause instanceof Error ? cause.message : String(cause)
      throw new AuditError('prune.failed', message, { cause })
    } finally {
      gone.abort()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate()
  }
}

function closed(cause?: unknown): AuditError {
  return new AuditError('log.closed', 'the audit log was closed while it was being pruned', {
    cause,
  })
}
