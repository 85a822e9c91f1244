/** What sessions left behind, sealed, and those who can open it. */
import { Type, type Static } from 'typebox'
import { GrantId, Instant, Name, SessionId } from './common.ts'

const Hash = Type.String({ pattern: '^[0-9a-f]{64}$' })
/** Epoch milliseconds. */
const Millis = Type.Integer({ minimum: 0 })

export const RecordingPart = Type.Object({
  track: Type.Integer({ minimum: 1 }),
  part: Type.Integer({ minimum: 1 }),
  /** Of the sealed file. */
  sha256: Hash,
  bytes: Type.Integer({ minimum: 0 }),
  t0: Millis,
  t1: Millis,
  /** It was being written when the gateway died: its end is missing. */
  torn: Type.Boolean(),
  /** The event of the log that has its hash. */
  idx: Type.Integer({ minimum: 0 }),
})
export type RecordingPart = Static<typeof RecordingPart>

export const Recording = Type.Object({
  session: SessionId,
  format: Type.Enum(['asciicast', 'pcapng', 'weblog', 'flow']),
  device: Name,
  process: Name,
  grant: GrantId,
  began: Millis,
  /** `age1…` of everybody who can open it. */
  recipients: Type.Array(Type.String()),
  parts: Type.Array(RecordingPart),
  bytes: Type.Integer({ minimum: 0 }),
  /** Null while it goes on. */
  end: Type.Union([
    Type.Object({
      parts: Type.Integer({ minimum: 0 }),
      root: Hash,
      idx: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
      reason: Type.String(),
    }),
    Type.Null(),
  ]),
})
export type Recording = Static<typeof Recording>

/** What somebody looked at, as their own program tells it. */
export const RecordingView = Type.Object(
  {
    how: Type.Enum(['replay', 'export', 'browser']),
    ranges: Type.Array(
      Type.Object(
        {
          track: Type.Integer({ minimum: 1 }),
          /** Milliseconds since the beginning. */
          from_ms: Type.Integer({ minimum: 0 }),
          to_ms: Type.Integer({ minimum: 0 }),
        },
        { additionalProperties: false },
      ),
      { minItems: 1, maxItems: 64 },
    ),
  },
  { additionalProperties: false },
)
export type RecordingView = Static<typeof RecordingView>

export const Auditor = Type.Object({
  name: Name,
  recipient: Type.String(),
  /** Recordings are sealed to those who have shown that their key opens something. */
  state: Type.Enum(['unconfirmed', 'active']),
  added_at: Instant,
  by: Type.String(),
})
export type Auditor = Static<typeof Auditor>

export const NewAuditor = Type.Object(
  { name: Name, recipient: Type.String({ minLength: 62, maxLength: 62 }) },
  { additionalProperties: false },
)
export type NewAuditor = Static<typeof NewAuditor>

/** An age file, in base64, that only the holder of the key can open: what it holds confirms the key. */
export const AddedAuditor = Type.Object({ auditor: Auditor, test: Type.String() })
export type AddedAuditor = Static<typeof AddedAuditor>

export const ConfirmAuditor = Type.Object(
  { secret: Type.String({ minLength: 1, maxLength: 100 }) },
  { additionalProperties: false },
)
export type ConfirmAuditor = Static<typeof ConfirmAuditor>
