/** Asking for a grant: is the target there, is the window one, may it be asked, who must approve. */
import {
  hashOf,
  windowsInWords,
  type AddressWindow,
  recurrenceInWords,
  type GrantRef,
  type Recurrence,
  type Seal,
  type Statement,
} from '#approval'
import type { AuditLog } from '#audit'
import { refOf, toRefusal, type Decisions } from '../decisions.ts'
import type { Device, DeviceStore, Process } from '../devices/device.ts'
import type { Registry } from '../devices/presence.ts'
import { actorOf, srcOf } from '../events.ts'
import {
  clientFacts,
  deviceFacts,
  grantFacts,
  processFacts,
  tlsFacts,
  type Source,
} from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { Refusal } from '../problem.ts'
import { addressFault, countFault, sealFault, writeFault } from './addresses.ts'
import { recordEffect, recordShortened } from './effect.ts'
import type { Grant } from './grant.ts'
import type { GrantStore } from './store.ts'
import type { TicketCheck } from './tickets.ts'
import { longestUse, recurrenceFault } from './window.ts'

export interface GrantRoom {
  readonly tenant: string
  readonly store: GrantStore
  readonly devices: DeviceStore
  readonly registry: Registry
  readonly decisions: Decisions
  readonly log: Pick<AuditLog, 'append' | 'state'>
  /** Of the octets that were set aside for open sessions of this grant, those that were not carried. */
  readonly spare: (grant: string) => number
  /** The human being behind an identity: accounts that the owner linked give the same. Unknown ones stand for themselves. */
  readonly personOf: (identity: string) => Promise<string>
  /** Undefined where nobody looks at tickets. */
  readonly ticketFault?: TicketCheck | undefined
  /** Epoch milliseconds. */
  readonly now: () => number
}

export interface GrantAsk {
  readonly subject: Subject
  readonly source: Source
  readonly device: string
  readonly processes: readonly string[]
  readonly duration_s: number
  readonly not_before?: number | undefined
  readonly not_after?: number | undefined
  /** Of that window, the hours of some days alone; then it has an end that was asked for. */
  readonly recurring?: Recurrence | undefined
  readonly reason: string
  readonly ticket?: string | undefined
  readonly ot_level: 0 | 1 | 2
  /** The Modbus addresses it is for; absent: all, which level 2 may not ask for. */
  readonly ot_windows?: readonly AddressWindow[] | undefined
  /** How many sessions, and how many octets in all of them, both ways; absent: no limit of its own. */
  readonly max_uses?: number | undefined
  readonly max_bytes?: number | undefined
  /** It opens nothing until so many people break the seal. */
  readonly sealed?: Seal | undefined
  /** The grant of theirs that ends when this one is approved. */
  readonly supersedes?: string | undefined
}

/** Who asks, from where, and for what. */
export type Asking = Pick<GrantAsk, 'subject' | 'source' | 'device' | 'processes'>

const DAY_S = 86_400
/** `ot_level` 0, 1, 2, as events say it. */
const VERBS = ['none', 'read', 'write']

/**
 * Records a request; the grant waits for approvals unless policy wants none, and is then recorded
 * as activated too. Throws Refusal:
 * `target.unknown`, `grant.window`, `grant.addresses`, `grant.counts`, `grant.seal`, `ticket.invalid`, `grant.limit`, `ticket.unavailable`, `policy.denied`, `log.unavailable`.
 */
export async function requestGrant(room: GrantRoom, ask: GrantAsk): Promise<Grant> {
  const now = Math.floor(room.now() / 1000)
  return await propose(room, ask, state(room.tenant, ask, await replaced(room, ask), now))
}

/** What it supersedes: a grant of the same person, that has not ended; of others nobody is told whether there are any. */
async function replaced(room: GrantRoom, ask: GrantAsk): Promise<GrantRef | undefined> {
  if (ask.supersedes === undefined) return undefined
  const old = await room.store.find(ask.supersedes)
  if (old === undefined || old.statement.requester !== ask.subject.id)
    throw new Refusal('grant.unknown', `no grant ${ask.supersedes}`)
  const { extends: longer, unseals } = old.statement
  if (old.ended !== null || longer !== undefined || unseals !== undefined)
    throw new Refusal('grant.state', `the grant is ${old.state}; it cannot be superseded`, {
      nextStep: 'ask without --instead-of',
    })
  return { grant: ask.supersedes, sha256: old.hash }
}

