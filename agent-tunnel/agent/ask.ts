/** What an OPEN asks of the agent, read strictly, and the codes and words it is answered with. */
import type { ModbusOptions } from '#ot'
import type { StreamKind } from '#tunnel'
import { isId } from './config.ts'
import { readRecord, writeRecord } from './json.ts'
import { modbusRules } from './modbus.ts'
import type { Observed } from './scope/observed.ts'

/** Codes the agent refuses or ends a stream with; docs/agent.md says what each means. */
export type ForwardCode =
  | 'open.kind'
  | 'open.metadata'
  | 'target.unknown'
  | 'target.unreachable'
  | 'target.unobserved'
  | 'target.closed'
  | 'agent.draining'
  | 'agent.full'
  | 'agent.memory'
  | 'lease.spent'
  | 'proceed.late'
  | 'process.changed'

/** A stream is not opened. */
export class Refused extends Error {
  readonly code: ForwardCode
  constructor(code: ForwardCode, message: string) {
    super(message)
    this.code = code
  }
}

/** What OPEN asked for. */
export interface Ask {
  readonly kind: StreamKind
  readonly session: string
  readonly process: string
  readonly remainingMs: number
  /** What a Modbus session is held to; undefined where it is none. */
  readonly modbus: ModbusOptions | undefined
}

/** docs/protocol.md: metadata in OPEN and ACCEPT. */
const MAX_METADATA_BYTES = 4096
const SESSION_ID = /^s_[0-9a-hjkmnp-tv-z]{26}$/

/**
 * Reads what OPEN asks for. What else it holds is the gateway's to enforce, or a later version's.
 * Throws Refused `open.metadata`, `lease.spent`.
 */
export function askOf(kind: StreamKind, metadata: Uint8Array): Ask {
  const { v, session, process, remaining_ms: remainingMs, ...more } = readRecord(metadata) ?? {}
  if (v !== 1 || typeof session !== 'string' || !SESSION_ID.test(session)) {
    throw new Refused('open.metadata', 'the request names no session')
  }
  if (!isId(process)) throw new Refused('open.metadata', 'the request names no process')
  if (typeof remainingMs !== 'number' || !Number.isSafeInteger(remainingMs)) {
    throw new Refused('open.metadata', 'the request does not say how long the session may last')
  }
  if (remainingMs <= 0) throw new Refused('lease.spent', 'the time of the session is over')
  return { kind, session, process, remainingMs, modbus: modbusOf(kind, more) }
}

/** A session that is said to be Modbus without rules we understand is not opened with none. */
function modbusOf(
  kind: StreamKind,
  { protocol, obligations }: Record<string, unknown>,
): ModbusOptions | undefined {
  if (protocol === undefined || protocol === kind) return undefined
  const rules = protocol === 'modbus' && kind === 'tcp' ? modbusRules(obligations) : undefined
  if (rules === undefined)
    throw new Refused('open.metadata', 'the request is for a protocol this agent cannot judge')
  return rules
}

/**
 * The answer to OPEN, whole or not at all: a list of owners cut to fit would hide one. Throws Refused
 * `target.unobserved`.
 */
export function answerOf(observed: Observed | null): Uint8Array {
  const answer = writeRecord({ v: 1, observed })
  if (answer.length <= MAX_METADATA_BYTES) return answer
  throw new Refused('target.unobserved', 'the owners of the connection are too many to tell')
}
