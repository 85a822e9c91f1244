/** An authenticator app: the second factor of who has a password. */
import { Type, type Static } from 'typebox'
import { Instant } from './common.ts'

export const Totp = Type.Object({
  name: Type.String(),
  created_at: Instant,
  used_at: Type.Union([Instant, Type.Null()]),
})
export type Totp = Static<typeof Totp>

/** One an account. */
export const Totps = Type.Object({ items: Type.Array(Totp, { maxItems: 1 }) })
export type Totps = Static<typeof Totps>

export const NewTotp = Type.Object(
  { name: Type.String({ minLength: 1, maxLength: 100 }) },
  { additionalProperties: false },
)

/** An enrolment: `url` puts it in a browser, where the app reads its secret and its first code is typed. */
export const Enrolling = Type.Object({ url: Type.String(), expires_at: Instant })
export type Enrolling = Static<typeof Enrolling>