/**
 * Records a request for exactly this statement, as `requestGrant` says. `unsealing`: how many must approve, whatever policy
 * wants now, for that was approved before; and whether its ticket was found valid then, so that nobody is asked again.
 */
export async function propose(
  room: GrantRoom,
  ask: Asking,
  statement: Statement,
  unsealing?: { readonly quorum: number; readonly known: boolean },
): Promise<Grant> {
  const { quorum, known = false } = unsealing ?? {}
  if (room.log.state === 'CLOSED_NEW' || room.log.state === 'DRAIN')
    throw new Refusal('log.unavailable', 'the log cannot take a new grant, so none is made', {
      nextStep: 'tell the platform owner: the disk of the gateway needs room',
    })
  const found = await targets(room, ask)
  if (found === undefined) throw await unknownTarget(room, ask, statement)
  const { device, processes } = found
  const process = processes[0]
  const presence = room.registry.find(device.id)
  const proposed: Grant = {
    statement,
    hash: hashOf(statement),
    state: 'requested',
    requester_email: ask.subject.email,
    approvals: [],
    approvals_asked: 1,
    approvals_needed: 1,
    first_used_at: null,
    uses: 0,
    bytes: 0,
    extension: null,
    ended: null,
  }
  const decision = room.decisions.ask('grant.request', {
    subject: ask.subject,
    client: clientFacts(ask.source),
    tls: tlsFacts(ask.source, presence),
    device: deviceFacts(device, presence, room.registry.isCutOff(device.id)),
    process: process === undefined ? null : processFacts(process, null),
    grants: [grantFacts(proposed)],
    request: {
      // Of windows that come back, one: that is how long anybody is inside.
      duration_s: longestUse(statement),
      processes: statement.processes,
      ot_level: grantFacts(proposed).ot_level,
      reason: statement.reason,
      ticket: statement.ticket,
    },
  })
  // Whoever may not ask learns nothing of tickets either.
  const refusal = decision.allow
    ? ((await withinReach(room, statement, processes, decision.obligations.max_duration_s)) ??
      (known ? undefined : await room.ticketFault?.(statement)))
    : toRefusal(decision)
  const needed = quorum ?? decision.obligations.approvals
  const grant: Grant = {
    ...proposed,
    approvals_asked: needed,
    approvals_needed: needed,
    state: needed === 0 ? 'approved' : 'requested',
    ...(statement.ticket !== null && room.ticketFault !== undefined ? { ticket_valid: true } : {}),
  }
  await room.log.append({
    code: 'grant.request',
    message: `grant for ${device.id} ${refusal === undefined ? 'requested' : 'may not be requested'}`,
    status: refusal === undefined ? 'success' : 'failure',
    disposition: refusal === undefined ? 'allowed' : 'blocked',
    reason: decision.allow ? refusal?.code : decision.denials[0]?.code,
    actor: actorOf(ask.subject),
    src: srcOf(ask.source),
    device: device.id,
    process: ask.processes.join(','),
    grant: statement.id,
    ticket: statement.ticket ?? undefined,
    decisions: [refOf(decision)],
    data: { ...asked(statement), grant_sha256: grant.hash, approvals_needed: needed },
  })
  if (refusal !== undefined) throw refusal
  if (grant.state === 'approved') await recordEffect(room, grant, 0)
  if (!(await room.store.add(grant))) {
    await recordShortened(room, grant)
    throw new Refusal(
      'grant.state',
      'what it extends has ended, or was extended by more, meanwhile',
    )
  }
  return grant
}

