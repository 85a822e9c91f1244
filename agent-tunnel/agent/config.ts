/**
 * agent.json: whom to dial, who we are, and what is behind each process name. The targets stand here
 * and nowhere else; no address ever comes from the gateway. A mistake is named with its place.
 */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { printAddress } from '#tunnel'
import type { Address } from '#tunnel'
import { At } from './at.ts'
import { readAlternative } from './elsewhere.ts'
import { AgentError, messageOf } from './errors.ts'
import { readIfPresent, writeDurably } from './files.ts'
import { PLAIN_MS } from './patience.ts'
import { pkcs11Of, printPkcs11 } from './pkcs11.ts'
import type { Pkcs11 } from './pkcs11.ts'
import { printTarget, readTarget, targetOf } from './target.ts'
import type { Target } from './target.ts'
import { carrierOf, proxyOf } from './way.ts'
import type { Carrier, ProxySetting, Way } from './way.ts'
import type { OnConflict } from './witness.ts'

export type Gateway = Address

/** `hybrid`: X25519MLKEM768 first. `classical`: X25519 only, for middleboxes that drop a long ClientHello. */
export type KeyExchange = 'hybrid' | 'classical'

export interface AgentConfig {
  readonly gateway: Gateway
  /**
   * Dialled in this order where the one before cannot be reached; and where a gateway that goes may send us,
   * beyond its own host and the names beside it.
   */
  readonly others: readonly Gateway[]
  /** How long, at least, the device stays at another gateway before it tries its own again. */
  readonly homeAfterMs: number
  readonly device: string
  readonly tenant: string
  readonly dataDir: string
  /** SHA-256 of the root certificate that everything is trusted under: 64 lower-case hex digits. */
  readonly rootSha256: string
  readonly targets: ReadonlyMap<string, Target>
  /** Where the device's key is, if not in a file. */
  readonly pkcs11: Pkcs11 | undefined
  readonly keyExchange: KeyExchange
  readonly carrier: Carrier
  readonly proxy: ProxySetting | undefined
  /** How long the tunnel may be silent once the network has shown that it bears it. */
  readonly keepaliveMaxMs: number
  /** How long an agent that is told to stop lets its streams go on. */
  readonly drainMs: number
  /** How long a target may take to accept a connection before it counts as unobserved. */
  readonly acceptDeadlineMs: number
  /** How long the owner has to consent to a session. */
  readonly consentWaitMs: number
  /** What a gateway gets that shows another history of its log than before. */
  readonly onLogConflict: OnConflict
}

const DEFAULT_TENANT = 'main.sallyport.internal'
const DEFAULT_ACCEPT_DEADLINE_MS = 2000
const DEFAULT_CONSENT_WAIT_S = 120
const DEFAULT_HOME_AFTER_S = 600
const MAX_TARGETS = 256
const MAX_OTHERS = 32
const ID = /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/
const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const TENANT = new RegExp(`^(?=.{1,253}$)${LABEL}(?:\\.${LABEL})+$`)

/** Whether `text` can be a device or process id. */
export function isId(text: unknown): text is string {
  return typeof text === 'string' && ID.test(text) && !text.includes('--')
}

function gatewayOf(at: At): Gateway {
  const text = at.value
  if (typeof text !== 'string' || !URL.canParse(text)) {
    throw at.fail('a URL like "https://gateway.example:8443" is expected')
  }
  const url = new URL(text)
  if (url.protocol !== 'https:') throw at.fail('the gateway is reached by https, no other scheme')
  if (url.username !== '' || url.password !== '')
    throw at.fail('a URL must hold no user and no password')
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') {
    throw at.fail('only host and port are expected, nothing after them')
  }
  // A bracketed IPv6 host is a URL's way to write it; sockets want it bare.
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? 443 : Number(url.port),
  }
}

