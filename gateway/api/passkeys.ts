/** Passkeys, and the questions that are put to them. */
import { Type, type Static } from 'typebox'
import { Assertion, GrantStatement } from './signed.ts'
import { GrantId, Instant, Text } from './common.ts'

const Base64Url = (maxLength: number) =>
  Type.String({ pattern: '^[A-Za-z0-9_-]+$', minLength: 1, maxLength })

export const PasskeyId = Base64Url(1400)

export const Passkey = Type.Object({
  id: Type.String(),
  name: Type.String(),
  alg: Type.String(),
  /** DER SubjectPublicKeyInfo, base64url: what others pin. */
  spki: Type.String(),
  /** Whether it is synchronised beyond one device. */
  synced: Type.Boolean(),
  created_at: Instant,
  used_at: Type.Union([Instant, Type.Null()]),
})
export type Passkey = Static<typeof Passkey>

export const NewPasskey = Type.Object(
  { name: Type.String({ minLength: 1, maxLength: 100 }) },
  { additionalProperties: false },
)

/** A question to an authenticator: `url` puts it in a browser, `options` are for a page of one's own. */
export const Ceremony = Type.Object({
  secret: Type.String(),
  url: Type.String(),
  expires_at: Instant,
  options: Type.Unknown(),
})
export type Ceremony = Static<typeof Ceremony>

export const CeremonySecret = Type.Object(
  { secret: Base64Url(100) },
  { additionalProperties: false },
)

const Kind = Type.Enum(['register', 'step_up', 'approve', 'sign'])

/** What a person is shown before they answer: `facts` are label and text. */
export const CeremonyShown = Type.Object({
  kind: Kind,
  email: Type.String(),
  title: Type.String(),
  facts: Type.Array(Type.Tuple([Type.String(), Type.String()])),
  options: Type.Unknown(),
})
export type CeremonyShown = Static<typeof CeremonyShown>

/** `toJSON()` of the browser's credential; members that are not read may be there. */
export const CeremonyAnswer = Type.Object(
  {
    secret: Base64Url(100),
    credential: Type.Object({
      id: PasskeyId,
      response: Type.Object({
        clientDataJSON: Base64Url(6000),
        attestationObject: Type.Optional(Base64Url(40_000)),
        authenticatorData: Type.Optional(Base64Url(1400)),
        signature: Type.Optional(Base64Url(1400)),
        userHandle: Type.Optional(Type.Union([Type.String({ maxLength: 200 }), Type.Null()])),
        transports: Type.Optional(Type.Array(Type.String({ maxLength: 40 }), { maxItems: 16 })),
      }),
    }),
  },
  { additionalProperties: false },
)
export type CeremonyAnswer = Static<typeof CeremonyAnswer>

/** What came of it, in a sentence; the grant where one was approved. */
export const CeremonyDone = Type.Object({
  kind: Kind,
  message: Text,
  grant: Type.Union([
    Type.Object({ id: GrantId, state: Type.String(), approvals: Type.Integer() }),
    Type.Null(),
  ]),
  /** For `sign`: what was signed, to be handed to the owner of the device. */
  assertion: Type.Union([Assertion, Type.Null()]),
})
export type CeremonyDone = Static<typeof CeremonyDone>

/** A set of approvers that a device will ask for: `#approval` says what it must hold. */
export const ApproversToSign = Type.Object(
  { set: Type.Unsafe<object>({ type: 'object' }) },
  { additionalProperties: false },
)

const Party = Type.Object({ id: Type.String(), origins: Type.Array(Type.String()) })

/** A grant with its approvals as it is verified without the gateway. */
export const SignedGrant = Type.Object({
  v: Type.Literal(1),
  statement: GrantStatement,
  approvals: Type.Array(
    Type.Object({
      by: Type.String(),
      email: Type.Union([Type.String(), Type.Null()]),
      at: Instant,
      decision_id: Type.String(),
      signature: Type.Union([
        Type.Object({
          assertion: Assertion,
          key: Type.Object({ alg: Type.String(), spki: Type.String() }),
          relying_party: Party,
        }),
        Type.Null(),
      ]),
    }),
  ),
})
export type SignedGrant = Static<typeof SignedGrant>