function state(
  tenant: string,
  ask: GrantAsk,
  supersedes: GrantRef | undefined,
  now: number,
): Statement {
  const not_before = ask.not_before ?? now
  // To write there is no day to choose from: the window that approvers see is the time asked for.
  if (ask.recurring !== undefined && ask.not_after === undefined)
    throw new Refusal('grant.window', 'windows that come back end on a day', {
      nextStep: 'name it: --until TIME',
    })
  const usual = ask.ot_level === 2 ? ask.duration_s : Math.max(DAY_S, ask.duration_s)
  const not_after = ask.not_after ?? not_before + usual
  if (not_after <= not_before) throw new Refusal('grant.window', 'the window ends before it begins')
  if (not_after <= now) throw new Refusal('grant.window', 'the window is in the past')
  const { ot_level, recurring } = ask
  const fault =
    addressFault(ask) ??
    countFault(ask) ??
    recurrenceFault({ ot_level, not_before, not_after, ...(recurring && { recurring }) }) ??
    sealFault({
      ot_level,
      max_duration_s: ask.duration_s,
      ...(recurring && { recurring }),
      ...(ask.sealed && { sealed: ask.sealed }),
    })
  if (fault !== undefined) throw fault
  return {
    v: 1,
    id: newId('g'),
    tenant,
    requester: ask.subject.id,
    vendor: ask.subject.vendor,
    devices: [ask.device],
    processes: ask.processes.toSorted(),
    ot_level: ask.ot_level,
    ...(ask.ot_windows === undefined
      ? {}
      : { ot_windows: ask.ot_windows.map(({ unit, from, to }) => ({ unit, from, to })) }),
    not_before,
    not_after,
    max_duration_s: ask.duration_s,
    ...(recurring === undefined ? {} : { recurring }),
    ...(ask.max_uses === undefined ? {} : { max_uses: ask.max_uses }),
    ...(ask.max_bytes === undefined ? {} : { max_bytes: ask.max_bytes }),
    reason: ask.reason,
    ticket: ask.ticket ?? null,
    created_at: now,
    ...(supersedes === undefined ? {} : { supersedes }),
    ...(ask.sealed === undefined ? {} : { sealed: { quorum: ask.sealed.quorum } }),
  }
}

/** What the gateway itself says no to, of what policy allows to be asked for. */
async function withinReach(
  room: GrantRoom,
  statement: Statement,
  processes: readonly Process[],
  longest: number,
): Promise<Refusal | undefined> {
  const other =
    statement.ot_windows === undefined ? undefined : processes.find(({ kind }) => kind !== 'modbus')
  if (other !== undefined)
    return new Refusal('grant.addresses', `${other.id} is ${other.kind}, not modbus`, {
      nextStep: 'ask without addresses, or for Modbus processes alone',
    })
  if (statement.ot_level < 2) return undefined
  const [device = ''] = statement.devices
  const now = Math.floor(room.now() / 1000)
  const held = await room.store.applicable(statement.requester, device, now)
  // What it extends, or ends, is not held beside it.
  const before = statement.extends ?? statement.supersedes
  const others = held.filter((grant) => grant.statement.id !== before?.grant)
  return writeFault(statement, others, longest, now)
}

/** The statement as events carry it. */
function asked(statement: Statement) {
  return {
    devices: statement.devices,
    processes: statement.processes,
    not_before: statement.not_before,
    not_after: statement.not_after,
    max_seconds: statement.max_duration_s,
    ...(statement.recurring === undefined
      ? {}
      : { recurring: recurrenceInWords(statement.recurring) }),
    max_uses: statement.max_uses,
    max_bytes: statement.max_bytes,
    extends: statement.extends?.grant,
    supersedes: statement.supersedes?.grant,
    sealed: statement.sealed?.quorum,
    unseals: statement.unseals?.grant,
    verbs: [VERBS[statement.ot_level] ?? 'read'],
    ...(statement.ot_windows === undefined
      ? {}
      : { addresses: windowsInWords(statement.ot_windows) }),
    reason_given: statement.reason,
    ticket: statement.ticket ?? undefined,
  }
}

async function targets(
  room: GrantRoom,
  ask: Asking,
): Promise<{ device: Device; processes: readonly Process[] } | undefined> {
  const device = await room.devices.find(ask.device)
  const found = await Promise.all(
    ask.processes.map((process) => room.devices.findProcess(ask.device, process)),
  )
  const processes = found.filter((process) => process !== undefined)
  if (device === undefined || processes.length !== ask.processes.length) return undefined
  return { device, processes }
}

/** One answer for an unknown device and an unknown process, and a record: whoever tries names is seen. */
async function unknownTarget(room: GrantRoom, ask: Asking, statement: Statement): Promise<Refusal> {
  const refusal = new Refusal(
    'target.unknown',
    'there is no such device with all of these processes',
    { nextStep: 'check the names with whoever asked you to service the machine' },
  )
  await room.log.append({
    code: 'grant.request',
    message: `grant for ${ask.device} asked, where there is nothing of these names`,
    status: 'failure',
    disposition: 'blocked',
    reason: refusal.code,
    actor: actorOf(ask.subject),
    src: srcOf(ask.source),
    device: ask.device,
    process: ask.processes.join(','),
    grant: statement.id,
    data: asked(statement),
  })
  return refusal
}
