/**
 * Two-key mode: which people must have signed before a device lets anybody in. The owner pins the set on the device;
 * whoever has the gateway, its store and all its keys still lacks these. Pure: bytes and instants are arguments.
 */
import { createHash } from 'node:crypto'
import {
  checkAssertion,
  digestOf,
  readAssertion,
  readKey,
  type Assertion,
  type Expected,
  type SigningKey,
} from './assertion.ts'
import { periodAt } from './recurrence.ts'
import { readParty } from './signed.ts'
import {
  canonical,
  hashOf,
  readStatement,
  type AddressWindow,
  type Statement,
} from './statement.ts'

/** One passkey that counts, and whose: a person may have several, and counts once. */
export interface Approver {
  /** The owner's name for a human being. */
  readonly person: string
  /** Credential id, base64url. */
  readonly credential: string
  readonly key: SigningKey
}

/** What a device is told by its owner. */
export interface ApproverSet {
  readonly v: 1
  readonly tenant: string
  readonly device: string
  /** 1 for the first set of a device, and one more with each that follows. */
  readonly seq: number
  /** How many people must have signed a grant, and a new set. */
  readonly quorum: number
  readonly relying_party: { readonly id: string; readonly origins: readonly string[] }
  readonly approvers: readonly Approver[]
  /** Processes that are opened as Modbus and held to reading or writing, or not at all. */
  readonly modbus: readonly string[]
}

/** Closed: why a device refuses what its gateway asks for. */
export type ApproversFault =
  | 'approvers.missing'
  | 'approvers.statement'
  | 'approvers.target'
  | 'approvers.time'
  | 'approvers.level'
  | 'approvers.quorum'
  | 'approvers.sequence'

export type ApproversOutcome<T> =
  | ({ readonly ok: true } & T)
  | { readonly ok: false; readonly code: ApproversFault; readonly detail: string }

const MOST_APPROVERS = 32
/** What one OPEN of 4 KiB surely holds beside its statement: a quorum of more people could be pinned and never met. */
const MOST_QUORUM = 4
/** Assertions that are read, and signatures by pinned passkeys that are checked; a signature costs time. */
const MOST_READ = 256
const MOST_CHECKED = 32
/** How far the clock of a device may be off. Seconds. */
const SKEW_S = 120

const isName = (value: unknown): value is string =>
  typeof value === 'string' && value !== '' && value.length <= 200 && value.isWellFormed()

function readApprover(value: unknown): Approver | undefined {
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 3)
    return undefined
  const { person, credential, key } = value as Partial<Record<keyof Approver, unknown>>
  if (!isName(person) || typeof credential !== 'string' || credential.length > 1400)
    return undefined
  if (!/^[A-Za-z0-9_-]+$/.test(credential) || readKey(key) === undefined) return undefined
  const { alg, spki } = key as SigningKey
  return { person, credential, key: { alg, spki } }
}

const MEMBERS = 'approvers device modbus quorum relying_party seq tenant v'

/**
 * The set in `value` (parsed JSON), or why it is none, in a sentence. One key stands for one person: a set in which two
 * share a credential or a key would let one of them be two.
 */
export function readApproverSet(value: unknown): ApproverSet | string {
  if (typeof value !== 'object' || value === null) return 'it is not an object'
  const names = Object.keys(value).toSorted()
  if (names.join(' ') !== MEMBERS) return `its members are not ${MEMBERS.replaceAll(' ', ', ')}`
  const { v, tenant, device, seq, quorum, relying_party, approvers, modbus } = value as Partial<
    Record<keyof ApproverSet, unknown>
  >
  if (v !== 1) return 'it is of another version than 1'
  if (!isName(tenant) || !isName(device)) return 'it names no tenant or no device'
  if (typeof seq !== 'number' || !Number.isSafeInteger(seq) || seq < 1)
    return 'seq is no number from 1 on'
  const party = readParty(relying_party)
  if (party === undefined) return 'relying_party is no id with one to eight origins'
  if (!Array.isArray(approvers) || approvers.length === 0 || approvers.length > MOST_APPROVERS)
    return `there are no approvers, or more than ${MOST_APPROVERS}`
  const read = approvers.map(readApprover).filter((one) => one !== undefined)
  if (read.length !== approvers.length) return 'an approver is no person, credential and key'
  const distinct = (of: (one: Approver) => string) => new Set(read.map(of)).size
  if (distinct((one) => one.credential) !== read.length) return 'a credential stands twice'
  if (distinct((one) => one.key.spki) !== read.length) return 'a key stands twice'
  const people = distinct((one) => one.person)
  if (typeof quorum !== 'number' || !Number.isSafeInteger(quorum) || quorum < 1 || quorum > people)
    return `the quorum is no number from 1 to the ${people} people there are`
  if (quorum > MOST_QUORUM)
    return `a quorum of more than ${MOST_QUORUM} people can never be met: their signatures do not fit into one OPEN`
  if (!Array.isArray(modbus) || modbus.length > 64 || !modbus.every(isName))
    return 'modbus is no list of processes'
  const processes = modbus as string[]
  return {
    v,
    tenant,
    device,
    seq,
    quorum,
    relying_party: party,
    approvers: read,
    modbus: processes,
  }
}

/** SHA-256 of the canonical set, hex: what a quorum of the set before signs. */
export function hashOfSet(set: ApproverSet): string {
  return createHash('sha256').update(canonical(set)).digest('hex')
}

/**
 * The people of `set` whose passkeys signed `challenge`, each once. What is no such signature does not count, and
 * neither what nobody pinned nor what stands there twice takes the place of one that does.
 */
