/** Devices and the processes that are registered on them. */
import { Type, type Static } from 'typebox'
import { Instant, Name, Text } from './common.ts'

const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

export const NewDevice = Type.Object(
  {
    id: Name,
    zone: Type.Optional(Name),
    labels: Type.Optional(
      Type.Record(Type.String({ pattern: '^.{1,64}$' }), Type.String({ maxLength: 256 }), {
        additionalProperties: false,
      }),
    ),
  },
  { additionalProperties: false },
)
export type NewDevice = Static<typeof NewDevice>

/** An absolute path as the kernel shows it. No wildcard: a declaration names what it means. */
const Path = Type.String({ pattern: '^/[^*?\\u0000]*$', maxLength: 1000 })
const Unit = Type.String({
  pattern: '^[A-Za-z0-9:_.\\\\@-]+\\.(service|scope|socket|mount|swap)$',
  maxLength: 256,
})

/** What must answer on the device. A key that is absent is not checked; sha256 lists every approved build. */
export const Expectation = Type.Object(
  {
    exe: Type.Optional(Type.Array(Path, { minItems: 1, maxItems: 16 })),
    sha256: Type.Optional(Type.Array(Sha256, { minItems: 1, maxItems: 32 })),
    uid: Type.Optional(Type.Array(Type.Integer({ minimum: 0 }), { minItems: 1, maxItems: 16 })),
    unit: Type.Optional(Type.Array(Unit, { minItems: 1, maxItems: 16 })),
    script_sha256: Type.Optional(Type.Array(Sha256, { minItems: 1, maxItems: 32 })),
    image: Type.Optional(
      Type.Array(Type.String({ pattern: '^sha256:[0-9a-f]{64}$' }), { minItems: 1, maxItems: 32 }),
    ),
  },
  { additionalProperties: false },
)
export type Expectation = Static<typeof Expectation>

export const NewProcess = Type.Object(
  {
    kind: Type.Enum(['tcp', 'http', 'modbus', 'ssh']),
    locality: Type.Optional(Type.Union([Type.Literal('device'), Type.Literal('lan')])),
    port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_535 })),
    expect: Expectation,
  },
  { additionalProperties: false },
)
export type NewProcess = Static<typeof NewProcess>

/** The owner of a socket as the agent saw it; null is "could not be seen". */
export const Observed = Type.Object({
  phase: Type.String(),
  exe: Type.Union([Type.String(), Type.Null()]),
  sha256: Type.Union([Type.String(), Type.Null()]),
  uid: Type.Union([Type.Integer(), Type.Null()]),
  unit: Type.Union([Type.String(), Type.Null()]),
  script_sha256: Type.Union([Type.String(), Type.Null()]),
  image: Type.Union([Type.String(), Type.Null()]),
  pid: Type.Union([Type.Integer(), Type.Null()]),
  started_at: Type.Union([Type.Integer(), Type.Null()]),
})
export type Observed = Static<typeof Observed>

export const Process = Type.Object({
  id: Type.String(),
  device: Type.String(),
  kind: Type.String(),
  locality: Type.String(),
  port: Type.Union([Type.Integer(), Type.Null()]),
  expect: Expectation,
  listener: Type.Union([Observed, Type.Null()]),
})
export type Process = Static<typeof Process>

export const DeviceTls = Type.Object({
  version: Type.String(),
  cipher: Type.String(),
  /** The key exchange group, as the device reports it: only the dialling side can see it. */
  group: Type.Union([Type.String(), Type.Null()]),
  pq: Type.Boolean(),
})
export type DeviceTls = Static<typeof DeviceTls>

export const Device = Type.Object({
  id: Type.String(),
  zone: Type.String(),
  state: Type.String(),
  labels: Type.Record(Type.String(), Type.String()),
  created_at: Instant,
  connected: Type.Boolean(),
  connected_at: Type.Union([Instant, Type.Null()]),
  tls: Type.Union([DeviceTls, Type.Null()]),
  certificate: Type.Union([
    Type.Object({ serial: Type.String(), not_after: Instant }),
    Type.Null(),
  ]),
  agent_version: Type.Union([Type.String(), Type.Null()]),
  processes: Type.Array(Process),
})
export type Device = Static<typeof Device>

/** The token is shown once; only its hash is kept. */
export const DeviceToken = Type.Object({
  device: Type.String(),
  token: Type.String(),
  expires_at: Instant,
  ca_sha256: Type.String(),
  enrol_command: Type.String(),
})
export type DeviceToken = Static<typeof DeviceToken>

export const TokenId = Type.String({ pattern: '^t_[0-9a-z]{26}$' })

/** What became of a token; its text is nowhere. `maker`: what a maker's certificate was used for. */
export const EnrolmentToken = Type.Object({
  id: Type.String(),
  kind: Type.Enum(['token', 'maker']),
  state: Type.Enum(['unused', 'used', 'expired', 'revoked']),
  created_at: Instant,
  expires_at: Instant,
  used_at: Type.Union([Instant, Type.Null()]),
  /** Of the certificate it got. */
  serial: Type.Union([Type.String(), Type.Null()]),
  spki_sha256: Type.Union([Type.String(), Type.Null()]),
})
export type EnrolmentToken = Static<typeof EnrolmentToken>

export const TokenAct = Type.Object({ reason: Text }, { additionalProperties: false })
export type TokenAct = Static<typeof TokenAct>

export const DeviceState = Type.Object({ reason: Text }, { additionalProperties: false })
export type DeviceState = Static<typeof DeviceState>