function othersOf(at: At): readonly Gateway[] {
  if (at.value === undefined) return []
  if (!Array.isArray(at.value) || at.value.length > MAX_OTHERS)
    throw at.fail(`a list of at most ${MAX_OTHERS} times "host:port" is expected`)
  return at.value.map((text: unknown, index) => {
    const read = typeof text === 'string' ? readAlternative(text) : undefined
    if (read !== undefined) return read
    throw at.inside(String(index), text).fail('"host:port" is expected, IPv6 in brackets')
  })
}

function deviceOf(at: At): string {
  if (!isId(at.value)) {
    throw at.fail(
      '1 to 40 of a-z, 0-9 and single hyphens are expected, not starting or ending with one',
    )
  }
  return at.value
}

function tenantOf(at: At): string {
  if (at.value === undefined) return DEFAULT_TENANT
  if (typeof at.value !== 'string' || !TENANT.test(at.value)) {
    throw at.fail(`a lower-case name with a dot, like "${DEFAULT_TENANT}", is expected`)
  }
  return at.value
}

function pinOf(at: At): string {
  const hex = typeof at.value === 'string' ? at.value.replaceAll(':', '').toLowerCase() : ''
  if (!/^[0-9a-f]{64}$/.test(hex)) {
    throw at.fail('the SHA-256 of the root certificate is expected: 64 hex digits, colons allowed')
  }
  return hex
}

function targetsOf(at: At): ReadonlyMap<string, Target> {
  const entries = Object.entries(at.value === undefined ? {} : at.record())
  if (entries.length > MAX_TARGETS) throw at.fail(`at most ${MAX_TARGETS} targets are expected`)
  const targets = new Map<string, Target>()
  for (const [name, value] of entries) {
    const inner = at.inside(name, value)
    if (!isId(name)) throw inner.fail('a process name is 1 to 40 of a-z, 0-9 and single hyphens')
    targets.set(name, targetOf(inner))
  }
  return targets
}

function keyExchangeOf(at: At): KeyExchange {
  if (at.value === undefined) return 'hybrid'
  if (at.value !== 'hybrid' && at.value !== 'classical')
    throw at.fail('"hybrid" or "classical" is expected')
  return at.value
}

function deadlineOf(at: At): number {
  if (at.value === undefined) return DEFAULT_ACCEPT_DEADLINE_MS
  if (!Number.isInteger(at.value) || Number(at.value) < 50 || Number(at.value) > 30_000) {
    throw at.fail('whole milliseconds from 50 to 30000 are expected')
  }
  return Number(at.value)
}

function consentWaitOf(at: At): number {
  const value = at.value ?? DEFAULT_CONSENT_WAIT_S
  if (!Number.isInteger(value) || Number(value) < 10 || Number(value) > 3600)
    throw at.fail('whole seconds from 10 to 3600 are expected')
  return Number(value) * 1000
}

function homeAfterOf(at: At): number {
  const value = at.value ?? DEFAULT_HOME_AFTER_S
  if (!Number.isInteger(value) || Number(value) < 10 || Number(value) > 86_400)
    throw at.fail('whole seconds from 10 to 86400 are expected')
  return Number(value) * 1000
}

function onConflictOf(at: At): OnConflict {
  if (at.value === undefined) return 'refuse'
  if (at.value !== 'refuse' && at.value !== 'report')
    throw at.fail('"refuse" or "report" is expected')
  return at.value
}

function drainOf(at: At): number {
  if (at.value === undefined) return 0
  if (!Number.isInteger(at.value) || Number(at.value) < 0 || Number(at.value) > 86_400)
    throw at.fail('whole seconds from 0 to 86400 are expected')
  return Number(at.value) * 1000
}

function keepaliveOf(at: At): number {
  if (at.value === undefined) return PLAIN_MS
  if (!Number.isInteger(at.value) || Number(at.value) < 25 || Number(at.value) > 300)
    throw at.fail('whole seconds from 25 to 300 are expected')
  return Number(at.value) * 1000
}

