/** Guests who are invited, and owners who lost the way into their account: what an administrator says of them, and what became of it. */
import { Type, type Static } from 'typebox'
import { Instant, Text } from './common.ts'
import { Email } from './people.ts'

export const InvitationId = Type.String({ pattern: '^i_[0-9a-z]{26}$' })

export const NewInvitation = Type.Object(
  {
    name: Text,
    /** The company. */
    vendor: Text,
    /** What the guest signs in with; made of the name where absent. No mail is sent to it. */
    email: Type.Optional(Email),
    groups: Type.Optional(Type.Array(Text, { maxItems: 64 })),
    /** How long the link stands: ten minutes to 30 days; 72 hours where absent. */
    stands_s: Type.Optional(Type.Integer({ minimum: 600, maximum: 2_592_000 })),
  },
  { additionalProperties: false },
)
export type NewInvitation = Static<typeof NewInvitation>

export const Invitation = Type.Object({
  id: InvitationId,
  email: Type.String(),
  name: Type.String(),
  vendor: Type.Union([Type.String(), Type.Null()]),
  groups: Type.Array(Type.String()),
  /** Whether it gives an account that is there a new way in. */
  renews: Type.Boolean(),
  state: Type.Enum(['open', 'used', 'revoked', 'expired']),
  /** Whose invitation it is. */
  by: Type.String(),
  created_at: Instant,
  expires_at: Instant,
  /** When it was used or withdrawn. */
  closed_at: Type.Union([Instant, Type.Null()]),
})
export type Invitation = Static<typeof Invitation>

export const RenewAccount = Type.Object(
  { stands_s: NewInvitation.properties.stands_s },
  { additionalProperties: false },
)

/** The only time that the link is told. */
export const MadeInvitation = Type.Object({ invitation: Invitation, url: Type.String() })
export type MadeInvitation = Static<typeof MadeInvitation>
