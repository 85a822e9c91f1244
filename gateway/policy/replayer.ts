/**
 * Replays the decision log in a thread of its own: tens of thousands of decisions under two policies, one
 * of which nobody has let near a request, cost the thread that decides nothing.
 */
import { Worker } from 'node:worker_threads'
import { PolicyError } from '#policy'
import type { Candidate, Staleness } from '#policy'
import type { Replay } from './impact.ts'

/** What the thread is given. */
export interface ReplayTask {
  /** Directory of the decision log. */
  readonly directory: string
  /** Epoch milliseconds. */
  readonly from: number
  readonly inForce: Candidate
  readonly candidate: Candidate
  readonly staleness: Staleness | undefined
}

export type ReplayReply =
  | { readonly ok: true; readonly replay: Replay }
  | { readonly ok: false; readonly detail: string }

/** All that a node keeps takes some ten seconds. */
const LIMIT_MS = 120_000
const HEAP_MB = 1024

/**
 * `replay` in a worker. Errors (PolicyError): bundle.loops where the time or the memory ran out; a plain
 * Error where the log cannot be read.
 */
export async function replayApart(task: ReplayTask, limitMs = LIMIT_MS): Promise<Replay> {
  const worker = new Worker(new URL('./replay-worker.ts', import.meta.url), {
    workerData: task,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
  })
  const { promise, resolve, reject } = Promise.withResolvers<ReplayReply>()
  const timer = setTimeout(() => {
    reject(new PolicyError('bundle.loops', `the log was not replayed within ${limitMs} ms`))
  }, limitMs)
  worker.once('message', resolve)
  worker.once('error', (cause) => {
    reject(new PolicyError('bundle.loops', 'the thread that replayed the log failed', { cause }))
  })
  worker.once('exit', () => {
    reject(new PolicyError('bundle.loops', 'the thread that replayed the log ended'))
  })
  try {
    const reply = await promise
    if (!reply.ok) throw new Error(`the decision log could not be replayed: ${reply.detail}`)
    return reply.replay
  } finally {
    clearTimeout(timer)
    await worker.terminate()
  }
}
