/**
 * A real node in this process, on free loopback ports with a data directory of its own, and the
 * people and devices around it. Everything goes over TLS; nothing of the node is reached into,
 * but for its files on disk, which anybody who runs one can read.
 */
import { createHash, generateKeyPairSync, X509Certificate, type KeyObject } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import type { DeviceToken, Grant, OpenedSession, Problem } from '#api'
import { readLog } from '#audit'
import { createCsr, createRenewalCsr, enrollRequest, readCertificates, reenrollRequest } from '#est'
import { runGateway, type Addresses } from '#gateway'
import { LIFETIMES } from '../../gateway/identity/setting.ts'
import type { ComparisonHealth } from '../../gateway/policy/comparison.ts'
import {
  authorizedFetch,
  deviceLogin,
  type AuthorizedFetch,
  type Credentials,
} from '../../cli/login/index.ts'
import { approveDevice, openBrowser } from './browser.ts'
import { soon } from './patience.ts'
import { freePort } from './port.ts'

export const TENANT = 'main.sallyport.internal'
export const PASSWORD = 'correct horse battery staple'
export { soon, until } from './patience.ts'
export { freePort } from './port.ts'

/** An event as it stands in the log, with the facts that tests ask about in plain names. */
export interface LoggedEvent {
  readonly idx: number
  readonly code: string
  readonly message: string
  /** The whole event as text: for "this secret is nowhere", "this executable is named". */
  readonly text: string
  readonly event: Readonly<Record<string, unknown>>
}

export interface Answer<T = unknown> {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The body, where it is JSON. */
  readonly body: T
}

export interface Person extends AsyncDisposable {
  readonly email: string
  /** What the sign-in left: for the command line, which keeps it in a file. */
  readonly credentials: Credentials
  readonly fetch: AuthorizedFetch
  /** One call under `/api/v1` with a fresh proof; what comes back is not judged. */
  call<T = Problem>(method: string, path: string, body?: unknown): Promise<Answer<T>>
  /** The same, which must succeed. */
  ask<T>(method: string, path: string, body?: unknown): Promise<T>
}

export interface DeviceIdentity {
  readonly id: string
  readonly key: KeyObject
  /** DER, leaf first. */
  readonly chain: readonly Uint8Array[]
}

export interface Account {
  readonly party: 'staff' | 'vendor'
  readonly roles: readonly string[]
  readonly vendor?: string
}

/** What /healthz says, as far as tests ask. */
interface NodeHealth {
  readonly parts: Readonly<Record<string, boolean>>
  readonly devices: number
  readonly sessions: number
  readonly policy_source: { readonly state: string; readonly error: string | null } | null
  readonly policy_gateways: ComparisonHealth | null
}

export interface TestNode extends AsyncDisposable {
  readonly origin: string
  readonly port: number
  readonly data: string
  /** PEM of the root. */
  readonly anchor: string
  /** The first administrator, signed in. */
  readonly admin: Person
  /** Everybody who signed in here. */
  people(): readonly Person[]
  person(name: string, account: Account): Promise<Person>
  /** A person there is, signed in once more. */
  signIn(email: string): Promise<Person>
  /** Creates a device with its processes and enrols it over EST. */
  device(id: string, processes?: Readonly<Record<string, unknown>>): Promise<DeviceIdentity>
  renew(device: DeviceIdentity): Promise<DeviceIdentity>
  /** Events on disk, from `from` on. */
  events(from?: number): LoggedEvent[]
  /** The same, but for what the node writes by itself, at its own moments beside whatever is done to it. */
  acts(from?: number): LoggedEvent[]
  /** How many events there are: where the next one will stand. */
  size(): number
  health(): Promise<NodeHealth>
  /** Rows of store.sqlite, read beside the node. */
  rows(sql: string, ...values: (string | number)[]): Record<string, unknown>[]
  /** Changes store.sqlite beside the node, where no call exists that would. */
  change(sql: string, ...values: (string | number)[]): void
  stop(): Promise<void>
}

