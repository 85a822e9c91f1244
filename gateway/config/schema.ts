/** What may be written in a configuration, and what holds where nothing is. Closed: a key that is not here is a mistake. */
import { resolve } from 'node:path'
import { Type, type Static } from 'typebox'
import { Value } from 'typebox/value'
import { EstSettings } from '../est-settings.ts'
import { TicketSettings } from '../grants/tickets.ts'
import { NoticeSettings } from '../notices/notices.ts'
import { HttpsSink } from '../sinks.ts'
import { StoreSettings } from '../store-settings.ts'

const HostPort = Type.String({ pattern: '^(\\[[0-9a-fA-F:.]+\\]|[^:\\s\\[\\]]+):\\d{1,5}$' })
const HostName = Type.String({ pattern: '^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$' })

const Syslog = Type.Object(
  {
    name: Type.String({ pattern: '^[a-z0-9-]{1,32}$' }),
    host: Type.String({ minLength: 1 }),
    port: Type.Integer({ minimum: 1, maximum: 65_535 }),
    servername: Type.Optional(HostName),
    /** PEM of the authority that signed the receiver's certificate. */
    ca_file: Type.String({ minLength: 1 }),
    cert_file: Type.Optional(Type.String({ minLength: 1 })),
    key_file: Type.Optional(Type.String({ minLength: 1 })),
    /** IANA private enterprise number of the plant; 32473 is the documentation one. */
    enterprise_number: Type.Optional(Type.Integer({ minimum: 1 })),
    /** What a message carries: the event itself, which proves its content, or CEF. Default ocsf. */
    format: Type.Optional(Type.Union([Type.Literal('ocsf'), Type.Literal('cef')])),
  },
  { additionalProperties: false },
)

/** Where CA keys are, and what opens them. Secrets are names of files. */
const CaKeys = Type.Object(
  {
    /** One line, mode 0600; absent: the systemd credential `ca-passphrase`, else one made under `keys/`. */
    passphrase_file: Type.Optional(Type.String({ minLength: 1 })),
    /** New issuing keys are made in this token. */
    pkcs11: Type.Optional(
      Type.Object(
        {
          module: Type.String({ minLength: 1 }),
          token: Type.String({ minLength: 1, maxLength: 32 }),
          pin_file: Type.String({ minLength: 1 }),
          /** Where `npm install --prefix` put pkcs11js. */
          binding: Type.Optional(Type.String({ minLength: 1 })),
        },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false },
)

/** Whose policy this node takes beside the one it came with. */
const PolicySettings = Type.Object(
  {
    /** PEM files of public keys (P-256, P-384) that sign bundles. */
    trust: Type.Array(Type.String({ minLength: 1 }), { maxItems: 16 }),
    /** What a bundle past its max_age_s still allows. */
    staleness: Type.Optional(
      Type.Union([Type.Literal('warn'), Type.Literal('deny_new'), Type.Literal('deny_all')]),
    ),
    /** Seconds that gateways on one store may decide by different policies until that is an event. */
    differ_s: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
    /** An OPA bundle server to take bundles from by itself, or a file that somebody drops. */
    source: Type.Optional(
      Type.Union([
        Type.Object(
          {
            url: Type.String({ pattern: '^https?://[^/?#@]+(?:[/?#]|$)' }),
            ca_file: Type.Optional(Type.String({ minLength: 1 })),
            token_file: Type.Optional(Type.String({ minLength: 1 })),
            poll_s: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
          },
          { additionalProperties: false },
        ),
        Type.Object(
          {
            file: Type.String({ minLength: 1 }),
            poll_s: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
          },
          { additionalProperties: false },
        ),
      ]),
    ),
  },
  { additionalProperties: false },
)

/** What sessions leave behind that must be recorded. */
const RecordingSettings = Type.Object(
  {
    /** What one session's recording may take on disk, in bytes; default 256 MiB. */
    session_bytes: Type.Optional(Type.Integer({ minimum: 4_194_304, maximum: 68_719_476_736 })),
    /** Free bytes that no recording may touch; default 64 MiB. */
    floor_bytes: Type.Optional(Type.Integer({ minimum: 0, maximum: 1_099_511_627_776 })),
    /** Keeps what people type in a terminal too, passwords among it; default false. */
    terminal_input: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
)

const CallRate = Type.Number({ minimum: 0, maximum: 100_000 })

/** All that may be said; nothing else is. */
export const File = Type.Object(
  {
    tenant: HostName,
    gateway: Type.String({ pattern: '^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$' }),
    data: Type.String({ minLength: 1 }),
    listen: HostPort,
    operations: HostPort,
    public_host: HostName,
    /** What people and devices dial, where a load balancer or a forwarded port changes it. */
    public_port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_535 })),
    apps_domain: HostName,
    /** More names and addresses that the gateway's certificate carries. */
    names: Type.Array(Type.String({ minLength: 1 }), { maxItems: 32 }),
    site: Type.String({ minLength: 1, maxLength: 64 }),
    timezone: Type.String({ minLength: 1 }),
    /** TLS handshakes a second that one address may begin; 0: no limit. Behind a balancer that is not named in `balancers` all come from it. */
    handshakes_per_source: Type.Integer({ minimum: 0, maximum: 100_000 }),
    /** The same for all together who have not lately proven to belong here. */
    handshakes_of_strangers: Type.Integer({ minimum: 0, maximum: 100_000 }),
    /** Connections that one address may have open; 0: no limit. */
    connections_per_source: Type.Integer({ minimum: 0, maximum: 100_000 }),
    /** Calls of the API a second, ten seconds' worth at once; 0: no limit. `strangers` is of one address, the others of one identity. */
    api_rates: Type.Object(
      { reads: CallRate, writes: CallRate, costly: CallRate, strangers: CallRate },
      { additionalProperties: false },
    ),
    /** Addresses and networks of TCP balancers, each of whose connections begins with a PROXY header, version 2. */
    balancers: Type.Array(Type.String({ minLength: 1, maxLength: 64 }), { maxItems: 32 }),
    /** Where devices may go instead while this node stops: `host:port` of others under the same root. */
    alternatives: Type.Array(HostPort, { maxItems: 8 }),
    /** How long a node that is told to stop lets its sessions go on. */
    drain_s: Type.Integer({ minimum: 0, maximum: 86_400 }),
    syslog: Type.Array(Syslog, { maxItems: 8 }),
    /** Receivers over HTTPS: Splunk, Elastic, a webhook, OTLP. */
    sinks: Type.Array(HttpsSink, { maxItems: 8 }),
    /** Who is told of requests, ends and alarms, and how. */
    notices: NoticeSettings,
    /** What tickets look like, and who knows them. */
    tickets: Type.Optional(TicketSettings),
    /** Room on the disk that the log keeps back, and below which it warns and closes, in MiB. */
    log_space: Type.Object(
      {
        closeout_mib: Type.Integer({ minimum: 1, maximum: 4096 }),
        breakglass_mib: Type.Integer({ minimum: 1, maximum: 4096 }),
        floor_mib: Type.Integer({ minimum: 1, maximum: 1_048_576 }),
        warn_mib: Type.Integer({ minimum: 1, maximum: 1_048_576 }),
      },
      { additionalProperties: false },
    ),
    /** Files with the keys of mirrors that follow the log and cosign it, one file each. */
    witnesses: Type.Array(Type.String({ minLength: 1 }), { maxItems: 8 }),
    /** Where a mirror, or another copy of the log, keeps what may be pruned here. */
    archive: Type.Optional(
      Type.Object(
        {
          directory: Type.String({ minLength: 1 }),
          /** Events older than this go by themselves, once a day; absent: only when somebody says so. */
          keep_days: Type.Optional(Type.Integer({ minimum: 1, maximum: 36_500 })),
        },
        { additionalProperties: false },
      ),
    ),
    /** What is shared with other gateways, and where. */
    store: Type.Optional(StoreSettings),
    ca: Type.Optional(CaKeys),
    /** Labels, makers and limits of the certificate service. */
    est: Type.Optional(EstSettings),
    policy: Type.Optional(PolicySettings),
    recordings: Type.Optional(RecordingSettings),
    /** The folder that `npm run build:agent` filled, for devices to fetch the agent from. */
    agent_files: Type.String({ minLength: 1 }),
    /** Words of the keys that sign updates of the agent, for the lines that onboard devices to pin. */
    update_keys: Type.Array(Type.String({ pattern: '^ed25519:[A-Za-z0-9_-]{43}$' }), {
      maxItems: 4,
      uniqueItems: true,
    }),
    log_level: Type.Union([
      Type.Literal('debug'),
      Type.Literal('info'),
      Type.Literal('warn'),
      Type.Literal('error'),
    ]),
  },
  { additionalProperties: false },
)

