/** Locks: who or what is shut out until a person lifts it. */
import { Type, type Static } from 'typebox'
import { Cut } from './access.ts'
import { Instant, Text } from './common.ts'

export const LockId = Type.String({ pattern: '^l_[0-9a-z]{26}$' })
const Scope = Type.Enum(['identity', 'company', 'device', 'process', 'zone', 'everything'])

export const NewLock = Type.Object(
  {
    scope: Scope,
    /** An e-mail address or `<iss>|<sub>`, a company, a device, `device/process`, a zone; absent for everything. */
    target: Type.Optional(Type.String({ minLength: 1, maxLength: 400 })),
    reason: Text,
  },
  { additionalProperties: false },
)

export const Lock = Type.Object({
  id: LockId,
  scope: Scope,
  target: Type.String(),
  reason: Type.String(),
  by: Type.String(),
  by_email: Type.Union([Type.String(), Type.Null()]),
  at: Instant,
  lifted: Type.Union([
    Type.Object({ at: Instant, by: Type.String(), reason: Type.String() }),
    Type.Null(),
  ]),
})
export type Lock = Static<typeof Lock>

/** A lock that was put on, whether its target is known here, and what it cut. */
export const Locked = Type.Object({ lock: Lock, known: Type.Boolean(), cut: Cut })
export type Locked = Static<typeof Locked>
