/**
 * What a node is told: one YAML file, then the environment, checked before anything starts.
 * The only reader of the environment and of YAML in this room. Secrets come as names of files.
 */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { Type, type Static } from 'typebox'
import { readUpdateKey } from '#update'
import { ticketPattern, TicketSettings } from './grants/tickets.ts'
import { NOTICE_FILES, NoticeSettings } from './notices/notices.ts'
import { HttpsSink, SINK_FILES } from './sinks.ts'
import { Value } from 'typebox/value'
import { isMap, isScalar, LineCounter, parseDocument, type Document } from 'yaml'
import { EstSettings } from './est-settings.ts'
import { networksOf } from './networks.ts'
import { storeObjection, storeRelativeTo, StoreSettings } from './store-settings.ts'

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

const File = Type.Object(
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

const DEFAULTS: Config = {
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
  agent_files: resolve(import.meta.dirname, '../dist/agent'),
  update_keys: [],
  log_level: 'info',
}

export type ConfigCode = 'config.unreadable' | 'config.syntax' | 'config.value'

/** A mistake in what the node was told; always the operator's to mend. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly code: ConfigCode
  /** `file:line:column`, or the name of the variable. */
  readonly place: string
  constructor(code: ConfigCode, place: string, message: string, options?: ErrorOptions) {
    super(`${place}: ${message}`, options)
    this.code = code
    this.place = place
  }
}

export interface ConfigSources {
  readonly file?: string | undefined
  /** What the command line says; wins over file and environment. */
  readonly overrides?: { readonly [K in keyof Config]?: Config[K] | undefined }
  readonly environment?: Readonly<Record<string, string | undefined>>
}

/**
 * Defaults, then the file, then `SALLYPORT_<KEY>`, then the overrides. Paths in the file are
 * relative to the file. Throws ConfigError `config.unreadable`, `config.syntax`, `config.value`.
 */
export function readConfig(sources: ConfigSources = {}): Config {
  const fromFile = sources.file === undefined ? {} : readFile(sources.file)
  const merged: Record<string, unknown> = { ...DEFAULTS, ...fromFile }
  const environment = sources.environment ?? process.env
  Object.assign(merged, fromEnvironment(environment))
  merged['ca'] = withCredential(merged['ca'], environment)
  for (const [key, value] of Object.entries(sources.overrides ?? {}))
    if (value !== undefined) merged[key] = value
  const problem = firstProblem(merged)
  if (problem !== undefined) throw new ConfigError('config.value', problem.path, problem.message)
  const config = merged as Config
  checkMeaning(config)
  return Object.freeze({ ...config, data: resolve(config.data) })
}

function readFile(path: string): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    throw new ConfigError('config.unreadable', path, 'the file cannot be read', { cause })
  }
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true })
  const fault = document.errors[0]
  if (fault !== undefined) {
    const at = lines.linePos(fault.pos[0])
    throw new ConfigError(
      'config.syntax',
      `${path}:${at.line}:${at.col}`,
      fault.message.split('\n')[0] ?? 'not YAML',
    )
  }
  const value: unknown = document.toJS() ?? {}
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ConfigError(
      'config.syntax',
      `${path}:1:1`,
      'the file must be a mapping of keys to values',
    )
  const problem = firstProblem({ ...DEFAULTS, ...value })
  if (problem !== undefined)
    throw new ConfigError(
      'config.value',
      place(path, document, lines, problem.path),
      problem.message,
    )
  return relativeTo(dirname(path), value as Record<string, unknown>)
}

interface ValueProblem {
  readonly path: string
  readonly message: string
}

function firstProblem(value: unknown): ValueProblem | undefined {
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

/** Where in the file a JSON pointer stands: the deepest part of it that is there. */
function place(path: string, document: Document, lines: LineCounter, pointer: string): string {
  let node: unknown = document.contents
  let offset = 0
  for (const part of pointer.split('/').slice(1)) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === part)
      if (pair === undefined) break
      offset = (isScalar(pair.key) ? pair.key.range?.[0] : undefined) ?? offset
      node = pair.value
    } else if (
      typeof node === 'object' &&
      node !== null &&
      'items' in node &&
      Array.isArray(node.items)
    ) {
      node = node.items[Number(part)]
      if (typeof node === 'object' && node !== null && 'range' in node && Array.isArray(node.range))
        offset = (node.range as number[])[0] ?? offset
    } else break
  }
  const at = lines.linePos(offset)
  return `${path}:${at.line}:${at.col}`
}