export type Config = Static<typeof File>

/** A complete node for one machine. */
export const DEFAULTS: Config = {
  tenant: 'main.sallyport.internal',
  gateway: 'gw1',
  data: './data',
  listen: '127.0.0.1:8443',
  operations: '127.0.0.1:9443',
  public_host: 'localhost',
  apps_domain: 'apps.localhost',
  names: [],
  site: 'main',
  timezone: 'UTC',
  handshakes_per_source: 50,
  handshakes_of_strangers: 200,
  connections_per_source: 4096,
  api_rates: { reads: 40, writes: 10, costly: 2, strangers: 20 },
  balancers: [],
  alternatives: [],
  drain_s: 0,
  syslog: [],
  sinks: [],
  notices: {},
  witnesses: [],
  log_space: { closeout_mib: 16, breakglass_mib: 64, floor_mib: 64, warn_mib: 256 },
  agent_files: resolve(import.meta.dirname, '../../dist/agent'),
  update_keys: [],
  log_level: 'info',
}

/** The first thing that is not as the schema has it; `path` is a JSON pointer. */
interface ValueProblem {
  readonly path: string
  readonly message: string
}

export function firstProblem(value: unknown): ValueProblem | undefined {
  const error = Value.Errors(File, value)[0]
  if (error === undefined) return undefined
  const path = error.instancePath === '' ? '/' : error.instancePath
  // A closed object refuses a stranger by applying the schema `false` to its value.
  if (error.keyword === 'boolean' || error.keyword === 'additionalProperties') {
    const name = path.slice(path.lastIndexOf('/') + 1)
    const known =
      path.lastIndexOf('/') === 0 ? `; known: ${Object.keys(File.properties).join(', ')}` : ''
    return { path, message: `unknown key ${name}${known}` }
  }
  return { path, message: error.message }
}

/** `127.0.0.1:8443` or `[::1]:8443` as its two parts; the pattern was checked before. */
export function splitHostPort(text: string): { readonly host: string; readonly port: number } {
  const at = text.lastIndexOf(':')
  return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) }
}