function signersOf(
  set: ApproverSet,
  challenge: Uint8Array,
  assertions: readonly unknown[],
): ReadonlySet<string> {
  const { id: rpId, origins } = set.relying_party
  const expected: Expected = { challenge, rpId, origins }
  const people = new Set<string>()
  const seen = new Set<string>()
  for (const given of assertions.slice(0, MOST_READ)) {
    const assertion: Assertion | undefined = readAssertion(given)
    const approver = set.approvers.find(({ credential }) => credential === assertion?.credential)
    if (assertion === undefined || approver === undefined || people.has(approver.person)) continue
    const id = digestOf(assertion)
    if (seen.has(id) || seen.size === MOST_CHECKED) continue
    seen.add(id)
    if (checkAssertion(assertion, approver.key, expected).ok) people.add(approver.person)
  }
  return people
}

/** What a gateway asks a device to open. */
export interface Opening {
  readonly process: string
  /** The Modbus level it says it holds the session to; undefined where it says it is none. */
  readonly otLevel: number | undefined
  /** The addresses it says it holds the session to: lists of windows that must all hold. */
  readonly otWindows?: ReadonlyArray<readonly AddressWindow[]> | undefined
  /** Statement and assertions as they came: `{ statement, assertions }`. */
  readonly grant: unknown
  /** Epoch seconds, by a clock that the gateway does not set. */
  readonly now: number
}

const no = (code: ApproversFault, detail: string) => ({ ok: false, code, detail }) as const

/** Whether enough pinned people signed a grant for exactly this; gives its statement and hash. */
export function checkOpening(
  set: ApproverSet,
  { process, otLevel, otWindows, grant, now }: Opening,
): ApproversOutcome<{ readonly statement: Statement; readonly hash: string }> {
  if (typeof grant !== 'object' || grant === null || !('statement' in grant))
    return no('approvers.missing', 'the gateway showed no signed grant')
  const statement = readStatement(grant.statement)
  const assertions: unknown = 'assertions' in grant ? grant.assertions : undefined
  if (statement === undefined || !Array.isArray(assertions))
    return no('approvers.statement', 'what the gateway showed is no signed grant')
  const fault =
    targetFault(set, statement, process) ??
    levelFault(set, statement, process, otLevel) ??
    addressFault(statement, otLevel, otWindows ?? [])
  if (fault !== undefined) return fault
  if (now + SKEW_S < statement.not_before || now - SKEW_S >= statement.not_after)
    return no('approvers.time', 'the grant is not of now, by the clock of this device')
  if (statement.sealed !== undefined)
    return no('approvers.target', 'the grant is sealed, and opens nothing by itself')
  const closed = windowFault(statement, now)
  if (closed !== undefined) return closed
  const hash = hashOf(statement)
  const people = signersOf(set, Buffer.from(hash, 'hex'), assertions)
  if (people.size < set.quorum)
    return no('approvers.quorum', `${people.size} of ${set.quorum} pinned people signed this grant`)
  return { ok: true, statement, hash }
}

/** Between its windows a grant that comes back opens nothing. */
function windowFault({ recurring, ...bounds }: Statement, now: number) {
  if (recurring === undefined) return undefined
  const period = periodAt(recurring, bounds, now)
  return period !== undefined && period.from <= now + SKEW_S
    ? undefined
    : no('approvers.time', 'no window of the grant is open, by the clock of this device')
}

function targetFault(set: ApproverSet, statement: Statement, process: string) {
  const named =
    statement.tenant === set.tenant &&
    statement.devices.includes(set.device) &&
    statement.processes.includes(process)
  return named ? undefined : no('approvers.target', 'the grant is for another device or process')
}

function levelFault(
  set: ApproverSet,
  statement: Statement,
  process: string,
  otLevel: number | undefined,
) {
  if (otLevel === undefined)
    return set.modbus.includes(process)
      ? no('approvers.level', 'the process is opened as Modbus, or not at all')
      : undefined
  return otLevel <= statement.ot_level
    ? undefined
    : no('approvers.level', 'the gateway asks for more than the grant was signed for')
}

/**
 * What was signed for some addresses is opened for no others: one of the lists that must all hold lies within them. A
 * level that writes takes addresses that were signed, whatever the gateway says of them.
 */
function addressFault(
  { ot_windows: signed = [] }: Statement,
  otLevel: number | undefined,
  otWindows: ReadonlyArray<readonly AddressWindow[]>,
) {
  if (signed.length === 0 && (otLevel ?? 0) < 2) return undefined
  if (otLevel === undefined)
    return no('approvers.level', 'addresses were signed, so the process is opened as Modbus')
  const within = otWindows.some((list) => list.every((one) => signed.some(holds(one))))
  return within
    ? undefined
    : no('approvers.level', 'the gateway asks for other addresses than were signed')
}

const holds = (inner: AddressWindow) => (outer: AddressWindow) =>
  outer.unit === inner.unit && outer.from <= inner.from && inner.to <= outer.to

/** Whether a quorum of the people of `before` signed `next`, its immediate successor. */
export function checkSuccession(
  before: ApproverSet,
  next: ApproverSet,
  assertions: readonly unknown[],
): ApproversOutcome<{ readonly people: ReadonlySet<string> }> {
  if (next.tenant !== before.tenant || next.device !== before.device)
    return no('approvers.target', 'the new set is for another device')
  if (next.seq !== before.seq + 1)
    return no('approvers.sequence', `the set that follows ${before.seq} is ${before.seq + 1}`)
  const people = signersOf(before, Buffer.from(hashOfSet(next), 'hex'), assertions)
  return people.size < before.quorum
    ? no(
        'approvers.quorum',
        `${people.size} of ${before.quorum} people of the set before signed it`,
      )
    : { ok: true, people }
}