function relativeTo(directory: string, value: Record<string, unknown>): Record<string, unknown> {
  const absolute = (path: unknown) => (typeof path === 'string' ? resolve(directory, path) : path)
  const out = { ...value }
  if ('data' in out) out['data'] = absolute(out['data'])
  if ('agent_files' in out) out['agent_files'] = absolute(out['agent_files'])
  if (Array.isArray(out['witnesses'])) out['witnesses'] = out['witnesses'].map(absolute)
  if (isRecord(out['archive']))
    out['archive'] = { ...out['archive'], directory: absolute(out['archive']['directory']) }
  if ('store' in out) out['store'] = storeRelativeTo(out['store'], absolute)
  if (isRecord(out['ca'])) out['ca'] = caRelativeTo(out['ca'], absolute)
  if (Array.isArray(out['syslog']))
    out['syslog'] = out['syslog'].map((sink: Record<string, unknown>) => {
      const copy = { ...sink }
      for (const key of ['ca_file', 'cert_file', 'key_file'])
        if (key in copy) copy[key] = absolute(copy[key])
      return copy
    })
  if (isRecord(out['policy']) && Array.isArray(out['policy']['trust']))
    out['policy'] = policyRelativeTo(out['policy'], absolute)
  if (Array.isArray(out['sinks']))
    out['sinks'] = out['sinks'].map((sink: Record<string, unknown>) => {
      const copy = { ...sink }
      for (const key of SINK_FILES) if (key in copy) copy[key] = absolute(copy[key])
      return copy
    })
  if (isRecord(out['notices'])) out['notices'] = noticesRelativeTo(out['notices'], absolute)
  if (isRecord(out['tickets']) && 'webhook' in out['tickets'])
    out['tickets'] = {
      ...out['tickets'],
      webhook: withFiles(out['tickets']['webhook'], absolute),
    }
  const est = out['est'] as { manufacturers?: unknown } | undefined
  if (Array.isArray(est?.manufacturers))
    out['est'] = {
      ...est,
      manufacturers: est.manufacturers.map((maker: Record<string, unknown>) => ({
        ...maker,
        roots_file: absolute(maker['roots_file']),
        serials_file: absolute(maker['serials_file']),
      })),
    }
  return out
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function withFiles(channel: unknown, absolute: (path: unknown) => unknown): unknown {
  if (!isRecord(channel)) return channel
  const copy = { ...channel }
  for (const key of NOTICE_FILES) if (key in copy) copy[key] = absolute(copy[key])
  return copy
}

function noticesRelativeTo(
  { webhooks, mail, ...rest }: Record<string, unknown>,
  absolute: (path: unknown) => unknown,
): Record<string, unknown> {
  const settle = (channel: unknown) => withFiles(channel, absolute)
  return {
    ...rest,
    ...(webhooks === undefined
      ? {}
      : { webhooks: Array.isArray(webhooks) ? webhooks.map(settle) : webhooks }),
    ...(mail === undefined ? {} : { mail: settle(mail) }),
  }
}

function policyRelativeTo(
  policy: Record<string, unknown>,
  absolute: (path: unknown) => unknown,
): Record<string, unknown> {
  const trust = Array.isArray(policy['trust']) ? policy['trust'].map(absolute) : []
  if (!isRecord(policy['source'])) return { ...policy, trust }
  const source = { ...policy['source'] }
  for (const key of ['ca_file', 'token_file', 'file'])
    if (key in source) source[key] = absolute(source[key])
  return { ...policy, trust, source }
}

function caRelativeTo(
  ca: Record<string, unknown>,
  absolute: (path: unknown) => unknown,
): Record<string, unknown> {
  const out = { ...ca }
  if ('passphrase_file' in out) out['passphrase_file'] = absolute(out['passphrase_file'])
  if (!isRecord(out['pkcs11'])) return out
  const pkcs11 = { ...out['pkcs11'] }
  for (const key of ['module', 'pin_file', 'binding'])
    if (key in pkcs11) pkcs11[key] = absolute(pkcs11[key])
  return { ...out, pkcs11 }
}

const TEXT_KEYS = [
  'tenant',
  'gateway',
  'data',
  'listen',
  'operations',
  'public_host',
  'apps_domain',
  'site',
  'timezone',
  'agent_files',
  'log_level',
] as const satisfies readonly (keyof Config)[]

function fromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
): Partial<Config> {
  const out: Record<string, unknown> = {}
  for (const key of TEXT_KEYS) {
    const value = environment[`SALLYPORT_${key.toUpperCase()}`]
    if (value !== undefined && value !== '') out[key] = value
  }
  const port = environment['SALLYPORT_PUBLIC_PORT']
  if (port !== undefined && port !== '') out['public_port'] = Number(port)
  return out
}

