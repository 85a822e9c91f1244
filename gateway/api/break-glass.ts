/** Broken seals: breaking one, what was opened, and the review that follows. */
import { Type, type Static } from 'typebox'
import { GrantId, Instant, Text } from './common.ts'

/** The seal of a grant is to be broken: a grant of its own, which its quorum approves with passkeys. */
export const NewUnsealing = Type.Object(
  {
    reason: Text,
    /** The ticket of the sealed grant where absent. */
    ticket: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
  },
  { additionalProperties: false },
)
export type NewUnsealing = Static<typeof NewUnsealing>

/** What happened, in the words of somebody who was not inside. */
export const CloseReview = Type.Object({ note: Text }, { additionalProperties: false })
export type CloseReview = Static<typeof CloseReview>

/** One broken seal, and its review. */
export const BreakGlass = Type.Object({
  /** The grant that broke it, and the one that was sealed. */
  grant: GrantId,
  sealed: Type.String(),
  device: Type.String(),
  processes: Type.Array(Type.String()),
  holder: Type.String(),
  reason: Type.String(),
  opened_by: Type.Array(Type.String()),
  opened_at: Instant,
  due_at: Instant,
  closed: Type.Union([
    Type.Object({ at: Instant, by: Type.String(), note: Type.String() }),
    Type.Null(),
  ]),
})
export type BreakGlass = Static<typeof BreakGlass>