export interface NodeOptions {
  /** Where to keep what it has; made and removed where absent. */
  readonly data?: string
  readonly port?: number
  /** Extra lines of the configuration. */
  readonly config?: string
  /** No administrator: for a directory that has one. */
  readonly bare?: boolean
}

/** Events of rounds: the log's own each minute, the traffic of open sessions, and grants whose time is over. */
const OWN_MOMENTS: ReadonlySet<string> = new Set(['log.heartbeat', 'session.stats', 'grant.expire'])

/** Starts a node and bootstraps its first administrator. */
export async function startNode(options: NodeOptions = {}): Promise<TestNode> {
  // A scripted person approves at once; nobody need wait two seconds to ask whether they have.
  Object.assign(LIFETIMES, { poll: 0.05 })
  const data = options.data ?? mkdtempSync(join(tmpdir(), 'sallyport-node-'))
  const port = options.port ?? (await freePort())
  const configFile = join(data, 'node.yaml')
  // Every test comes from one address, and more often than one address does.
  const rates = /^api_rates:/m.test(options.config ?? '')
    ? ''
    : 'api_rates: { reads: 0, writes: 0, costly: 0, strangers: 0 }\n'
  const open = `handshakes_per_source: 0\nhandshakes_of_strangers: 0\n${rates}`
  // A test has little to keep room for, and there are many.
  const space = 'log_space: { closeout_mib: 1, breakglass_mib: 1, floor_mib: 64, warn_mib: 128 }\n'
  writeFileSync(
    configFile,
    `log_level: error\n${open}${/^log_space:/m.test(options.config ?? '') ? '' : space}${options.config ?? ''}`,
  )
  const stopping = new AbortController()
  const ready = Promise.withResolvers<Addresses>()
  const running = runGateway(
    {
      configFile,
      dataDirectory: data,
      listen: `127.0.0.1:${port}`,
      operations: '127.0.0.1:0',
      publicHost: 'localhost',
    },
    { signal: stopping.signal, ready: ready.resolve },
  )
  running.catch(ready.reject)
  const addresses = await ready.promise
  const owned = options.data === undefined
  const node = new RunningNode(data, port, { addresses, running, stopping, owned })
  if (options.bare !== true) await node.bootstrap()
  return node
}

/** A node that another process runs on `data`, with its first administrator. */
export async function atNode(data: string, port: number): Promise<TestNode> {
  const node = new RunningNode(data, port)
  await node.bootstrap()
  return node
}

/** How a node in this process runs. */
interface Running {
  readonly addresses: Addresses
  readonly running: Promise<void>
  readonly stopping: AbortController
  /** Its directory goes with it. */
  readonly owned: boolean
}

class RunningNode implements TestNode {
  readonly origin: string
  readonly port: number
  readonly data: string
  readonly anchor: string
  readonly #here: Running | undefined
  readonly #people: Person[] = []
  #admin: Person | undefined
  #size = 0

  constructor(data: string, port: number, here?: Running) {
    this.origin = `https://localhost:${port}`
    this.port = port
    this.data = data
    this.anchor = readFileSync(join(data, 'ca-root.pem'), 'utf8')
    this.#here = here
  }

