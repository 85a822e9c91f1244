/** The thread a bundle is looked at in: what loops or eats memory here stops no decision. examiner.ts. */
import { parentPort, workerData } from 'node:worker_threads'
import { examine, PolicyError } from '#policy'
import type { LoadOptions } from '#policy'
import type { Reply } from './examiner.ts'

const { bytes, options } = workerData as { bytes: Uint8Array; options: LoadOptions }

async function reply(): Promise<Reply> {
  try {
    return { ok: true, candidate: await examine(bytes, options) }
  } catch (error) {
    if (error instanceof PolicyError) return { ok: false, code: error.code, detail: error.detail }
    return { ok: false, code: 'module.invalid', detail: String(error) }
  }
}

const found = await reply()
parentPort?.postMessage(found, found.ok ? [found.candidate.image.memory.buffer] : [])
