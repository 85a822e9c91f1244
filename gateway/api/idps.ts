/** Companies whose own OpenID providers sign people in here. */
import { Type, type Static } from 'typebox'
import { Instant, Text } from './common.ts'

export const IdpId = Type.String({ pattern: '^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$' })

const Mapping = Type.Record(
  Type.String({ pattern: '^.{1,200}$' }),
  Type.String({ minLength: 1, maxLength: 200 }),
  { additionalProperties: false, maxProperties: 256 },
)
const Domain = Type.String({ minLength: 3, maxLength: 253 })
const LoginSeconds = Type.Integer({ minimum: 60, maximum: 86_400 })

export const NewIdp = Type.Object(
  {
    id: IdpId,
    name: Text,
    issuer: Type.String({ minLength: 9, maxLength: 1_000 }),
    client_id: Type.String({ minLength: 1, maxLength: 200 }),
    /** How the gateway proves that it is the client; `key`: it signs with its own (private_key_jwt). */
    auth: Type.Union([Type.Literal('none'), Type.Literal('secret'), Type.Literal('key')]),
    secret: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
    /** PEM of the only root that its servers are trusted by; absent: the public ones. */
    ca: Type.Optional(Type.String({ maxLength: 16_384 })),
    /** The company; absent: its people are staff. */
    vendor: Type.Optional(Text),
    domains: Type.Array(Domain, { minItems: 1, maxItems: 64 }),
    trust_email: Type.Optional(Type.Boolean()),
    groups_claim: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
    groups: Type.Optional(Mapping),
    roles: Type.Optional(Mapping),
    methods: Type.Optional(Mapping),
    login_s: Type.Optional(LoginSeconds),
    listed: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
)
export type NewIdp = Static<typeof NewIdp>

export const Idp = Type.Object({
  id: Type.String(),
  name: Type.String(),
  issuer: Type.String(),
  client_id: Type.String(),
  auth: Type.String(),
  /** Whether a root of its own was given. */
  own_ca: Type.Boolean(),
  party: Type.Union([Type.Literal('staff'), Type.Literal('vendor')]),
  vendor: Type.Union([Type.String(), Type.Null()]),
  domains: Type.Array(Type.String()),
  trust_email: Type.Boolean(),
  groups_claim: Type.String(),
  groups: Type.Record(Type.String(), Type.String()),
  roles: Type.Record(Type.String(), Type.String()),
  methods: Type.Record(Type.String(), Type.String()),
  login_s: Type.Integer(),
  listed: Type.Boolean(),
  enabled: Type.Boolean(),
  created_at: Instant,
  /** What the company enters at its provider. */
  redirect_uri: Type.String(),
  backchannel_logout_uri: Type.String(),
  jwks_uri: Type.String(),
})
export type Idp = Static<typeof Idp>

export const RemovedIdp = Type.Object({
  id: Type.String(),
  /** How many people were disabled with it. */
  people: Type.Integer(),
})
export type RemovedIdp = Static<typeof RemovedIdp>