const KEYS = [
  'v',
  'gateway',
  'other_gateways',
  'home_after_s',
  'device',
  'tenant',
  'ca_sha256',
  'targets',
  'pkcs11',
  'key_exchange',
  'carrier',
  'proxy',
  'proxy_auth_file',
  'proxy_ca_file',
  'keepalive_max_s',
  'drain_s',
  'accept_deadline_ms',
  'consent_wait_s',
  'log_conflict',
] as const

function configOf(root: At, dataDir: string): AgentConfig {
  const value = root.record()
  for (const key of Object.keys(value)) {
    if (!KEYS.some((known) => known === key)) {
      throw root.inside(key, value[key]).fail(`unknown; the keys are ${KEYS.join(', ')}`)
    }
  }
  const at = (key: (typeof KEYS)[number]) => root.inside(key, value[key])
  if (value['v'] !== 1) throw at('v').fail('1 is expected, the version of this file')
  return {
    gateway: gatewayOf(at('gateway')),
    others: othersOf(at('other_gateways')),
    homeAfterMs: homeAfterOf(at('home_after_s')),
    device: deviceOf(at('device')),
    tenant: tenantOf(at('tenant')),
    dataDir,
    rootSha256: pinOf(at('ca_sha256')),
    targets: targetsOf(at('targets')),
    pkcs11: pkcs11Of(at('pkcs11')),
    keyExchange: keyExchangeOf(at('key_exchange')),
    carrier: carrierOf(at('carrier')),
    proxy: proxyOf(at('proxy'), at('proxy_auth_file'), at('proxy_ca_file')),
    keepaliveMaxMs: keepaliveOf(at('keepalive_max_s')),
    drainMs: drainOf(at('drain_s')),
    acceptDeadlineMs: deadlineOf(at('accept_deadline_ms')),
    consentWaitMs: consentWaitOf(at('consent_wait_s')),
    onLogConflict: onConflictOf(at('log_conflict')),
  }
}

/**
 * Reads the text of an agent.json. `source` names it in messages.
 * Throws AgentError `config.invalid` with the place of the mistake.
 */
export function parseConfig(text: string, dataDir: string, source = 'agent.json'): AgentConfig {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    // V8 says the position or quotes the place.
    throw new At(source, '', text).fail(`not JSON: ${messageOf(error)}`)
  }
  return configOf(new At(source, '', value), dataDir)
}

/** What a caller gives before there is a file: the command line, a provisioning program. */
export interface Setup {
  readonly gateway: string
  /** Each `host:port`, dialled in this order where the one before cannot be reached. */
  readonly others?: readonly string[] | undefined
  readonly device: string
  readonly tenant?: string | undefined
  readonly rootSha256: string
  /** Each `name=KIND:ADDRESS:PORT`; KIND as in agent.json. */
  readonly targets?: readonly string[]
  /** Names of targets that want consent on the device. */
  readonly consent?: readonly string[]
  /** `pkcs11` of the file. */
  readonly pkcs11?: Readonly<Record<string, string | undefined>> | undefined
  readonly keyExchange?: string | undefined
  readonly way?: Way | undefined
}

/** A checked config out of a setup. Throws AgentError `config.invalid` naming the option. */
export function configFrom(setup: Setup, dataDir: string): AgentConfig {
  const targets: Record<string, unknown> = {}
  for (const text of setup.targets ?? []) {
    const read = readTarget(text)
    if (read === undefined) {
      throw new At('--target', text, text).fail(
        'NAME=KIND:ADDRESS:PORT is expected, KIND one of tcp, udp, lan and lan_udp',
      )
    }
    const { name, value } = read
    if (Object.hasOwn(targets, name)) throw new At('--target', name, text).fail('named twice')
    targets[name] = { ...value, consent: setup.consent?.includes(name) === true }
  }
  for (const name of setup.consent ?? [])
    if (!Object.hasOwn(targets, name))
      throw new At('--consent', name, name).fail('no --target is called so')
  const value = {
    v: 1,
    gateway: setup.gateway,
    other_gateways: setup.others,
    device: setup.device,
    tenant: setup.tenant,
    ca_sha256: setup.rootSha256,
    targets,
    pkcs11: setup.pkcs11,
    key_exchange: setup.keyExchange,
    carrier: setup.way?.carrier,
    proxy: setup.way?.proxy,
    proxy_auth_file: setup.way?.proxyAuthFile,
    proxy_ca_file: setup.way?.proxyCaFile,
  }
  return configOf(new At('options', '', value), dataDir)
}

