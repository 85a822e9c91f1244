/** Enrolments and renewals that wait for a person. */
import { Type, type Static } from 'typebox'
import { Instant, Text } from './common.ts'

export const EnrolmentId = Type.String({ pattern: '^e_[0-9a-hjkmnp-tv-z]{26}$' })

export const Enrolment = Type.Object({
  id: Type.String(),
  device: Type.String(),
  operation: Type.String(),
  label: Type.String(),
  /** By what right it asks: a token, a certificate, a maker's certificate, a registration authority. */
  principal: Type.String(),
  /** SHA-256 of the key that would be certified: compare it with what the device shows. */
  spki_sha256: Type.String(),
  /** What policy would have to be told to overlook. */
  denials: Type.Array(Type.Object({ code: Type.String(), msg: Type.String() })),
  from: Type.String(),
  decision_id: Type.String(),
  created_at: Instant,
  expires_at: Instant,
  state: Type.String(),
  decided_by: Type.Union([Type.String(), Type.Null()]),
})
export type Enrolment = Static<typeof Enrolment>

export const EnrolmentAnswer = Type.Object({ reason: Text }, { additionalProperties: false })
export type EnrolmentAnswer = Static<typeof EnrolmentAnswer>
