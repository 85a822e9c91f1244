/** A whole CA in memory: two real keys, the SQLite store, a clock that is set by hand. */
import { generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto'
import {
  createAuthority,
  est,
  instant,
  newToken,
  openIssuers,
  softwareSigner,
  type Authority,
  type CaDecision,
  type CaEvent,
  type CaFacts,
  type DeviceRecord,
  type EstConnection,
  type EstOptions,
  type EstRequest,
  type EstResponse,
  type Issued,
  type Issuers,
} from '#ca'
import { createCsr, encodeEstBody, parseCertsOnly } from '#est'
import { SqliteCaStore } from '../../gateway/store/sqlite/ca.ts'
import { SqlitePendingStore } from '../../gateway/store/sqlite/enrolments.ts'
import { SqliteThread } from '../../gateway/store/sqlite/thread.ts'

export const TENANT = 'main.sallyport.internal'
/** 2026-03-01T12:00:00Z. */
export const NOON = Date.UTC(2026, 2, 1, 12)
export const HOUR = 3_600_000
export const DAY = 24 * HOUR

export const random = (length: number): Uint8Array => new Uint8Array(randomBytes(length))

export type Curve = 'P-256' | 'P-384'
export function newKey(curve: Curve = 'P-256'): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: curve }).privateKey
}

export interface House {
  readonly authority: Authority
  readonly issuers: Issuers
  readonly keys: { readonly root: KeyObject; readonly issuing: KeyObject }
}

export async function newHouse(now = NOON, tenant = TENANT): Promise<House> {
  const keys = { root: newKey('P-384'), issuing: newKey() }
  const [root, issuing] = [softwareSigner(keys.root), softwareSigner(keys.issuing)]
  const authority = await createAuthority({ tenant, root, issuing, now: instant(now), random })
  const active = { certificate: authority.issuing, signer: issuing }
  return { authority, issuers: openIssuers({ roots: [authority.root], active }), keys }
}

const allow: CaDecision = { allow: true, denials: [], decision_id: 'd_allowed', obligations: {} }

/** Everything an EST server needs, each part replaceable by a test. */
export class Bench implements AsyncDisposable {
  readonly house: House
  readonly store: SqliteCaStore
  readonly thread: SqliteThread
  readonly pending: SqlitePendingStore
  readonly devices = new Map<string, DeviceRecord>()
  readonly events: CaEvent[] = []
  readonly asked: { point: string; facts: CaFacts }[] = []
  readonly issued: Issued[] = []
  readonly failures: string[] = []
  now = NOON
  issuers: () => Issuers
  decision: CaDecision | Error = allow
  logFails = false
  /** Runs at the start of every decision; lets a test act in the middle of a request. */
  meanwhile: () => Promise<void> = async () => undefined

  private constructor(house: House, thread: SqliteThread) {
    this.house = house
    this.thread = thread
    this.store = new SqliteCaStore(thread)
    this.pending = new SqlitePendingStore(thread)
    this.issuers = () => house.issuers
    this.devices.set('press-07', { id: 'press-07', zone: 'hall-a', state: 'pending' })
  }
  static async open(path = ':memory:', house?: House): Promise<Bench> {
    return new Bench(house ?? (await newHouse()), await SqliteThread.open(path))
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.thread[Symbol.asyncDispose]()
  }

  options(extra: Partial<EstOptions> = {}): EstOptions {
    return {
      tenant: TENANT,
      store: this.store,
      issuers: () => this.issuers(),
      devices: { find: async (id) => this.devices.get(id) },
      decide: async (point, facts) => {
        this.asked.push({ point, facts })
        await this.meanwhile()
        if (this.decision instanceof Error) throw this.decision
        return this.decision
      },
      log: async (event) => {
        if (this.logFails) throw new Error('disk full')
        this.events.push(event)
      },
      now: () => instant(this.now),
      random,
      failed: (error) => this.failures.push(error.code),
      issued: async (issued) => {
        this.issued.push(issued)
      },
      ...extra,
    }
  }
  server(extra: Partial<EstOptions> = {}): (request: EstRequest) => Promise<EstResponse> {
    return est(this.options(extra))
  }
  async token(device = 'press-07', lifetimeSeconds = 3_600): Promise<string> {
    const made = { tenant: TENANT, device, lifetimeSeconds, now: instant(this.now), random }
    return (await newToken(made, this.store)).text
  }
  /** A certificate for `device` by way of token and simpleenroll. */
  async enrolled(key: KeyObject, device = 'press-07'): Promise<Uint8Array> {
    const token = await this.token(device)
    const csr = createCsr(key, { deviceId: device, tenant: TENANT })
    return leafOf(await this.server()(enrolling(csr, token)))
  }
  /** What must not change when a request is refused. */
  async state(): Promise<unknown> {
    const certificates = await this.store.listCertificates(TENANT, { limit: 1_000 })
    return {
      tokens: await this.store.listTokens(TENANT),
      certificates: certificates.map((row) => [row.serial, row.state, row.recallKey]),
      issued: this.issued.length,
    }
  }
}

export const connection: EstConnection = {
  tlsVersion: 'TLSv1.3',
  channelBinding: null,
  clientChain: [],
  remoteAddress: '192.0.2.7',
  requestId: 'req-1',
}

export function basic(password: string, user = ''): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
}

export function posting(
  operation: string,
  body: Uint8Array | string,
  extra: { headers?: Record<string, string>; connection?: Partial<EstConnection> } = {},
): EstRequest {
  return {
    method: 'POST',
    path: `/.well-known/est/${operation}`,
    headers: { 'content-type': 'application/pkcs10', ...extra.headers },
    body: typeof body === 'string' ? Buffer.from(body, 'latin1') : Buffer.from(encodeEstBody(body)),
    connection: { ...connection, ...extra.connection },
  }
}

export function enrolling(
  csr: Uint8Array,
  token: string,
  more: Partial<EstConnection> = {},
): EstRequest {
  return posting('simpleenroll', csr, {
    headers: { authorization: basic(token) },
    connection: more,
  })
}

export function renewing(
  csr: Uint8Array,
  leaf: Uint8Array,
  more: Partial<EstConnection> = {},
): EstRequest {
  return posting('simplereenroll', csr, { connection: { ...more, clientChain: [leaf] } })
}

export function leafOf(response: EstResponse): Uint8Array {
  if (response.status !== 200) throw new Error(`${response.status} ${response.body}`)
  const [leaf, more] = parseCertsOnly(response.body)
  if (leaf === undefined || more !== undefined) throw new Error('not exactly one certificate')
  return leaf
}

export function pem(der: Uint8Array, label = 'CERTIFICATE'): string {
  const lines = Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n').trimEnd()
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`
}
