/**
 * What of a prune takes long, beside a gateway that goes on: proving the archive, seeing to the hashes, choosing the heads
 * that stay. It writes only what the log's own writer does not. docs/audit.md section "Pruning".
 */
import { join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { demandApart } from './archive.ts'
import { AuditError, type AuditCode } from './errors.ts'
import { keepTiles } from './keep.ts'
import { planPrune, type Plan, type PlanOptions } from './prune-plan.ts'
import { thinNotes, type Thinned } from './thin.ts'

/** One question, one answer, in order. */
export type Question =
  | { readonly kind: 'plan' }
  | {
      readonly kind: 'keep'
      readonly origin: string
      readonly from: number
      readonly first: number
    }
  | { readonly kind: 'thin'; readonly first: number; readonly upTo: number }

export interface Answers {
  readonly plan: Plan
  readonly keep: null
  readonly thin: Thinned
}

export type Reply =
  | { readonly value: Answers[keyof Answers] }
  | { readonly code: AuditCode; readonly message: string }

const port = parentPort
if (port === null) throw new Error('this part of a prune runs in a worker thread')
const options = workerData as PlanOptions
const { directory, archive } = options

const acts: {
  readonly [K in Question['kind']]: (
    question: Extract<Question, { kind: K }>,
  ) => Answers[K] | Promise<Answers[K]>
} = {
  plan: () => planPrune(options),
  keep: ({ origin, from, first }) => {
    // What was shown may have been mounted or linked otherwise since.
    demandApart(directory, archive)
    keepTiles(directory, origin, from, first)
    return null
  },
  thin: ({ first, upTo }) => thinNotes(join(directory, 'checkpoints.log'), first, upTo),
}

async function answer(question: Question): Promise<Reply> {
  try {
    const act = acts[question.kind] as (question: Question) => Promise<Answers[keyof Answers]>
    return { value: await act(question) }
  } catch (error) {
    const code = error instanceof AuditError ? error.code : 'prune.failed'
    return { code, message: error instanceof Error ? error.message : String(error) }
  }
}

port.on('message', (question: Question) => {
  void answer(question).then((reply) => port.postMessage(reply))
})
