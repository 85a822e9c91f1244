/**
 * Both ends of a session without the programs that have them in life: an agent whose observations
 * the test chooses, and a native client that proves what the test lets it prove.
 */
import { createHmac } from 'node:crypto'
import { connect as connectTcp } from 'node:net'
import { pipeline } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import type { OpenedSession } from '#api'
import { ALPN, driveTunnel, dialTls } from '#tunnel'
import type { CloseReason, Offer, Tunnel, TunnelStream } from '#tunnel'
import {
  dial,
  presenting,
  sha256,
  soon,
  toNode,
  until,
  type DeviceIdentity,
  type TestNode,
} from './node.ts'

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
const decode = (bytes: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(bytes))

export interface Seen {
  readonly phase: 'listener' | 'accepted'
  readonly exe: string
  readonly sha256: string
  readonly script_sha256: null
  readonly uid: number
  readonly unit: null
  readonly image: null
  readonly started_at: number
  readonly pid: number
  readonly others: readonly Seen[]
}

/** What an agent saw: the executable at `exe`, whose hash follows from its name. */
export function seen(exe: string, phase: Seen['phase'] = 'accepted'): Seen {
  return {
    phase,
    exe,
    sha256: sha256(exe),
    script_sha256: null,
    uid: 1000,
    unit: null,
    image: null,
    started_at: 1_750_000_000,
    pid: 4711,
    others: [],
  }
}

export const PLC = '/usr/bin/plc-runtime'

/** A process of `kind` that must be the executable at `exe`. */
export function expecting(exe = PLC, kind = 'tcp'): Readonly<Record<string, unknown>> {
  return { kind, expect: { exe: [exe], sha256: [sha256(exe)] } }
}

/** One stream that a test reads like a line: what came, whether it ended, why it closed. */
export class Line {
  readonly stream: TunnelStream
  readonly signals: unknown[] = []
  readonly closed: Promise<CloseReason>
  #received: Buffer = Buffer.alloc(0)
  /** Octets that came and were given back. */
  total = 0
  ended = false
  /** False: nothing is given back, as from a reader who does not read. */
  reading: boolean
  keep: boolean

  constructor(stream: TunnelStream, { reading = true, keep = true } = {}) {
    this.stream = stream
    this.reading = reading
    this.keep = keep
    const { promise, resolve } = Promise.withResolvers<CloseReason>()
    this.closed = promise
    stream.onSignal = (payload) => this.signals.push(decode(payload))
    stream.onEnd = () => (this.ended = true)
    stream.onClose = resolve
    stream.onData = (chunk) => {
      this.total += chunk.length
      if (this.keep) this.#received = Buffer.concat([this.#received, chunk])
      if (this.reading) stream.consumed(chunk.length)
    }
  }

  get text(): string {
    return this.#received.toString('latin1')
  }
  get bytes(): Buffer {
    return this.#received
  }
  write(bytes: string | Uint8Array): boolean {
    return this.stream.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes)
  }
  /** Waits until what came satisfies `check`. */
  async until(what: string, check: (line: this) => boolean): Promise<this> {
    await until(`${what}; came: ${this.text.slice(0, 200)}`, () => check(this))
    return this
  }
  async gone(): Promise<CloseReason> {
    return await soon('the stream closes', this.closed)
  }
}

export interface OpenMetadata {
  readonly session: string
  readonly process: string
  readonly remaining_ms: number
  readonly terminal?: unknown
  readonly obligations: Readonly<Record<string, unknown>>
}

/** Answers whatever it is told, FIN for FIN. */
export function echo(stream: TunnelStream): void {
  stream.onDrain = () => {}
  stream.onSignal = () => {}
  stream.onEnd = () => stream.end()
  stream.onData = (chunk) => {
    stream.write(chunk)
    stream.consumed(chunk.length)
  }
}

