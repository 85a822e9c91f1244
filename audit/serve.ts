/** The writer behind a message port: what log.ts asks and what it is told. */
import { parentPort, workerData } from 'node:worker_threads'
import type { KeyObject } from 'node:crypto'
import type { Batch } from './batch.ts'
import type { Checkpoint } from './checkpoint.ts'
import type { Disk } from './disk.ts'
import { AuditError } from './errors.ts'
import type { AuditCode, Place } from './errors.ts'
import { noteSigner } from './note.ts'
import { promisedIn } from './ledger.ts'
import type { Purse } from './room.ts'
import { Writer } from './writer.ts'
import type { Opened, Watched, WriterOptions, Written } from './writer.ts'

/** Given as workerData. */
export interface ThreadData {
  readonly directory: string
  readonly origin: string
  readonly keys: readonly KeyObject[]
  readonly segmentBytes: number
  readonly reserve: WriterOptions['reserve']
  /** What the log's ledger shares. */
  readonly promised: SharedArrayBuffer
}

export type Request =
  | {
      readonly kind: 'batch'
      readonly batch: Batch
      readonly signAt: number | null
      /** From what it may be paid where the disk is full. */
      readonly purse: Purse
    }
  | { readonly kind: 'sign'; readonly signAt: number }
  | { readonly kind: 'reopen' }
  | { readonly kind: 'watch' }
  | Chore
  | { readonly kind: 'close' }

/** A step of a prune that touches files the writer has. */
export type Chore =
  /** A segment that was let go of. */
  | { readonly kind: 'remove'; readonly name: string }
  /** Takes the thinned heads for its own; they have what stood before byte `end` of the present ones. */
  | { readonly kind: 'adopt'; readonly end: number }

/** A batch to be signed is answered twice: `written` when it is durable, `signed` when the head is. */
export type Answer =
  | { readonly kind: 'opened'; readonly opened: Opened }
  | {
      readonly kind: 'written'
      readonly written: Written
      readonly more: boolean
      /** The batch's memory, given back for the next. */
      readonly spare: ArrayBuffer
    }
  | { readonly kind: 'signed'; readonly checkpoint: Checkpoint | null }
  | { readonly kind: 'watched'; readonly watched: Watched }
  | { readonly kind: 'done' }
  | { readonly kind: 'closed' }
  | {
      readonly kind: 'failed'
      readonly during: Request['kind'] | 'open'
      readonly code: AuditCode
      readonly message: string
      readonly place: Place | undefined
    }

/** Serves this thread's port until `close`. */
export function serve(disk: Disk): void {
  const port = parentPort
  if (port === null) throw new Error('the audit writer runs in a worker thread')
  const data = workerData as ThreadData
  const signers = data.keys.map((key) => noteSigner(data.origin, key))
  const { reserve, promised, ...where } = data
  const writer = new Writer({
    ...where,
    signers,
    disk,
    promised: promisedIn(promised),
    ...(reserve === undefined ? {} : { reserve }),
  })
  const answer = (value: Answer): void => port.postMessage(value)
  const attempt = (during: Request['kind'] | 'open', act: () => void): void => {
    try {
      act()
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      const known = error instanceof AuditError
      const code = known ? error.code : 'log.write'
      answer({ kind: 'failed', during, code, message, place: known ? error.place : undefined })
    }
  }
  const acts: {
    readonly [K in Request['kind']]: (request: Extract<Request, { kind: K }>) => void
  } = {
    batch: ({ batch, signAt, purse }) => {
      const spare = batch.bytes.buffer
      const written = writer.appendWithin(batch, purse)
      port.postMessage(
        { kind: 'written', written, more: signAt !== null, spare } satisfies Answer,
        [spare],
      )
      if (signAt !== null) answer({ kind: 'signed', checkpoint: writer.sign(signAt) })
    },
    sign: ({ signAt }) => answer({ kind: 'signed', checkpoint: writer.sign(signAt) }),
    reopen: () => answer({ kind: 'opened', opened: writer.reopen() }),
    watch: () => answer({ kind: 'watched', watched: writer.watch() }),
    remove: ({ name }) => {
      writer.remove(name)
      answer({ kind: 'done' })
    },
    adopt: ({ end }) => {
      writer.adopt(end)
      answer({ kind: 'done' })
    },
    close: () => {
      writer.close()
      answer({ kind: 'closed' })
      port.close()
    },
  }
  port.on('message', (request: Request) => {
    attempt(request.kind, () => (acts[request.kind] as (request: Request) => void)(request))
  })
  attempt('open', () => answer({ kind: 'opened', opened: writer.open() }))
}
