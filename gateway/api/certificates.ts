/** Certificates, their revocation, and the lists that tell of it. */
import { Type, type Static } from 'typebox'
import { DeviceToken, Device } from './devices.ts'
import { Instant, Name, Page, Text } from './common.ts'

export const Serial = Type.String({ pattern: '^[0-9a-f]{32}$' })

/** RFC 5280 5.3.1, the reasons a person may give. */
export const RevocationReason = Type.Enum([
  'unspecified',
  'keyCompromise',
  'affiliationChanged',
  'superseded',
  'cessationOfOperation',
  'privilegeWithdrawn',
])
export type RevocationReason = Static<typeof RevocationReason>

/** Key id of an issuing CA: what an authority key identifier names, hex. */
export const IssuerId = Type.String({ pattern: '^[0-9a-f]{8,64}$' })

export const CertificateQuery = Type.Object(
  {
    device: Type.Optional(Name),
    state: Type.Optional(Type.Enum(['intent', 'active', 'superseded', 'revoked'])),
    ...Page.properties,
  },
  { additionalProperties: false },
)
export type CertificateQuery = Static<typeof CertificateQuery>

export const Certificate = Type.Object({
  serial: Type.String(),
  profile: Type.String(),
  /** The id it names: of a device, a gateway. */
  subject: Type.String(),
  /** Subject key identifier of the CA that signed it, hex. */
  issuer: Type.String(),
  state: Type.String(),
  not_before: Instant,
  not_after: Instant,
  issued_at: Instant,
  first_used_at: Type.Union([Instant, Type.Null()]),
  revoked_at: Type.Union([Instant, Type.Null()]),
  reason: Type.Union([Type.String(), Type.Null()]),
  /** Serial of the certificate it renewed. */
  renews: Type.Union([Type.String(), Type.Null()]),
  spki_sha256: Type.String(),
})
export type Certificate = Static<typeof Certificate>

/** `comment` goes to the log; the reason also into lists and OCSP answers. */
export const Revoke = Type.Object(
  { reason: RevocationReason, comment: Type.Optional(Text) },
  { additionalProperties: false },
)
export type Revoke = Static<typeof Revoke>

/**
 * Of everything that one issuing CA signed. A lost CA key is `cACompromise`: `keyCompromise` is about
 * the keys of the devices, would take these from them for good, and end what another CA gave them.
 */
export const RevokeIssuer = Type.Object(
  {
    reason: Type.Enum([
      'unspecified',
      'cACompromise',
      'affiliationChanged',
      'superseded',
      'cessationOfOperation',
      'privilegeWithdrawn',
    ]),
    comment: Type.Optional(Text),
  },
  { additionalProperties: false },
)
export type RevokeIssuer = Static<typeof RevokeIssuer>

/** What a revocation ended. `time_to_cut_ms`: from the call until the last socket was closed. */
export const Revocation = Type.Object({
  epoch: Type.Integer(),
  reason: Type.String(),
  serials: Type.Array(Type.String()),
  tunnels: Type.Integer(),
  sessions: Type.Array(Type.Object({ id: Type.String(), time_to_cut_ms: Type.Number() })),
  time_to_cut_ms: Type.Number(),
})
export type Revocation = Static<typeof Revocation>

export const RevokedDevice = Type.Object({ device: Device, revocation: Revocation })
export type RevokedDevice = Static<typeof RevokedDevice>

export const ReplacedDevice = Type.Object({
  device: Device,
  token: DeviceToken,
  revocation: Revocation,
})
export type ReplacedDevice = Static<typeof ReplacedDevice>

/** A certificate revocation list as it is served. */
export const RevocationList = Type.Object({
  issuer: Type.String(),
  number: Type.Integer(),
  this_update: Instant,
  next_update: Instant,
  entries: Type.Integer(),
  url: Type.String(),
  pem: Type.String(),
})
export type RevocationList = Static<typeof RevocationList>
