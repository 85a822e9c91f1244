/**
 * What the gateway knows, in the words policy reads (policy brief, section 3). Pure: every fact is
 * an argument; what is unknown stays null, and policy says what that means.
 */
import { checkAssertion, digestOf, hashOf, type GrantSignature } from '#approval'
import type { Input, Observed, Partially } from '#policy'
import { beginsAt, expiresAt, type Grant, type GrantState } from './grants/grant.ts'
import type { Device, Expectation, Process } from './devices/device.ts'
import type { Presence } from './devices/presence.ts'

type PolicyGrant = Input['grants'][number]
type PolicyProcess = NonNullable<Input['process']>

/** Where the gateway stands; the same in every question it asks. */
export interface Place {
  readonly tenant: string
  readonly gateway: string
  readonly site: string
  readonly timezone: string
}

/** Where a request came from. */
export interface Source {
  readonly ip: string | null
  readonly tls: { readonly version: string | null; readonly cipher: string | null } | null
}

const WEEKDAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']
const formats = new Map<string, Intl.DateTimeFormat>()

function wallClock(timezone: string): Intl.DateTimeFormat {
  let format = formats.get(timezone)
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-GB', {
      timeZone: timezone,
      weekday: 'short',
      hour: '2-digit',
      minute: '2-digit',
      second: '2-digit',
      hourCycle: 'h23',
    })
    formats.set(timezone, format)
  }
  return format
}

/** `nowMs` is epoch milliseconds. */
export function timeFacts(nowMs: number, timezone: string): Input['time'] {
  const parts = new Map(
    wallClock(timezone)
      .formatToParts(nowMs)
      .map(({ type, value }) => [type, value]),
  )
  return {
    epoch_s: Math.floor(nowMs / 1000),
    local: {
      tz: timezone,
      weekday: WEEKDAYS.indexOf(parts.get('weekday') ?? ''),
      minute: Number(parts.get('hour')) * 60 + Number(parts.get('minute')),
      second: Number(parts.get('second')),
    },
  }
}

/** Drops the `::ffff:` of a mapped address, and a zone id. */
export function plainAddress(address: string): string {
  const plain = address.replace(/%.*$/, '').toLowerCase()
  return plain.startsWith('::ffff:') && plain.includes('.') ? plain.slice(7) : plain
}

export function clientFacts(source: Source): Partially<Input['client']> {
  if (source.ip === null) return null
  const ip = plainAddress(source.ip)
  return { ip, family: ip.includes(':') ? 6 : 4 }
}

export function deviceFacts(
  device: Device,
  presence: Presence | undefined,
  island: boolean,
): Partially<Input['device']> {
  return {
    id: device.id,
    zone: device.zone,
    state: device.state,
    labels: device.labels,
    agent_version_int: presence?.agent.version_int ?? null,
    cert:
      presence === undefined
        ? { serial: null, not_after: null }
        : { serial: presence.peer.serial, not_after: Math.floor(presence.peer.notAfter / 1000) },
    island,
  }
}

export function tlsFacts(client: Source, presence: Presence | undefined): Partially<Input['tls']> {
  return {
    client: client.tls === null ? null : { ...client.tls, group: null, pq: null },
    device: presence === undefined ? null : presence.tls,
  }
}

/** The registration's lists become policy's: `match` names the keys that are checked. */
function expectFacts(expect: Expectation): NonNullable<PolicyProcess['expect']> {
  const keys = ['sha256', 'script_sha256', 'image', 'exe', 'unit', 'uid'] as const
  return {
    match: keys.filter((key) => expect[key] !== undefined),
    sha256: expect.sha256 ?? [],
    script_sha256: expect.script_sha256 ?? [],
    image: expect.image ?? [],
    exe: expect.exe ?? [],
    unit: expect.unit ?? [],
    uid: expect.uid ?? [],
  }
}

export function processFacts(
  process: Process,
  observed: Observed | null,
): Partially<Input['process']> {
  return {
    id: process.id,
    kind: process.kind,
    locality: process.locality,
    port: process.port,
    expect: expectFacts(process.expect),
    observed,
  }
}

