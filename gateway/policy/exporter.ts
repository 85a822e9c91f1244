/**
 * Hands out the decision log, page by page, masked by the policy in force. Whatever goes wrong with the mask, the page is
 * not handed out: nothing leaves that has not been masked.
 */
import { Worker } from 'node:worker_threads'
import type { Candidate, MaskedRecord } from '#policy'
import { Refusal } from '../problem.ts'
import { RING_NAMES, type Begin, type RingName } from './chain.ts'
import type { DecisionRecord } from './record.ts'

/** Where a page begins in each chain: at a line that comes next, or, where none of it was handed out yet, at a time. */
export type Cursor = Readonly<Record<RingName, Begin>>

/** As the API and the command have it: `ACTS.FLOW`, each a number of a line or `@` and epoch milliseconds. */
export function cursorText(cursor: Cursor): string {
  const parts = RING_NAMES.map((name) => {
    const begin = cursor[name]
    return 'seq' in begin ? String(begin.seq) : `@${begin.since}`
  })
  return parts.join('.')
}

/** A text of that form; nothing else is given to it. */
export function readCursor(text: string): Cursor {
  const begins = text.split('.').map((part): Begin => {
    const number = Number(part.replace('@', ''))
    return part.startsWith('@') ? { since: number } : { seq: number }
  })
  const [acts = { seq: 0 }, flow = { seq: 0 }] = begins
  return { acts, flow }
}

export interface ExportTask {
  /** Directory of the decision log. */
  readonly directory: string
  readonly begin: Cursor
  /** The policy in force, whose mask it is. */
  readonly candidate: Candidate
  /** A page holds one decision at least, and no more octets than this. */
  readonly maxBytes: number
}

export interface ExportPage {
  /** Records as JSON text. */
  readonly items: readonly string[]
  /** Where the next page begins, also where nothing is left by now. */
  readonly next: Cursor
  /** Whether something is left by now. */
  readonly more: boolean
}

export type ExportReply =
  | { readonly ok: true; readonly text: string }
  | { readonly ok: false; readonly masked: boolean; readonly detail: string }

const LIMIT_MS = 15_000
const HEAP_MB = 256

/**
 * One page in a worker, as the text of its JSON document. Throws Refusal `policy.mask` where the mask fails or does not
 * come to its end; a plain Error where the log cannot be read.
 */
export async function exportApart(task: ExportTask, limitMs = LIMIT_MS): Promise<string> {
  const worker = new Worker(new URL('./export-worker.ts', import.meta.url), {
    workerData: task,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
  })
  const { promise, resolve, reject } = Promise.withResolvers<ExportReply>()
  const fail = (detail: string, cause?: unknown): void => reject(unmasked(detail, cause))
  const timer = setTimeout(() => fail(`a page was not masked within ${limitMs} ms`), limitMs)
  worker.once('message', resolve)
  worker.once('error', (cause) => fail('the thread that masked it failed', cause))
  worker.once('exit', () => fail('the thread that masked it ended'))
  try {
    const reply = await promise
    if (reply.ok) return reply.text
    if (reply.masked) throw unmasked(reply.detail)
    throw new Error(`the decision log could not be read: ${reply.detail}`)
  } finally {
    clearTimeout(timer)
    await worker.terminate()
  }
}

/** Nothing of it is handed out. */
export function unmasked(detail: string, cause?: unknown): Refusal {
  return new Refusal('policy.mask', detail, {
    cause,
    nextStep:
      'mend rules/mask.rego (docs/policy.md, The decision log), sign with a higher --seq and activate it',
  })
}

/** Fields beside the input that say what a part of it says. */
const COPIES = {
  '/input/request_id': ['req_id'],
  '/input/client/ip': ['requested_by'],
  '/input/subject/id': ['custom', 'subject'],
  '/input/session/id': ['custom', 'session'],
} as const

/** A record as it leaves: with what was masked said in it, and without the copies of that elsewhere. */
export function leaving(
  { record, erased, masked }: MaskedRecord<DecisionRecord>,
  chain: RingName,
): Readonly<Record<string, unknown>> {
  const gone = [...erased, ...masked].map(decoded)
  const hidden = new Set(
    Object.entries(COPIES)
      .filter(([path]) => gone.some((one) => path === one || path.startsWith(`${one}/`)))
      .map(([, steps]) => steps.join('/')),
  )
  const blank = <T>(name: string, value: T): T | null => (hidden.has(name) ? null : value)
  const { custom, req_id, requested_by, ...rest } = record
  return {
    ...rest,
    req_id: blank('req_id', req_id),
    requested_by: blank('requested_by', requested_by),
    custom: {
      ...custom,
      chain,
      subject: blank('custom/subject', custom.subject),
      session: blank('custom/session', custom.session),
    },
    ...(erased.length === 0 ? {} : { erased }),
    ...(masked.length === 0 ? {} : { masked }),
  }
}

const decoded = (path: string): string => path.split('/').map(decodeURIComponent).join('/')