/** The passphrase file, where neither file nor variable names one: systemd's (LoadCredential=ca-passphrase:…). */
function withCredential(
  ca: unknown,
  environment: Readonly<Record<string, string | undefined>>,
): unknown {
  const given = isRecord(ca) ? ca : {}
  const credentials = environment['CREDENTIALS_DIRECTORY']
  const named = environment['SALLYPORT_CA_PASSPHRASE_FILE']
  if (named !== undefined && named !== '') return { ...given, passphrase_file: named }
  if (credentials === undefined || 'passphrase_file' in given) return given
  const path = resolve(credentials, 'ca-passphrase')
  return existsSync(path) ? { ...given, passphrase_file: path } : given
}

/** What a schema cannot say. */
function checkMeaning(config: Config): void {
  try {
    new Intl.DateTimeFormat('en', { timeZone: config.timezone })
  } catch (cause) {
    throw new ConfigError('config.value', 'timezone', `no time zone is called ${config.timezone}`, {
      cause,
    })
  }
  if (!isLoopback(splitHostPort(config.operations).host))
    throw new ConfigError(
      'config.value',
      'operations',
      'health and metrics are served on loopback only',
    )
  try {
    networksOf(config.balancers)
  } catch (cause) {
    const message = `an address or a network (192.0.2.0/24) is expected, not ${String(cause instanceof Error ? cause.message : cause)}`
    throw new ConfigError('config.value', 'balancers', message, { cause })
  }
  try {
    if (config.tickets !== undefined) ticketPattern(config.tickets.pattern)
  } catch (cause) {
    throw new ConfigError('config.value', 'tickets', 'the pattern is no regular expression', {
      cause,
    })
  }
  const unread = config.update_keys.find((word) => readUpdateKey(word) === undefined)
  if (unread !== undefined)
    throw new ConfigError('config.value', 'update_keys', `${unread} is no key`)
  if (config.store !== undefined) {
    const { redis } = config.store
    const against = storeObjection(redis, isLoopback(redis.host))
    if (against !== undefined) throw new ConfigError('config.value', 'store', against)
  }
  const { mail, webhooks = [] } = config.notices
  if (mail?.tls === 'none' && !isLoopback(mail.host))
    throw new ConfigError('config.value', 'notices', 'mail leaves this machine over TLS alone')
  if ((mail?.user === undefined) !== (mail?.password_file === undefined))
    throw new ConfigError('config.value', 'notices', 'user and password_file come together')
  if (new Set(webhooks.map(({ name }) => name)).size !== webhooks.length)
    throw new ConfigError('config.value', 'notices', 'two webhooks share one name')
  const names = [...config.syslog, ...config.sinks].map((sink) => sink.name)
  if (new Set(names).size !== names.length)
    throw new ConfigError('config.value', 'syslog', 'two sinks share one name')
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.')
}

/** `127.0.0.1:8443` or `[::1]:8443` as its two parts; the pattern was checked before. */
export function splitHostPort(text: string): { readonly host: string; readonly port: number } {
  const at = text.lastIndexOf(':')
  return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) }
}
