/** Grants and sessions: asking, approving, using, ending. */
import { Type, type Static } from 'typebox'
import {
  AddressWindow,
  GrantId,
  Instant,
  Name,
  Recurrence,
  Seconds,
  SessionId,
  Text,
} from './common.ts'

export const NewGrant = Type.Object(
  {
    device: Name,
    processes: Type.Array(Name, { minItems: 1, maxItems: 16, uniqueItems: true }),
    /** How long sessions may run, counted from the first use. */
    duration_s: Seconds,
    /** From when to when the grant may be used; now until a day from now where absent, and to write, until `duration_s` from now. */
    not_before: Type.Optional(Instant),
    not_after: Type.Optional(Instant),
    /** Of that window, which then has an end, the hours of some days alone. Not to write. */
    recurring: Type.Optional(Recurrence),
    reason: Text,
    ticket: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
    /**
     * On protocols Sallyport understands: 0 nothing, 1 (where absent) reading, 2 writing too, for whoever holds another
     * grant for the process that ends later.
     */
    ot_level: Type.Optional(Type.Union([Type.Literal(0), Type.Literal(1), Type.Literal(2)])),
    /** The Modbus addresses it is for; to write, they are required. */
    ot_windows: Type.Optional(Type.Array(AddressWindow, { minItems: 1, maxItems: 16 })),
    /** How many sessions may be opened under it; any number where absent. Not to write. */
    max_uses: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
    /** How many octets all of them together may carry, both ways; no limit of its own where absent. Not to write. */
    max_bytes: Type.Optional(Type.Integer({ minimum: 1, maximum: 68_719_476_736 })),
    /** It opens nothing until so many people have broken its seal, none of them its holder. Not to write. */
    sealed: Type.Optional(
      Type.Object(
        { quorum: Type.Integer({ minimum: 2, maximum: 8 }) },
        { additionalProperties: false },
      ),
    ),
    /** The grant of the same person that ends when this one is approved. */
    supersedes: Type.Optional(GrantId),
  },
  { additionalProperties: false },
)
export type NewGrant = Static<typeof NewGrant>

/** More time for a grant that holds: a grant of its own, which approvers approve. */
export const NewExtension = Type.Object(
  {
    /** By how much later it ends. */
    longer_s: Seconds,
    reason: Text,
    /** The ticket of the grant where absent. */
    ticket: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
  },
  { additionalProperties: false },
)
export type NewExtension = Static<typeof NewExtension>

export const Approval = Type.Object({
  by: Type.String(),
  email: Type.Union([Type.String(), Type.Null()]),
  at: Instant,
  grant_hash: Type.String(),
  decision_id: Type.String(),
  /** Whether the approver's passkey signed that hash. */
  signed: Type.Boolean(),
})
export type Approval = Static<typeof Approval>

export const Grant = Type.Object({
  id: GrantId,
  /** SHA-256 of the canonical grant: what approvers approve. */
  hash: Type.String(),
  state: Type.Enum(['requested', 'approved', 'active', 'spent', 'revoked', 'rejected', 'expired']),
  requester: Type.String(),
  requester_email: Type.Union([Type.String(), Type.Null()]),
  vendor: Type.Union([Type.String(), Type.Null()]),
  device: Type.String(),
  processes: Type.Array(Type.String()),
  duration_s: Type.Integer(),
  not_before: Instant,
  not_after: Instant,
  first_used_at: Type.Union([Instant, Type.Null()]),
  expires_at: Instant,
  /** Of its window, the hours of some days alone; null: all of it. Absent from gateways that know of none. */
  recurring: Type.Optional(Type.Union([Recurrence, Type.Null()])),
  /** Of one that comes back, the window that is open or opens next; null where none is left, and for all others. */
  opens: Type.Optional(Type.Union([Type.Object({ from: Instant, until: Instant }), Type.Null()])),
  ot_level: Type.Integer(),
  /** The Modbus addresses it is for; empty: it names none. Absent from gateways that know of none. */
  ot_windows: Type.Optional(Type.Array(AddressWindow)),
  /** Null: as often, or as much, as anybody likes. Absent, with the two that follow, from gateways that count nothing. */
  max_uses: Type.Optional(Type.Union([Type.Integer(), Type.Null()])),
  max_bytes: Type.Optional(Type.Union([Type.Integer(), Type.Null()])),
  /** Sessions that were opened under it; octets that they carried, where those are limited. */
  uses: Type.Optional(Type.Integer()),
  /** The grant that it makes last longer, and that ended when it was approved. */
  extends: Type.Optional(Type.Union([GrantId, Type.Null()])),
  supersedes: Type.Optional(Type.Union([GrantId, Type.Null()])),
  /** How many people break its seal; the sealed grant that it opens. */
  sealed: Type.Optional(Type.Union([Type.Integer(), Type.Null()])),
  unseals: Type.Optional(Type.Union([GrantId, Type.Null()])),
  /** By which it lasts longer than its own statement says. */
  extension: Type.Optional(
    Type.Union([
      Type.Object({ grant: GrantId, duration_s: Type.Integer(), not_after: Instant }),
      Type.Null(),
    ]),
  ),
  bytes: Type.Optional(Type.Integer()),
  reason: Type.String(),
  ticket: Type.Union([Type.String(), Type.Null()]),
  approvals: Type.Array(Approval),
  approvals_needed: Type.Integer(),
  ended: Type.Union([
    Type.Object({ at: Instant, by: Type.String(), reason: Type.String() }),
    Type.Null(),
  ]),
  created_at: Instant,
})
export type Grant = Static<typeof Grant>

