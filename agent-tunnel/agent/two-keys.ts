/**
 * Two-key mode on a device: the approvers that its owner pinned, and what they signed. The gateway brings a grant and its
 * assertions; this file decides whether they are enough, by the clock of the machine and not by what the gateway says of
 * the time, and remembers when a grant was first used, so that neither a restart nor the gateway makes it last longer.
 */
import { join } from 'node:path'
import {
  checkOpening,
  checkSuccession,
  hashOfSet,
  readApproverSet,
  type ApproverSet,
  type ApproversFault,
} from '#approval'
import type { ModbusOptions } from '#ot'
import type { Clock } from '#tunnel'
import type { AgentConfig } from './config.ts'
import { AgentError, messageOf } from './errors.ts'
import { readIfPresent, removeDurably, writeDurably } from './files.ts'
import { FirstUses } from './first-uses.ts'
import type { Log } from './log.ts'

const FILE = 'approvers.json'
/** Says that there must be a set: one that is missing then is a fault, and no return to one key. */
const MARK = 'two-keys'

type Device = Pick<AgentConfig, 'dataDir' | 'device' | 'tenant'>

function invalid(path: string, why: string, cause?: unknown): AgentError {
  return new AgentError(
    'approvers.invalid',
    `${path} is no set of approvers: ${why}.`,
    'Compare it with docs/agent.md, section "Two keys"; nobody is let in until it is one.',
    { cause },
  )
}

/** The set in the text of a file. Throws AgentError `approvers.invalid`. */
function parse(text: string, path: string, device: Device): ApproverSet {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw invalid(path, messageOf(error), error)
  }
  const set = readApproverSet(value)
  if (typeof set === 'string') throw invalid(path, set)
  if (set.device !== device.device || set.tenant !== device.tenant)
    throw invalid(path, `it is for ${set.device} of ${set.tenant}`)
  return set
}

/** The set that is pinned here, or undefined where none ever was. Throws AgentError `approvers.invalid`, also for one that is gone. */
export function readApprovers(device: Device): ApproverSet | undefined {
  const path = join(device.dataDir, FILE)
  let text: string | undefined
  let marked: boolean
  try {
    text = readIfPresent(path)
    marked = readIfPresent(join(device.dataDir, MARK)) !== undefined
  } catch (error) {
    throw invalid(path, messageOf(error), error)
  }
  if (text !== undefined) return parse(text, path, device)
  if (!marked) return undefined
  throw new AgentError(
    'approvers.invalid',
    `${path} is gone, and this device lets nobody in without its approvers.`,
    'Put the file back, or give up two keys here: sallyport agent approvers remove',
  )
}

function write(device: Device, set: ApproverSet): void {
  writeDurably(join(device.dataDir, FILE), `${JSON.stringify(set, undefined, 2)}\n`, 0o600)
  mark(device, set)
}

function mark({ dataDir }: Device, { seq }: ApproverSet): void {
  const path = join(dataDir, MARK)
  if (readIfPresent(path) === undefined)
    writeDurably(path, `${JSON.stringify({ v: 1, since_seq: seq })}\n`, 0o600)
}

/**
 * Ends two-key mode: the set goes, then the mark that there must be one, so that half of it lets nobody in. Gives whether
 * there was anything. A running agent lets nobody in until its next start. Throws AgentError `data.unwritable`.
 */
export function removeApprovers({ dataDir }: Pick<Device, 'dataDir'>): boolean {
  const removed = [FILE, MARK].map((name) => removeDurably(join(dataDir, name)))
  return removed.includes(true)
}

/**
 * Pins the first set of a device: the text of `path`. The same one again changes nothing. Throws AgentError
 * `approvers.invalid`, `approvers.pinned` (there is another: it is replaced by `rotateApprovers`), `data.unwritable`.
 */
export function pinApprovers(device: Device, text: string, path: string): ApproverSet {
  const set = parse(text, path, device)
  const held = readApprovers(device)
  if (held !== undefined && hashOfSet(held) !== hashOfSet(set))
    throw new AgentError(
      'approvers.pinned',
      `${device.device} has approvers already, as number ${held.seq}.`,
      'Have the new set signed by them: sallyport agent approvers rotate FILE --signature FILE …',
    )
  if (held === undefined) write(device, set)
  else mark(device, held)
  return set
}