/** Carries the stream to a local TCP port. */
export function toPort(port: number): (stream: TunnelStream) => void {
  return (stream) => {
    const duplex = stream.duplex()
    const socket = connectTcp({ port, host: '127.0.0.1', allowHalfOpen: true })
    const over = () => {}
    pipeline(duplex, socket, over)
    pipeline(socket, duplex, over)
  }
}

export interface FakeAgent extends AsyncDisposable {
  readonly tunnel: Tunnel
  readonly control: TunnelStream
  /** What the gateway's ACCEPT of the control stream said. */
  readonly welcome: Readonly<Record<string, unknown>>
  /** What it says it saw when a stream is opened; a function may answer per connection. */
  observed: unknown
  /** What stands behind the process once the gateway says proceed. */
  target: (stream: TunnelStream, metadata: OpenMetadata) => void
  /** Answers an offer instead of accepting it. */
  answer: ((offer: Offer, metadata: OpenMetadata) => void) | undefined
  /** Every OPEN that came, oldest first. */
  readonly opened: OpenMetadata[]
  /** OPENs that were told to proceed. */
  proceeded: number
  /** Streams of sessions that are open on this tunnel. */
  open(): number
  /** Says on the control stream what the test wants said. */
  report(line: unknown): void
}

export interface AgentOptions {
  readonly targets?: readonly unknown[]
  readonly listeners?: Readonly<Record<string, unknown>>
  readonly observed?: unknown
  /** Asked to look who listens, it does so at once; absent: it does not know how. */
  readonly look?: () => readonly unknown[]
}

/** What an agent says when it opens its control stream. */
export function hello(targets: readonly unknown[] = []): Readonly<Record<string, unknown>> {
  return {
    v: 1,
    agent: { version: '0.1.0', version_int: 1000, now_ms: Date.now() },
    tls: { version: 'TLSv1.3', cipher: 'TLS_AES_256_GCM_SHA384', group: 'X25519MLKEM768' },
    targets,
  }
}

let epoch = 0

/** A tunnel as `device`, with nothing opened on it. */
export async function dialDevice(
  node: Pick<TestNode, 'port' | 'anchor'>,
  device: Pick<DeviceIdentity, 'key' | 'chain'> | undefined,
): Promise<Tunnel> {
  const certificate = device === undefined ? {} : presenting(device)
  return await dialTls(
    { ...toNode(node), ...certificate },
    { role: 'agent', instance: 'fake', epoch: ++epoch },
  )
}

/** Dials as `device`, opens the control stream and serves. */
export async function attach(
  node: Pick<TestNode, 'port' | 'anchor'>,
  device: Pick<DeviceIdentity, 'key' | 'chain'>,
  options: AgentOptions = {},
): Promise<FakeAgent> {
  const { listeners = {} } = options
  const targets =
    options.targets ??
    Object.entries(listeners).map(([process, listener]) => ({ process, kind: 'tcp', listener }))
  const tunnel = await dialDevice(node, device)
  const opened: OpenMetadata[] = []
  const agent: Omit<FakeAgent, 'control' | 'welcome'> = {
    tunnel,
    observed: options.observed ?? seen(PLC),
    target: echo,
    answer: undefined,
    opened,
    proceeded: 0,
    open: () => tunnel.stats().streams - 1,
    report: (line) =>
      void control.write(
        Buffer.from(typeof line === 'string' ? line : `${JSON.stringify(line)}\n`, 'utf8'),
      ),
    async [Symbol.asyncDispose]() {
      tunnel.close('agent.draining')
      await tunnel.closed
    },
  }
  tunnel.onOpen = (offer) => {
    const metadata = decode(offer.metadata) as OpenMetadata
    opened.push(metadata)
    if (agent.answer === undefined) serve(agent, offer, metadata)
    else agent.answer(offer, metadata)
  }
  const { look } = options
  const greeting = { ...hello(targets), ...(look === undefined ? {} : { looks: 1 }) }
  const control = await tunnel.open('control', encode(greeting))
  if (look !== undefined)
    control.onData = (chunk) => {
      control.consumed(chunk.length)
      for (const text of Buffer.from(chunk).toString().split('\n')) {
        const { type, id } = text === '' ? {} : (JSON.parse(text) as { type?: string; id?: number })
        if (type !== 'look') continue
        agent.report({ type: 'targets', targets: look(), unreadable: 0 })
        agent.report({ type: 'looked', id })
      }
    }
  const welcome = decode(control.answer) as Record<string, unknown>
  return Object.assign(agent, { control, welcome })
}

