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
    kind: Type.Enum(['tcp', 'udp', 'http', 'modbus', 'ssh', 'spawn']),
    /** Of kind `spawn` it is `spawned`, and not said. */
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
  /** Whether its owner cut it off, as it said when it left. */
  island: Type.Boolean(),
  tls: Type.Union([DeviceTls, Type.Null()]),
  certificate: Type.Union([
    Type.Object({ serial: Type.String(), not_after: Instant }),
    Type.Null(),
  ]),
  agent_version: Type.Union([Type.String(), Type.Null()]),
  /** Whether what it exposes is other than was accepted; null where nothing was accepted. */
  drift: Type.Union([Type.Boolean(), Type.Null()]),
  processes: Type.Array(Process),
})
export type Device = Static<typeof Device>

/** The token is shown once; only its hash is kept. */
export const DeviceToken = Type.Object({
  device: Type.String(),
  token: Type.String(),
  expires_at: Instant,
  ca_sha256: Type.String(),
  /** One line for the device, which fetches the agent from here; null where this gateway has none. */
  install_command: Type.Union([Type.String(), Type.Null()]),
  /** For a device that has the agent already. */
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

const Program = Type.Object({
  exe: Type.Union([Type.String(), Type.Null()]),
  sha256: Type.Union([Type.String(), Type.Null()]),
  script_sha256: Type.Union([Type.String(), Type.Null()]),
  uid: Type.Union([Type.Integer(), Type.Null()]),
  unit: Type.Union([Type.String(), Type.Null()]),
  image: Type.Union([Type.String(), Type.Null()]),
})

/** What an agent reaches under one name, who listens there, and where else they listen. */
export const Exposed = Type.Object({
  process: Type.String(),
  kind: Type.String(),
  programs: Type.Array(Program),
  listens: Type.Union([Type.Array(Type.String()), Type.Null()]),
})
export type Exposed = Static<typeof Exposed>

/** One fact that is not as accepted; `drift` false: nobody listens, which is not somebody else. */
export const Difference = Type.Object({
  process: Type.String(),
  fact: Type.String(),
  accepted: Type.Union([Type.String(), Type.Null()]),
  current: Type.Union([Type.String(), Type.Null()]),
  drift: Type.Boolean(),
})
export type Difference = Static<typeof Difference>

/** What a device exposes, what of it was accepted, and how the two differ. */
export const DeviceBaseline = Type.Object({
  device: Type.String(),
  accepted: Type.Union([
    Type.Object({
      hash: Sha256,
      at: Instant,
      by: Type.String(),
      processes: Type.Array(Exposed),
    }),
    Type.Null(),
  ]),
  /** As last told by the agent; null before it first did. */
  current: Type.Union([
    Type.Object({
      hash: Sha256,
      at: Instant,
      /** Processes that the agent may not read: a further owner could be among them. */
      unreadable: Type.Integer(),
      processes: Type.Array(Exposed),
    }),
    Type.Null(),
  ]),
  differences: Type.Array(Difference),
  drift: Type.Union([Type.Boolean(), Type.Null()]),
})
export type DeviceBaseline = Static<typeof DeviceBaseline>

/** `hash` is that of the inventory that was shown: another one is not accepted by mistake. */
export const AcceptBaseline = Type.Object(
  { hash: Sha256, reason: Type.Optional(Text) },
  { additionalProperties: false },
)
export type AcceptBaseline = Static<typeof AcceptBaseline>