/**
 * Replaces the set by the text of `path`, signed by a quorum of the people of the one before. Throws AgentError
 * `approvers.invalid`, `approvers.refused`, `data.unwritable`.
 */
export function rotateApprovers(
  device: Device,
  text: string,
  path: string,
  assertions: readonly unknown[],
): ApproverSet {
  const next = parse(text, path, device)
  const held = readApprovers(device)
  if (held === undefined)
    throw new AgentError(
      'approvers.refused',
      `${device.device} has no approvers yet.`,
      'Pin the first set: sallyport agent approvers pin FILE',
    )
  const outcome = checkSuccession(held, next, assertions)
  if (!outcome.ok)
    throw new AgentError(
      'approvers.refused',
      `The new set is not taken: ${outcome.detail} (${outcome.code}).`,
      'Each approver of the set before signs the new one: sallyport approvers sign FILE',
    )
  write(device, next)
  return next
}

/** What the gateway asks for. */
interface Ask {
  readonly process: string
  readonly otLevel: number | undefined
  readonly otWindows?: ModbusOptions['windows'] | undefined
  readonly grant: unknown
}

type Refusal = {
  readonly ok: false
  readonly code: ApproversFault | 'approvers.invalid'
  readonly detail: string
}

/** What was signed, and may be opened once the rest is in order too. */
export interface Signed {
  readonly ok: true
  /**
   * Call just before the stream is opened: writes down the first use, or that there was one, and gives how long it may
   * last from now. Never throws.
   */
  readonly use: () => Used
}

export type Admitted = Signed | Refusal
export type Used = { readonly ok: true; readonly remainingMs: number } | Refusal

export interface TwoKeys {
  /** Whether the pinned approvers signed what is asked, and time of it is left. Writes nothing, never throws. */
  admit(ask: Ask): Admitted
}

interface TwoKeysOptions {
  /** The machine's own clock, epoch milliseconds. */
  readonly system: () => number
  /** Time that nobody sets, milliseconds. */
  readonly monotonic: Pick<Clock, 'now'>
  readonly log: Log
}

/**
 * Two-key mode, if this device has approvers; the file is read again for each session, so that a new set holds at once.
 * One that is gone or broken lets nobody in. Throws AgentError `approvers.invalid`, `data.unwritable`.
 */
export function openTwoKeys(device: Device, options: TwoKeysOptions): TwoKeys | undefined {
  const first = readApprovers(device)
  if (first === undefined) return undefined
  // A set that was laid here by hand, or before there was a mark.
  mark(device, first)
  const { system, monotonic, log } = options
  log('info', 'approvers.pinned', { seq: first.seq, quorum: first.quorum })
  const uses = new FirstUses(device.dataDir, system, monotonic)
  const orInvalid = <T>(work: () => T): T | Refusal => {
    try {
      return work()
    } catch (error) {
      log('error', 'approvers.failed', { reason: messageOf(error) })
      const detail = 'the approvers cannot be checked here'
      return { ok: false, code: 'approvers.invalid', detail }
    }
  }
  return {
    admit: (ask) =>
      orInvalid(() => {
        const admitted = admit(device, uses, ask)
        return admitted.ok ? { ok: true, use: () => orInvalid(admitted.use) } : admitted
      }),
  }
}

function admit(device: Device, uses: FirstUses, ask: Ask): Admitted {
  const set = readApprovers(device)
  if (set === undefined)
    return { ok: false, code: 'approvers.invalid', detail: 'the pinned approvers are gone' }
  const outcome = checkOpening(set, { ...ask, now: uses.now() })
  if (!outcome.ok) return outcome
  const { statement, hash } = outcome
  const left = saidOf(uses.left(statement, hash))
  return left.ok ? { ok: true, use: () => saidOf(uses.use(statement, hash)) } : left
}

function saidOf(remainingMs: number): Used {
  if (remainingMs > 0) return { ok: true, remainingMs }
  return { ok: false, code: 'approvers.time', detail: 'the time of the grant is used up' }
}