/** Accepts with what was seen, moves nothing until told, then lets the target have the stream. */
export function serve(
  agent: Pick<FakeAgent, 'observed' | 'target' | 'proceeded'>,
  offer: Offer,
  metadata: OpenMetadata,
): void {
  const { observed } = agent
  const facts: unknown =
    typeof observed === 'function' ? (observed as (m: OpenMetadata) => unknown)(metadata) : observed
  // As an agent does whose declaration allows a terminal to whoever asks for one.
  const terminal = metadata.terminal === undefined ? {} : { terminal: true }
  const stream = offer.accept(encode({ v: 1, observed: facts, ...terminal }))
  stream.onSignal = (payload) => {
    if ((decode(payload) as { t?: unknown }).t !== 'proceed') return
    agent.proceeded++
    agent.target(stream, metadata)
  }
}

/** A native client: one TLS connection, as many streams as it wants. */
export class Client implements AsyncDisposable {
  readonly tunnel: Tunnel
  readonly #exporter: Buffer
  private constructor(tunnel: Tunnel, exporter: Buffer) {
    this.tunnel = tunnel
    this.#exporter = exporter
  }
  static async dial(node: TestNode): Promise<Client> {
    const socket: TLSSocket = await dial(node, { ALPNProtocols: [ALPN] })
    const exporter = socket.exportKeyingMaterial(32, 'EXPORTER-sallyport-session', Buffer.alloc(0))
    const options = { role: 'client', side: 'dialler', instance: 'fake', epoch: ++epoch } as const
    return new Client(await driveTunnel(socket, options), exporter)
  }
  /** What the session's secret proves on this connection. */
  proof(session: Pick<OpenedSession, 'secret'>): string {
    const secret = Buffer.from(session.secret, 'base64url')
    return createHmac('sha256', secret).update(this.#exporter).digest('base64url')
  }
  /** Asks for a stream; `change` bends the metadata. */
  async stream(
    session: Pick<OpenedSession, 'id' | 'secret'>,
    change: Readonly<Record<string, unknown>> = {},
    kind: 'tcp' | 'udp' | 'spawn' = 'tcp',
  ): Promise<TunnelStream> {
    const metadata = { v: 1, session: session.id, proof: this.proof(session), ...change }
    return await this.tunnel.open(kind, encode(metadata))
  }
  async line(
    session: Pick<OpenedSession, 'id' | 'secret'>,
    options: { reading?: boolean; keep?: boolean } = {},
  ): Promise<Line> {
    return new Line(await this.stream(session), options)
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.tunnel.close('client.gone')
    await this.tunnel.closed
  }
}

/** A refusal as the gateway words it for a client. */
export interface Told {
  readonly code: string
  readonly msg: string
  readonly next_step?: string
  readonly decision_id?: string
}

/** The code a stream was refused with, and the words. */
export async function refusalOf(
  attempt: Promise<unknown>,
): Promise<{ readonly code: string; readonly told: Told | undefined }> {
  const [outcome] = await Promise.allSettled([soon('an answer to OPEN', attempt)])
  if (outcome.status === 'fulfilled') throw new Error('the stream was accepted')
  const error = outcome.reason as Error & { code?: string }
  const told = error.message.startsWith('{') ? (JSON.parse(error.message) as Told) : undefined
  return { code: error.code ?? error.message, told }
}
