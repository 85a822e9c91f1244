/** Who may sign in, and who is asking. */
import { Type, type Static } from 'typebox'
import { Instant, Text } from './common.ts'

export const Role = Type.Union([
  Type.Literal('admin'),
  Type.Literal('engineer'),
  Type.Literal('operator'),
  Type.Literal('auditor'),
  Type.Literal('vendor'),
])
export type Role = Static<typeof Role>

export const Email = Type.String({ pattern: '^[^\\s@]{1,64}@[^\\s@]{1,255}$', maxLength: 320 })
const Password = Type.String({ minLength: 12, maxLength: 256 })

export const Bootstrap = Type.Object(
  { token: Type.String({ maxLength: 200 }), email: Email, name: Text, password: Password },
  { additionalProperties: false },
)
export type Bootstrap = Static<typeof Bootstrap>

export const NewAccount = Type.Object(
  {
    email: Email,
    name: Text,
    party: Type.Union([Type.Literal('staff'), Type.Literal('vendor')]),
    /** The company of a vendor account. */
    vendor: Type.Optional(Text),
    roles: Type.Array(Role, { maxItems: 5 }),
    groups: Type.Optional(Type.Array(Text, { maxItems: 64 })),
    password: Password,
  },
  { additionalProperties: false },
)
export type NewAccount = Static<typeof NewAccount>

export const AccountId = Type.String({ pattern: '^[0-9a-z]{26}$' })

/** Which account is the same human being as this one; null: none is. */
export const LinkAccount = Type.Object(
  { to: Type.Union([AccountId, Type.Null()]) },
  { additionalProperties: false },
)

export const Account = Type.Object({
  sub: Type.String(),
  email: Type.String(),
  name: Type.String(),
  party: Type.Union([Type.Literal('staff'), Type.Literal('vendor')]),
  vendor: Type.Union([Type.String(), Type.Null()]),
  roles: Type.Array(Type.String()),
  groups: Type.Array(Type.String()),
  disabled: Type.Boolean(),
  /** The company's provider that signs them in; null: a password of this gateway. */
  idp: Type.Union([Type.String(), Type.Null()]),
  /** Accounts of one human being share it. */
  person: Type.String(),
})
export type Account = Static<typeof Account>

export const Me = Type.Object({
  id: Type.String(),
  email: Type.Union([Type.String(), Type.Null()]),
  party: Type.String(),
  vendor: Type.Union([Type.String(), Type.Null()]),
  roles: Type.Array(Type.String()),
  groups: Type.Array(Type.String()),
  methods: Type.Array(Type.String()),
  /** When they last proved who they are. */
  authenticated_at: Instant,
})
export type Me = Static<typeof Me>

/** What a client must know before anybody has signed in; open to all. */
export const Info = Type.Object({
  product: Type.Literal('sallyport'),
  version: Type.String(),
  tenant: Type.String(),
  gateway: Type.String(),
  issuer: Type.String(),
  client_id: Type.String(),
  resource: Type.String(),
  apps_domain: Type.String(),
  ca_sha256: Type.String(),
})
export type Info = Static<typeof Info>
