/**
 * Replays the decision log in a thread of its own: tens of thousands of decisions under two policies, one
 * of which nobody has let near a request, cost the thread that decides nothing.
 */
import { Worker } from 'node:worker_threads'
import { PolicyError } from '#policy'
import type { Candidate, Staleness } from '#policy'
import type { Replay } from './impact.ts'

interface ReplayRequest {
  /** Directory of the decision log. */
  readonly directory: string
  /** Epoch milliseconds. */
  readonly from: number
  readonly inForce: Candidate
  readonly candidate: Candidate
  readonly staleness: Staleness | undefined
}

/** What the thread is given. */
export interface ReplayTask extends ReplayRequest {
  /** Shared with the thread: in `ASKED` the number of the decision that it asks about, from 1. */
  readonly progress: Int32Array<SharedArrayBuffer>
}

export const ASKED = 0

export type ReplayReply =
  | { readonly ok: true; readonly replay: Replay }
  | { readonly ok: false; readonly detail: string }

/** Milliseconds. */
interface ReplayLimits {
  /** All that a node keeps takes some ten seconds. */
  readonly totalMs: number
  /** For one past decision, asked under both: it takes microseconds. */
  readonly oneMs: number
}

const LIMITS: ReplayLimits = { totalMs: 120_000, oneMs: 15_000 }
const HEAP_MB = 1024
/** So often it is looked whether the thread gets on. */
const LOOKS = 10

/**
 * `replay` in a worker. Errors (PolicyError): bundle.slow where the time ran out, bundle.loops where one decision
 * did not come to its end or the memory ran out; a plain Error where the log cannot be read.
 */
export async function replayApart(
  request: ReplayRequest,
  limits: Partial<ReplayLimits> = {},
): Promise<Replay> {
  const { totalMs, oneMs } = { ...LIMITS, ...limits }
  const progress = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
  const worker = new Worker(new URL('./replay-worker.ts', import.meta.url), {
    workerData: { ...request, progress } satisfies ReplayTask,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
  })
  const { promise, resolve, reject } = Promise.withResolvers<ReplayReply>()
  const fail = (code: 'bundle.loops' | 'bundle.slow', detail: string, cause?: unknown): void =>
    reject(new PolicyError(code, detail, { cause }))
  const timer = setTimeout(
    () => fail('bundle.slow', `the log was not replayed within ${totalMs} ms`),
    totalMs,
  )
  const watch = watchProgress(progress, oneMs, (asked) =>
    fail('bundle.loops', `past decision ${asked} did not come to its end within ${oneMs} ms`),
  )
  worker.once('message', resolve)
  worker.once('error', (cause) =>
    fail('bundle.loops', 'the thread that replayed the log failed', cause),
  )
  worker.once('exit', () => fail('bundle.loops', 'the thread that replayed the log ended'))
  try {
    const reply = await promise
    if (!reply.ok) throw new Error(`the decision log could not be replayed: ${reply.detail}`)
    return reply.replay
  } finally {
    clearTimeout(timer)
    clearInterval(watch)
    await worker.terminate()
  }
}

/**
 * Tells of a decision that is asked about at every one of ten looks in a row. It counts looks and not the time, so
 * that a machine that stood still is not taken for a rule that loops.
 */
function watchProgress(
  progress: Int32Array,
  oneMs: number,
  stuck: (asked: number) => void,
): NodeJS.Timeout {
  let [seen, looks] = [0, 0]
  return setInterval(() => {
    const asked = Atomics.load(progress, ASKED)
    looks = asked === seen ? looks + 1 : 0
    seen = asked
    if (asked > 0 && looks >= LOOKS) stuck(asked)
  }, oneMs / LOOKS)
}
