/** The thread that a candidate is asked in: what loops or eats memory here stops no decision. asker.ts. */
import { parentPort, workerData } from 'node:worker_threads'
import { PolicyEngine } from '#policy'
import type { Answer, Asked, Questions } from './asker.ts'

const { candidate, staleness } = workerData as Asked
const engine = PolicyEngine.unavailable(staleness === undefined ? {} : { staleness })
engine.adopt(candidate)

/** Nobody acts on these: they have no id of their own. */
const options = { decisionId: 'd_asked' }

const say = (answer: Answer): void => parentPort?.postMessage(answer)

parentPort?.on('message', ({ point, inputs }: Questions) =>
  say(inputs.map((input) => engine.decide(point, input, options))),
)
say('ready')
