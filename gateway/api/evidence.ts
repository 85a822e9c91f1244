/** Reading the log over the API. */
import { Type, type Static, type TSchema } from 'typebox'
import { Instant } from './common.ts'

const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const LogQuery = Type.Object(
  {
    from: Type.Optional(Type.Integer({ minimum: 0 })),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 200 })),
  },
  { additionalProperties: false },
)
export type LogQuery = Static<typeof LogQuery>

export const LogEntry = Type.Object({
  idx: Type.Integer(),
  uid: Type.String(),
  leaf: Type.String(),
  event: Type.Unknown(),
})
export type LogEntry = Static<typeof LogEntry>

export const LogPage = Type.Object({
  origin: Type.String(),
  /** Verifier keys (C2SP vkey) of the checkpoints. */
  keys: Type.Array(Type.String()),
  checkpoint: Type.String(),
  entries: Type.Array(LogEntry),
  next: Type.Union([Type.Integer(), Type.Null()]),
})
export type LogPage = Static<typeof LogPage>

export const PruneLog = Type.Object(
  {
    /** Events of before this instant may go; epoch seconds. */
    before: Instant,
    /** Only to say what would go. */
    dry: Type.Boolean(),
  },
  { additionalProperties: false },
)
export type PruneLog = Static<typeof PruneLog>

/** The last prune since the gateway started, or the one under way. */
export const PruneStatus = Type.Object({
  state: Type.Enum(['none', 'running', 'done', 'failed']),
  dry: Type.Boolean(),
  before: Nullable(Instant),
  began: Nullable(Instant),
  /** What is left begins with `first`, and began with `from`; equal where nothing went. */
  pruned: Nullable(
    Type.Object({
      origin: Type.String(),
      first: Type.Integer(),
      from: Type.Integer(),
      segments: Type.Integer(),
      bytes: Type.Integer(),
      heads: Type.Integer(),
      held: Type.String(),
    }),
  ),
  why: Nullable(Type.Object({ code: Type.String(), detail: Type.String() })),
})
export type PruneStatus = Static<typeof PruneStatus>

/** Nothing is to be said: the node knows which epoch is the next. */
export const RotateLog = Type.Object({}, { additionalProperties: false })
export type RotateLog = Static<typeof RotateLog>

/** The last rotation since the gateway started, or the one under way. */
export const RotationStatus = Type.Object({
  state: Type.Enum(['none', 'running', 'done', 'failed']),
  began: Nullable(Instant),
  /** The epoch that ended, with its last head as it was signed; null: none has. */
  ended: Nullable(
    Type.Object({
      origin: Type.String(),
      events: Type.Integer(),
      root: Type.String(),
      note: Type.String(),
    }),
  ),
  /** The epoch that goes on from it. */
  origin: Nullable(Type.String()),
  why: Nullable(Type.Object({ code: Type.String(), detail: Type.String() })),
})
export type RotationStatus = Static<typeof RotationStatus>

/** A head with cosignatures under it: a signed note. */
export const Cosignature = Type.Object(
  { note: Type.String({ minLength: 1, maxLength: 32_768 }) },
  { additionalProperties: false },
)

/** Whose word was new, and on how many events. */
export const CosignaturesTaken = Type.Object({
  taken: Type.Array(Type.Object({ name: Type.String(), size: Type.Integer() })),
})

/** Every witness the configuration names. */
export const WitnessList = Type.Object({
  items: Type.Array(
    Type.Object({
      name: Type.String(),
      /** Events of the newest head it cosigned; null: none yet. */
      size: Type.Union([Type.Integer(), Type.Null()]),
      /** When, by its clock, epoch seconds. */
      at: Type.Union([Type.Integer(), Type.Null()]),
      /** Durable events that it has not cosigned. */
      behind: Type.Integer(),
    }),
  ),
})

/** What a log shows of itself to somebody who holds an earlier head. */
/** One rotation of the log's keys, for who holds a head of the epoch before. Hashes and leaves in base64. */
const Handover = Type.Object({
  /** The last head of the epoch that ended, and the proof from the head of `from` events to it. */
  note: Type.String(),
  from: Type.Integer(),
  proof: Type.Array(Type.String()),
  /** Its last leaf, the next epoch's first, each with its inclusion proof. */
  closing: Type.String(),
  closing_path: Type.Array(Type.String()),
  opening: Type.String(),
  opening_path: Type.Array(Type.String()),
})

export const ShownHead = Type.Object({
  origin: Type.String(),
  /** Verifier keys (C2SP vkey). */
  keys: Type.Array(Type.String()),
  /** The newest head, a signed note. */
  note: Type.String(),
  /** The size that was asked from; `proof` leads from it to the newest head (RFC 9162 2.1.4, base64). */
  from: Type.Integer(),
  proof: Type.Array(Type.String()),
  /** From the epoch whose origin was asked with `held` to this one; absent: none can be shown. */
  handovers: Type.Optional(Type.Array(Handover)),
})
export type ShownHead = Static<typeof ShownHead>

export const HeadQuery = Type.Object(
  {
    from: Type.Optional(Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })),
    /** The origin of the log whose head of `from` events is held, where that is an earlier epoch. */
    held: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
  },
  { additionalProperties: false },
)

export const Accused = Type.Object({ recorded: Type.Boolean() })