  get admin(): Person {
    if (this.#admin === undefined) throw new Error('this node has no administrator yet')
    return this.#admin
  }

  people(): readonly Person[] {
    return this.#people
  }

  async bootstrap(): Promise<void> {
    const token = readFileSync(join(this.data, 'bootstrap-token'), 'utf8').trim()
    const email = 'root@plant.example'
    const body = { token, email, name: 'Root', password: PASSWORD }
    const made = await send(this, { method: 'POST', path: '/api/v1/bootstrap', body })
    if (made.status !== 201) throw new Error(`bootstrap: ${made.status} ${made.text}`)
    this.#admin = await this.signIn(email)
  }

  async person(name: string, { party, roles, vendor }: Account): Promise<Person> {
    const email = `${name}@${vendor ?? 'plant'}.example`
    await this.admin.ask('POST', '/accounts', {
      email,
      name,
      party,
      roles,
      password: PASSWORD,
      ...(vendor === undefined ? {} : { vendor }),
    })
    return await this.signIn(email)
  }

  /** The device flow of the CLI, with a scripted browser for the person. */
  async signIn(email: string): Promise<Person> {
    await using browser = openBrowser(this.anchor)
    let page: Promise<{ readonly status: number; readonly text: string }> | undefined
    const credentials = await deviceLogin({
      gateway: this.origin,
      trust: { anchor: this.anchor },
      onPrompt({ completeUrl: url }) {
        page = approveDevice(browser, { url, email, password: PASSWORD })
        page.catch(() => {})
      },
    })
    await page
    const person = personWith(this, email, credentials)
    this.#people.push(person)
    return person
  }

  async device(
    id: string,
    processes: Readonly<Record<string, unknown>> = {},
  ): Promise<DeviceIdentity> {
    const { token } = await this.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id })
    for (const [name, process] of Object.entries(processes))
      await this.admin.ask('PUT', `/devices/${id}/processes/${name}`, process)
    const key = newKey()
    const csr = createCsr(key, { deviceId: id, tenant: TENANT })
    const answer = await send(this, enrollRequest({ csr, token: token.token }))
    return { id, key, chain: certificatesOf(answer) }
  }

  async renew(device: DeviceIdentity): Promise<DeviceIdentity> {
    const key = newKey()
    const csr = createRenewalCsr(key, device.chain[0] ?? new Uint8Array())
    const answer = await send(this, { ...reenrollRequest({ csr }), ...presenting(device) })
    return { id: device.id, key, chain: certificatesOf(answer) }
  }

  events(from = 0): LoggedEvent[] {
    const directory = join(this.data, 'log', 'gw1', '1')
    const entries = [...readLog(directory, `${TENANT}/audit/gw1/1`, from)]
    return entries.map(({ idx, body }) => toEvent(idx, new TextDecoder().decode(body)))
  }

  acts(from = 0): LoggedEvent[] {
    return this.events(from).filter(
      ({ code, text }) => !OWN_MOMENTS.has(code) && !text.includes('"decisions.anchor"'),
    )
  }

  size(): number {
    // What is written stays: only what came since the last time is read.
    this.#size += this.events(this.#size).length
    return this.#size
  }

  async health(): Promise<NodeHealth> {
    if (this.#here === undefined) throw new Error('this node runs elsewhere')
    const { port } = this.#here.addresses.operations
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    const request = httpRequest({ port, host: '127.0.0.1', path: '/healthz' }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      response.on('end', () => resolve(text))
    })
    request.on('error', reject).end()
    return JSON.parse(await promise) as NodeHealth
  }

  rows(sql: string, ...values: (string | number)[]): Record<string, unknown>[] {
    const db = new DatabaseSync(join(this.data, 'store.sqlite'), { readOnly: true })
    try {
      return db.prepare(sql).all(...values)
    } finally {
      db.close()
    }
  }

  change(sql: string, ...values: (string | number)[]): void {
    const db = new DatabaseSync(join(this.data, 'store.sqlite'))
    try {
      db.exec('PRAGMA busy_timeout=5000')
      db.prepare(sql).run(...values)
    } finally {
      db.close()
    }
  }

  async stop(): Promise<void> {
    this.#here?.stopping.abort()
    if (this.#here !== undefined) await soon('the node stops', this.#here.running)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const person of this.#people) await person[Symbol.asyncDispose]()
    await this.stop()
    if (this.#here?.owned === true) rmSync(this.data, { recursive: true })
  }
}

/** Somebody who signed in in another way than by a password here. */
export function personWith(
  node: Pick<TestNode, 'origin'>,
  email: string,
  credentials: Credentials,
): Person {
  const fetch = authorizedFetch(credentials)
  const call = async <T>(method: string, path: string, body?: unknown): Promise<Answer<T>> => {
    const response = await fetch(`${node.origin}/api/v1${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    })
    const text = await response.text()
    const headers = new Headers([...response.headers])
    return { status: response.status, headers, text, body: parse(text) as T }
  }
  return {
    email,
    credentials,
    fetch,
    call,
    async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
      const answer = await call<T>(method, path, body)
      if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.text}`)
      return answer.body
    },
    [Symbol.asyncDispose]: () => fetch[Symbol.asyncDispose](),
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function toEvent(idx: number, text: string): LoggedEvent {
  const event = JSON.parse(text) as { readonly message?: unknown; readonly [key: string]: unknown }
  const { event_code: code } = event['metadata'] as { event_code: string }
  const { message } = event
  return { idx, code, message: typeof message === 'string' ? message : '', text, event }
}

export interface PlainRequest {
  readonly method: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as it is where it is text, as JSON where it is not. */
  readonly body?: unknown
  readonly key?: string
  readonly cert?: string
}

/** One request over TLS without any sign-in, with a client certificate where one is given. */
export async function send<T = Problem>(
  node: { readonly port: number; readonly anchor: string },
  { method, path, headers = {}, body, key, cert }: PlainRequest,
): Promise<Answer<T>> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer<T>>()
  const isText = typeof body === 'string'
  const options: RequestOptions = {
    host: '127.0.0.1',
    port: node.port,
    servername: 'localhost',
    ca: node.anchor,
    agent: false,
    method,
    path,
    headers: {
      host: `localhost:${node.port}`,
      ...(body === undefined || isText ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(key === undefined ? {} : { key }),
    ...(cert === undefined ? {} : { cert }),
  }
  const request = httpsRequest(options, (response) => {
    let text = ''
    response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    response.on('end', () => {
      const flat = Object.entries(response.headersDistinct).map(([name, all]): [string, string] => [
        name,
        all?.join(', ') ?? '',
      ])
      resolve({
        status: response.statusCode ?? 0,
        headers: new Headers(flat),
        text,
        body: parse(text) as T,
      })
    })
  })
  request.on('error', reject)
  request.end(body === undefined || isText ? body : JSON.stringify(body))
  return await promise
}

function certificatesOf(answer: Answer): readonly Uint8Array[] {
  const headers = Object.fromEntries(answer.headers)
  const read = readCertificates({ status: answer.status, headers, body: answer.text })
  if (read.kind !== 'certificates') throw new Error('no certificate was issued')
  return read.certificates
}

export function newKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

/** Key and certificate of a device as TLS wants them. */
export function presenting(device: Pick<DeviceIdentity, 'key' | 'chain'>): {
  key: string
  cert: string
} {
  const cert = device.chain.map((der) => new X509Certificate(der).toString()).join('')
  return { key: String(device.key.export({ type: 'pkcs8', format: 'pem' })), cert }
}

/** How to reach the port; ALPN and certificate are the caller's. */
export function toNode(node: {
  readonly port: number
  readonly anchor: string
}): ConnectionOptions & { port: number } {
  return { host: '127.0.0.1', port: node.port, servername: 'localhost', ca: node.anchor }
}

/** A TLS connection to the port, after the handshake. */
export async function dial(
  node: { readonly port: number; readonly anchor: string },
  options: ConnectionOptions = {},
): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>()
  const socket = connectTls({ ...toNode(node), ...options }, () => resolve(socket))
  socket.on('error', reject)
  return await soon('a TLS handshake', promise)
}

/** A grant for one process, asked by `vendor`, approved by `approver`. */
export async function grantFor(
  vendor: Person,
  approver: Person,
  ask: { device: string; process: string; duration_s?: number },
): Promise<Grant> {
  const { device, process, duration_s = 600 } = ask
  const asked = await vendor.ask<Grant>('POST', '/grants', {
    device,
    processes: [process],
    duration_s,
    reason: 'service',
  })
  return await approver.ask<Grant>('POST', `/grants/${asked.id}/approve`, { hash: asked.hash })
}

/** A session of `vendor` to one process. */
export async function openSession(
  vendor: Person,
  device: string,
  process: string,
): Promise<OpenedSession> {
  return await vendor.ask<OpenedSession>('POST', '/sessions', { device, process })
}

export function sha256(text: string | Uint8Array): string {
  return createHash('sha256').update(text).digest('hex')
}
