/** The thread the decision log is replayed in: what loops or eats memory here stops no decision. replayer.ts. */
import { parentPort, workerData } from 'node:worker_threads'
import { PolicyEngine } from '#policy'
import { replay } from './impact.ts'
import { recordsSince } from './journal.ts'
import { ASKED, type ReplayReply, type ReplayTask } from './replayer.ts'

const { directory, from, inForce, candidate, staleness, progress } = workerData as ReplayTask

async function reply(): Promise<ReplayReply> {
  try {
    // What differs between the two is the policy, and nothing else.
    const options = staleness === undefined ? {} : { staleness }
    const today = PolicyEngine.unavailable(options)
    today.adopt(inForce)
    const then = PolicyEngine.unavailable(options)
    then.adopt(candidate)
    const asking = (before: number) => void Atomics.store(progress, ASKED, before + 1)
    const found = await replay(recordsSince(directory, from), today, then, asking)
    return { ok: true, replay: found }
  } catch (error) {
    return { ok: false, detail: String(error) }
  }
}

parentPort?.postMessage(await reply())