/** The text of the file for a config. */
export function printConfig(config: AgentConfig): string {
  const { host, port } = config.gateway
  const targets = [...config.targets].map(([name, target]) => [name, printTarget(target)])
  const value = {
    v: 1,
    gateway: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
    other_gateways: config.others.length === 0 ? undefined : config.others.map(printAddress),
    home_after_s: config.homeAfterMs / 1000,
    device: config.device,
    tenant: config.tenant,
    ca_sha256: config.rootSha256,
    targets: Object.fromEntries(targets) as Record<string, unknown>,
    pkcs11: printPkcs11(config.pkcs11),
    key_exchange: config.keyExchange,
    carrier: config.carrier,
    proxy: config.proxy?.url,
    proxy_auth_file: config.proxy?.authFile,
    proxy_ca_file: config.proxy?.caFile,
    drain_s: config.drainMs / 1000,
    keepalive_max_s: config.keepaliveMaxMs / 1000,
    accept_deadline_ms: config.acceptDeadlineMs,
    consent_wait_s: config.consentWaitMs / 1000,
    log_conflict: config.onLogConflict,
  }
  return `${JSON.stringify(value, undefined, 2)}\n`
}

const FILE = 'agent.json'

/** The config in a data directory. Throws AgentError `config.missing`, `config.invalid`. */
export function readConfig(dataDir: string): AgentConfig {
  const path = join(dataDir, FILE)
  const text = readIfPresent(path)
  if (text === undefined) {
    throw new AgentError(
      'config.missing',
      `There is no ${path}: this device has not been enrolled.`,
      'Run `sallyport agent enroll` with the line the gateway printed when the device was created.',
    )
  }
  return parseConfig(text, dataDir, path)
}

/** Writes the config into its data directory, durably. Throws AgentError `data.unwritable`. */
export function writeConfig(config: AgentConfig): void {
  writeDurably(join(config.dataDir, FILE), printConfig(config))
}

/**
 * The one-time enrolment token: the trimmed content of `file`, else `variable`, the value of SALLYPORT_TOKEN.
 * Never an argument: arguments are readable by every user of the machine.
 * Throws AgentError `token.missing`.
 */
export function readToken(file: string | undefined, variable: string | undefined): string {
  let token: string
  try {
    token = (file === undefined ? (variable ?? '') : readFileSync(file, 'utf8')).trim()
  } catch (error) {
    throw tokenMissing(`The token file could not be read: ${messageOf(error)}.`, error)
  }
  if (token === '') throw tokenMissing('There is no enrolment token.')
  if (token.length > 512 || /[^\x21-\x7e]/.test(token)) {
    throw tokenMissing('The enrolment token is not one line of at most 512 printable characters.')
  }
  return token
}

/** Why the token in `file` is not its owner's alone, in words for them; undefined where it is. */
export function tokenExposure(file: string): string | undefined {
  const mode = statSync(file, { throwIfNoEntry: false })?.mode ?? 0
  if ((mode & 0o077) === 0) return undefined
  const shown = (mode & 0o777).toString(8).padStart(4, '0')
  return `others on this machine may use the token file ${file} (its mode is ${shown}): chmod 600 ${file}, or take it away once the device is enrolled`
}

function tokenMissing(message: string, cause?: unknown): AgentError {
  const next = 'Put the token into a file and name it with --token-file, or set SALLYPORT_TOKEN.'
  return new AgentError('token.missing', message, next, { cause })
}
