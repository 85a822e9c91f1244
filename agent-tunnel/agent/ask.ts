/** What an OPEN asks of the agent, read strictly, and the codes and words it is answered with. */
import type { ApproversFault } from '#approval'
import type { ModbusOptions } from '#ot'
import type { StreamKind } from '#tunnel'
import { isId } from './config.ts'
import type { ConsentCode } from './consent.ts'
import { readRecord, writeRecord } from './json.ts'
import { modbusRules } from './modbus.ts'
import type { Observed } from './scope/observed.ts'
import type { WindowSize } from './spawn/pty.ts'

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
  | 'spawn.unavailable'
  | 'spawn.program'
  | 'spawn.failed'
  | 'approvers.invalid'
  | ApproversFault
  | ConsentCode

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
  /** Who is behind it, as the gateway says. */
  readonly who: string | null
  /** It opens nothing: the people at the device are asked whether a session may begin, and that is all. */
  readonly asksOwner: boolean
  /** What a Modbus session is held to; undefined where it is none. */
  readonly modbus: ModbusOptions | undefined
  /** The person's terminal, for a program that may have one; undefined where there is none. */
  readonly terminal: Terminal | undefined
  /** The signed grant as it came, for a device that asks for one. */
  readonly grant: unknown
}

export interface Terminal {
  readonly rows: number
  readonly cols: number
  /** As TERM names it. */
  readonly term: string
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
  return {
    kind,
    session,
    process,
    remainingMs,
    who: whoOf(more['who']),
    asksOwner: more['protocol'] === ASKS_OWNER,
    modbus: modbusOf(kind, more),
    terminal: terminalOf(more),
    grant: more['grant'],
  }
}

/** A protocol, so that an agent that knows nothing of it refuses instead of dialling. docs/protocol.md. */
const ASKS_OWNER = 'consent'
const MAX_WHO = 320

/** For people to read on a terminal: nothing that would move its cursor. */
function whoOf(value: unknown): string | null {
  return typeof value === 'string' ? value.replaceAll(/[^\P{C} ]/gu, '?').slice(0, MAX_WHO) : null
}

/** A session that is said to be Modbus without rules we understand is not opened with none. */
function modbusOf(
  kind: StreamKind,
  { protocol, obligations }: Record<string, unknown>,
): ModbusOptions | undefined {
  if (protocol === undefined || protocol === kind || protocol === ASKS_OWNER) return undefined
  const rules = protocol === 'modbus' && kind === 'tcp' ? modbusRules(obligations) : undefined
  if (rules === undefined)
    throw new Refused('open.metadata', 'the request is for a protocol this agent cannot judge')
  return rules
}

const MAX_CHARACTERS = 1000

/** Rows and columns as a window may have them; undefined for what is none. */
export function sizeOf({ rows, cols }: Record<string, unknown>): WindowSize | undefined {
  const fits = (count: unknown): count is number =>
    Number.isInteger(count) && Number(count) >= 1 && Number(count) <= MAX_CHARACTERS
  return fits(rows) && fits(cols) ? { rows, cols } : undefined
}

function terminalOf({ terminal }: Record<string, unknown>): Terminal | undefined {
  if (terminal === undefined || terminal === null) return undefined
  const value = typeof terminal === 'object' ? { ...terminal } : {}
  const size = sizeOf(value)
  const term = 'term' in value ? value.term : undefined
  if (size === undefined || typeof term !== 'string' || !/^[A-Za-z0-9+._-]{1,64}$/.test(term))
    throw new Refused('open.metadata', 'the request is for a terminal that is none')
  return { ...size, term }
}

/**
 * The answer to OPEN, whole or not at all: a list of owners cut to fit would hide one. Throws Refused
 * `target.unobserved`.
 */
export function answerOf(
  observed: Observed | null,
  more: Readonly<Record<string, unknown>> = {},
): Uint8Array {
  const answer = writeRecord({ v: 1, observed, ...more })
  if (answer.length <= MAX_METADATA_BYTES) return answer
  throw new Refused('target.unobserved', 'the owners of the connection are too many to tell')
}