/** An approver states what they approve, so that nothing can be changed under their hand. */
export const Approve = Type.Object(
  { hash: Type.String({ pattern: '^[0-9a-f]{64}$' }) },
  { additionalProperties: false },
)
export type Approve = Static<typeof Approve>

export const EndReason = Type.Object({ reason: Text }, { additionalProperties: false })
export type EndReason = Static<typeof EndReason>

/** How a client uses a process: over a local port or two ends, by datagrams, as a program here, in a browser, by ssh. */
export const SessionUse = Type.Enum(['tcp', 'udp', 'spawn', 'app', 'ssh'])
export type SessionUse = Static<typeof SessionUse>

export const NewSession = Type.Object(
  {
    device: Name,
    process: Name,
    grant: Type.Optional(GrantId),
    /** What the client is ready for; a process that is used in no such way is told (`process.kind`) and nothing is opened. */
    uses: Type.Optional(Type.Array(SessionUse, { minItems: 1, maxItems: 5 })),
  },
  { additionalProperties: false },
)
export type NewSession = Static<typeof NewSession>

/** How an open session is used: the secret never leaves the client, it proves itself per connection. */
export const OpenedSession = Type.Object({
  id: SessionId,
  device: Type.String(),
  process: Type.String(),
  kind: Type.String(),
  grant: GrantId,
  secret: Type.String(),
  expires_at: Instant,
  remaining_ms: Type.Integer(),
  decision_id: Type.String(),
  /** What of it is kept for auditors (`flow`: bytes a second alone); null where policy asked for nothing. */
  recording: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  /** For web processes: opens the app in a browser, once, within a minute. */
  url: Type.Union([Type.String(), Type.Null()]),
})
export type OpenedSession = Static<typeof OpenedSession>

/** What a page opens one WebSocket of a session with, once, within a minute: docs/sockets.md. */
export const SessionSocket = Type.Object({
  url: Type.String(),
  /** For the constructor of WebSocket. The ticket is the last of them: it is in no address, so in no log of addresses. */
  protocols: Type.Array(Type.String(), { minItems: 2, maxItems: 2 }),
  expires_at: Instant,
})
export type SessionSocket = Static<typeof SessionSocket>

export const Session = Type.Object({
  id: SessionId,
  device: Type.String(),
  process: Type.String(),
  grant: GrantId,
  identity: Type.String(),
  email: Type.Union([Type.String(), Type.Null()]),
  party: Type.String(),
  /** `ending`: it carries nothing any more, and its end is not in the log yet. */
  state: Type.Enum(['open', 'ending', 'ended']),
  opened_at: Instant,
  expires_at: Instant,
  ended_at: Type.Union([Instant, Type.Null()]),
  reason: Type.Union([Type.String(), Type.Null()]),
  connections: Type.Integer(),
  bytes_in: Type.Integer(),
  bytes_out: Type.Integer(),
  time_to_cut_ms: Type.Union([Type.Number(), Type.Null()]),
})
export type Session = Static<typeof Session>

/** What a withdrawal did: which sessions it cut, and how long the slowest took to be silent. */
export const Cut = Type.Object({
  sessions: Type.Array(Type.Object({ id: Type.String(), time_to_cut_ms: Type.Number() })),
  /** Connections that were cut in sessions that go on, because they might do more than the session may now. */
  connections: Type.Optional(
    Type.Array(Type.Object({ session: Type.String(), time_to_cut_ms: Type.Number() })),
  ),
  slowest_ms: Type.Union([Type.Number(), Type.Null()]),
})
export type Cut = Static<typeof Cut>

export const EndedGrant = Type.Object({ grant: Grant, cut: Cut })
export type EndedGrant = Static<typeof EndedGrant>

/** What a session does now, as whoever watches it is shown. */
export const SessionWatch = Type.Object({
  session: Session,
  /** Why nothing of it passes; empty while it does. */
  held_by: Type.Array(Type.Enum(['operator', 'supervisor'])),
  must_be_supervised: Type.Boolean(),
  supervisors: Type.Array(
    Type.Object({
      identity: Type.String(),
      email: Type.Union([Type.String(), Type.Null()]),
      since: Instant,
    }),
  ),
  /** Each with the program on the device that was seen to accept it. */
  connections: Type.Array(
    Type.Object({
      from: Type.Union([Type.String(), Type.Null()]),
      exe: Type.Union([Type.String(), Type.Null()]),
      sha256: Type.Union([Type.String(), Type.Null()]),
      pid: Type.Union([Type.Integer(), Type.Null()]),
    }),
  ),
  /** Requests, as they were judged; null where what passes is no Modbus. */
  modbus: Type.Union([
    Type.Object({ passed: Type.Integer(), refused: Type.Integer(), writes: Type.Integer() }),
    Type.Null(),
  ]),
  last_activity_at: Instant,
})
export type SessionWatch = Static<typeof SessionWatch>