/** One look at a grant serves every session that stands on it; what is read anew is another object. */
const hashes = new WeakMap<Grant['statement'], string>()

/** The approvals of this very statement: of one that was edited where it is kept, there are none. */
function standing({ statement, approvals }: Grant): Grant['approvals'] {
  if (approvals.length === 0) return approvals
  const hash = hashes.get(statement) ?? hashOf(statement)
  hashes.set(statement, hash)
  return approvals.filter((approval) => approval.hash === hash)
}

/** Those whose passkey signed it, checked each time: what is kept with an approval proves itself or counts for nothing. */
function signers(grant: Grant): string[] {
  return standing(grant).flatMap(({ by, hash, signature }) =>
    signature !== null && signs(signature, hash) ? [by] : [],
  )
}

/** Verified signatures, by all that was verified; a decision is made more often than an approval. */
const verified = new Set<string>()
const MOST_VERIFIED = 4096

function signs({ assertion, key, relying_party: party }: GrantSignature, hash: string): boolean {
  const { id, origins } = party
  const name = JSON.stringify([hash, key, party, digestOf(assertion)])
  if (verified.has(name)) return true
  const expected = { challenge: Buffer.from(hash, 'hex'), rpId: id, origins }
  if (!checkAssertion(assertion, key, expected).ok) return false
  if (verified.size >= MOST_VERIFIED) verified.clear()
  verified.add(name)
  return true
}

/** The states of a grant as policy knows them: it asks whether one opens anything, and if not, why. */
const STATES: Readonly<Record<GrantState, PolicyGrant['state']>> = {
  requested: 'requested',
  approved: 'approved',
  active: 'active',
  spent: 'spent',
  expired: 'spent',
  revoked: 'revoked',
  rejected: 'revoked',
}

/**
 * A grant as a session stands on it: itself, and beside it its extension, which holds for whoever used the grant since
 * it was first used. Policy takes what ends last of what has its approvals. Both have the id of the grant: it is one, and
 * no second one beside itself.
 */
export function standingFacts(given: Grant): PolicyGrant[] {
  const { recurring, sealed, not_before: none } = given.statement
  // Nobody asked which of its windows is open: then none is.
  const unasked = (recurring ?? sealed) !== undefined && given.period === undefined
  const grant = unasked ? { ...given, period: { from: none, until: none } } : given
  const { extension } = grant
  const own = grantFacts({ ...grant, extension: null })
  if (extension === null) return [own]
  // Its ticket may be another, that was asked about by itself, or not at all.
  const { ticket_valid: _, ...rest } = grant
  return [own, { ...grantFacts({ ...rest, ...extension, extension: null }), id: own.id }]
}

/**
 * That a session stands on a broken seal, as policy is told of the person: it relaxes approvals and windows, and nothing
 * else. Null where it does not, or fewer have signed than the seal wanted.
 */
export function glassFacts(own: Grant | undefined): Input['subject']['break_glass'] {
  if (own?.statement.unseals === undefined) return null
  if (own.state !== 'approved' && own.state !== 'active') return null
  const approvers = signers(own)
  if (approvers.length < own.approvals_asked) return null
  return { id: own.statement.id, not_after: expiresAt(own), approvers }
}

export function grantFacts(grant: Grant): PolicyGrant {
  const { statement } = grant
  return {
    id: statement.id,
    state: STATES[grant.state],
    subject: statement.requester,
    vendor: statement.vendor,
    requester: statement.requester,
    approvers: standing(grant).map(({ by }) => by),
    signers: signers(grant),
    devices: statement.devices,
    processes: statement.processes,
    ot_level: statement.ot_level === 2 ? 2 : statement.ot_level === 1 ? 1 : 0,
    ot_windows: statement.ot_windows ?? [],
    not_before: beginsAt(grant),
    not_after: Math.min(statement.not_after, grant.period?.until ?? Infinity),
    max_duration_s: statement.max_duration_s,
    first_used_at: grant.first_used_at,
    expires_at: expiresAt(grant),
    max_bytes: statement.max_bytes ?? null,
    ticket:
      statement.ticket === null
        ? null
        : { ref: statement.ticket, valid: grant.ticket_valid ?? null },
  }
}
