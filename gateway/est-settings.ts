/** What the configuration file says of EST: labels, makers, limits. */
import { Type, type Static } from 'typebox'

const Label = Type.Object(
  {
    name: Type.String({ pattern: '^[a-z0-9-]{1,40}$' }),
    profile: Type.Optional(Type.Union([Type.Literal('device'), Type.Literal('ra')])),
    /** `none` for clients that refuse line ends inside a body. */
    wrap: Type.Optional(Type.Union([Type.Literal('lines'), Type.Literal('none')])),
    /** `ignore`: names in a first request are dropped, not compared with the record. */
    names: Type.Optional(Type.Union([Type.Literal('strict'), Type.Literal('ignore')])),
    /** `copy`: a renewal may leave its SAN out. */
    san: Type.Optional(Type.Union([Type.Literal('required'), Type.Literal('copy')])),
    linking: Type.Optional(Type.Union([Type.Literal('required'), Type.Literal('optional')])),
    csrattrs: Type.Optional(
      Type.Union([Type.Literal('list'), Type.Literal('template'), Type.Literal('none')]),
    ),
  },
  { additionalProperties: false },
)

const Maker = Type.Object(
  {
    name: Type.String({ pattern: '^[a-z0-9-]{1,40}$' }),
    /** PEM of the roots under which this maker issues initial device identities. */
    roots_file: Type.String({ minLength: 1 }),
    /** One device a line: serial number, white space, device id. Read at every first enrolment. */
    serials_file: Type.String({ minLength: 1 }),
  },
  { additionalProperties: false },
)

export const EstSettings = Type.Object(
  {
    linking: Type.Optional(Type.Union([Type.Literal('required'), Type.Literal('optional')])),
    /** Of device certificates; policy may shorten it. A rotation of the CA waits as long. */
    device_lifetime_hours: Type.Optional(Type.Integer({ minimum: 24, maximum: 168 })),
    /** From one address. */
    requests_per_minute: Type.Optional(Type.Integer({ minimum: 10 })),
    labels: Type.Optional(Type.Array(Label, { maxItems: 32 })),
    manufacturers: Type.Optional(Type.Array(Maker, { maxItems: 64 })),
  },
  { additionalProperties: false },
)
export type EstSettings = Static<typeof EstSettings>

const USUAL_HOURS = 72

/** How long a device certificate lives where policy says nothing, in seconds. */
export function deviceLifetimeSeconds(settings: EstSettings | undefined): number {
  return (settings?.device_lifetime_hours ?? USUAL_HOURS) * 3_600
}
