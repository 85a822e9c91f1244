/** Service accounts: programs that call the API in their own name, by a key that never leaves them. */
import { Type, type Static } from 'typebox'
import { Instant, Text } from './common.ts'
import { Role } from './people.ts'

export const ServiceId = Type.String({ pattern: '^v_[0-9a-z]{26}$' })

const Coordinate = Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' })
/** A P-256 public key (RFC 7517); with a private part it is refused. */
const PublicKey = Type.Object(
  { kty: Type.Literal('EC'), crv: Type.Literal('P-256'), x: Coordinate, y: Coordinate },
  { additionalProperties: false },
)

/** `devices:read`: the calls under `/api/v1/devices` that change nothing; `devices:write`: the others. */
const Scope = Type.String({ pattern: '^[a-z]{2,32}:(?:read|write)$' })

export const NewService = Type.Object(
  {
    name: Type.String({ pattern: '^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$' }),
    /** The company; a service without one is of the staff. */
    vendor: Type.Optional(Text),
    /** What policy lets it do; of a company's, `vendor` alone. */
    roles: Type.Array(Role, { minItems: 1, maxItems: 5 }),
    groups: Type.Optional(Type.Array(Text, { maxItems: 64 })),
    /** What of that it may use: they narrow, and add nothing. */
    scopes: Type.Array(Scope, { minItems: 1, maxItems: 32, uniqueItems: true }),
    key: PublicKey,
    /** How long it stands: an hour to 366 days; 90 days where absent. */
    stands_s: Type.Optional(Type.Integer({ minimum: 3_600, maximum: 31_622_400 })),
  },
  { additionalProperties: false },
)
export type NewService = Static<typeof NewService>

export const Service = Type.Object({
  id: ServiceId,
  name: Type.String(),
  vendor: Type.Union([Type.String(), Type.Null()]),
  roles: Type.Array(Type.String()),
  groups: Type.Array(Type.String()),
  scopes: Type.Array(Type.String()),
  /** RFC 7638 thumbprint of its key. */
  key: Type.String(),
  state: Type.Enum(['open', 'revoked', 'expired']),
  by: Type.String(),
  created_at: Instant,
  expires_at: Instant,
  revoked_at: Type.Union([Instant, Type.Null()]),
  /** When its newest token was made. */
  used_at: Type.Union([Instant, Type.Null()]),
})
export type Service = Static<typeof Service>
