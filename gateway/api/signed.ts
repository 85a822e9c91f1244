/** What is signed and how, as it crosses the API: `#approval` says what it means. */
import { Type } from 'typebox'
import { AddressWindow, Instant, Recurrence } from './common.ts'

export const Assertion = Type.Object({
  credential: Type.String(),
  authenticator_data: Type.String(),
  client_data: Type.String(),
  signature: Type.String(),
})

/** The frozen statement of a grant: its canonical JSON is what is hashed and signed. */
export const GrantStatement = Type.Object({
  v: Type.Literal(1),
  id: Type.String(),
  tenant: Type.String(),
  requester: Type.String(),
  vendor: Type.Union([Type.String(), Type.Null()]),
  devices: Type.Array(Type.String()),
  processes: Type.Array(Type.String()),
  ot_level: Type.Integer(),
  /** Absent: it names no addresses. */
  ot_windows: Type.Optional(Type.Array(AddressWindow)),
  not_before: Instant,
  not_after: Instant,
  max_duration_s: Type.Integer(),
  /** Absent: all of the window. */
  recurring: Type.Optional(Recurrence),
  /** Absent, both of them: any number. */
  max_uses: Type.Optional(Type.Integer()),
  max_bytes: Type.Optional(Type.Integer()),
  reason: Type.String(),
  ticket: Type.Union([Type.String(), Type.Null()]),
  created_at: Instant,
  extends: Type.Optional(Type.Object({ grant: Type.String(), sha256: Type.String() })),
  supersedes: Type.Optional(Type.Object({ grant: Type.String(), sha256: Type.String() })),
  sealed: Type.Optional(Type.Object({ quorum: Type.Integer() })),
  unseals: Type.Optional(Type.Object({ grant: Type.String(), sha256: Type.String() })),
})
