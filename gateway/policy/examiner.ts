/**
 * Looks at a bundle in a thread of its own, for a bounded time: unpacking, verifying, compiling, loading
 * its data and deciding its vectors cost the thread that decides nothing but the copy of the outcome.
 */
import { Worker } from 'node:worker_threads'
import { PolicyError } from '#policy'
import type { Candidate, LoadOptions, PolicyCode } from '#policy'

/** What the thread answers. */
export type Reply =
  | { readonly ok: true; readonly candidate: Candidate }
  | { readonly ok: false; readonly code: PolicyCode; readonly detail: string }

/** How the outcome of `examine` is come by; tests and small nodes may do it in place. */
export type Examine = (bytes: Uint8Array, options: LoadOptions) => Promise<Candidate>

const LIMIT_MS = 15_000
const HEAP_MB = 256

/**
 * `examine` of #policy in a worker.
 * Takes: the archive, whom to trust and the high-water mark, and milliseconds after which it is given up.
 * Errors (PolicyError): those of `examine`; bundle.loops where the time or the memory ran out.
 */
export async function examineApart(
  bytes: Uint8Array,
  options: LoadOptions,
  limitMs = LIMIT_MS,
): Promise<Candidate> {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), {
    workerData: { bytes, options },
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
  })
  const { promise, resolve, reject } = Promise.withResolvers<Reply>()
  const timer = setTimeout(() => {
    reject(new PolicyError('bundle.loops', `not looked at within ${limitMs} ms`))
  }, limitMs)
  worker.once('message', resolve)
  worker.once('error', (cause) => {
    reject(new PolicyError('bundle.loops', 'the thread that looked at it failed', { cause }))
  })
  worker.once('exit', () => {
    reject(new PolicyError('bundle.loops', 'the thread that looked at it ended'))
  })
  try {
    const reply = await promise
    if (!reply.ok) throw new PolicyError(reply.code, reply.detail)
    return reply.candidate
  } finally {
    clearTimeout(timer)
    await worker.terminate()
  }
}
