/** The tunnel end of the one port: who is this, may they connect, and what their tunnel then serves. */
import type { IncomingMessage } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { AuditLog } from '#audit'
import { instant, verifyPeer, type CaStore, type Issuers, type Peer } from '#ca'
import { muxCodes } from '#mux'
import { acceptWebSocket, driveTunnel, MuxError } from '#tunnel'
import type { CloseReason, Offer, Tunnel, TunnelStream } from '#tunnel'
import { tlsOf } from '../access/source.ts'
import { serveClient } from '../access/tcp.ts'
import { refOf, type DecisionRef, type Decisions } from '../decisions.ts'
import type { Device, DeviceStore } from '../devices/device.ts'
import type { DeviceTls, Presence, Registry } from '../devices/presence.ts'
import { deviceFacts, plainAddress } from '../facts.ts'
import type { Reauthorization } from '../sessions/reevaluate.ts'
import { TargetsSchema, toListeners, toObserved } from '../sessions/observed.ts'
import type { LiveSession } from '../sessions/live.ts'
import type { SessionRoom } from '../sessions/room.ts'
import { Allowance } from './allowance.ts'
import { Lines } from './lines.ts'
import type { Quiet } from './quiet.ts'

export interface TunnelListener {
  readonly tenant: string
  readonly gateway: string
  readonly issuers: () => Issuers
  readonly caStore: CaStore
  readonly devices: DeviceStore
  readonly registry: Registry
  readonly decisions: Decisions
  readonly log: Pick<AuditLog, 'append'>
  readonly room: SessionRoom
  readonly reauthorization: Reauthorization
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
  /**
   * Told of connections that were refused, for the node's own log; `suppressed` is how many like it
   * were not told since the last.
   */
  readonly refused: (code: string, from: string, detail: string, suppressed: number) => void
  /** How often one device may come, and one session. */
  readonly allowance: Allowance
  readonly sessions: Allowance
  /** Somebody at this address is a device of this node. */
  readonly proven: (address: string) => void
  /** Holds back what strangers repeat, by code and source. */
  readonly quiet: Quiet
}

const Hello = Type.Object({
  v: Type.Literal(1),
  agent: Type.Object({
    version: Type.String({ maxLength: 32 }),
    version_int: Type.Integer({ minimum: 0 }),
    now_ms: Type.Number(),
  }),
  tls: Type.Object({
    version: Type.String({ maxLength: 16 }),
    cipher: Type.String({ maxLength: 64 }),
    group: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
  }),
  targets: TargetsSchema,
})
const Report = Type.Union([
  Type.Object({ type: Type.Literal('targets'), targets: TargetsSchema }),
  Type.Object({
    type: Type.Literal('owner_changed'),
    session: Type.String({ maxLength: 40 }),
    observed: Type.Unknown(),
  }),
  Type.Object({ type: Type.Literal('ping') }),
])

const HELLO_TIMEOUT_MS = 10_000
/** A device may stretch its silences to 300 s (agent.json, keepalive_max_s); the gateway waits half as long again. */
const FOLLOWED_MS = 450_000
/** What a peer of ours needs is far below what a tunnel can do; what it may cost the others is bounded here. */
const LIMITS = {
  keepalivePatienceMs: FOLLOWED_MS,
  opensPerSecond: 100,
  resetsPerSecond: 100,
  signalsPerSecond: 500,
  emptyFramesPerSecond: 20_000,
  tinyFramesPerSecond: 20_000,
} as const
/** A device carries everybody's sessions: what one vendor's target answers must not end it for the others. */
const DEVICE_LIMITS = { ...LIMITS, tinyFramesPerSecond: 1_000_000 } as const
/** Reports of a device: each may make the node decide its sessions again. */
const REPORTS_PER_SECOND = 50
const REPORTS_AT_ONCE = 2048
/** Longest line of a report. */
const REPORT_LIMIT = 256 * 1024
const REPLACED = 'a newer tunnel of this device took over'
/** Said of whoever it is: the signature of our CA has not held, so nothing presented is anybody's. */
const STRANGERS: ReadonlySet<string> = new Set([
  'peer.none',
  'peer.malformed',
  'peer.issuer',
  'peer.signature',
])
const decoder = new TextDecoder('utf-8', { fatal: true })
const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

/** An HTTP request that asks for a tunnel in WebSocket, with what came behind it. */
export interface Upgrade {
  readonly request: IncomingMessage
  readonly head: Buffer
}

/**
 * Takes over a TLS connection that negotiated `sallyport/1`, or one on which `upgrade` was asked for:
 * from there on the two are the same. Never throws.
 */
export async function acceptTunnel(
  listener: TunnelListener,
  socket: TLSSocket,
  epoch: number,
  upgrade?: Upgrade,
): Promise<void> {
  const from = plainAddress(socket.remoteAddress ?? '')
  try {
    const chain = presentedChain(socket)
    const limits = chain.length > 0 ? DEVICE_LIMITS : LIMITS
    const options = { role: 'gateway', instance: listener.gateway, epoch, limits } as const
    const tunnel =
      upgrade === undefined
        ? await driveTunnel(socket, { ...options, side: 'acceptor' })
        : await acceptWebSocket({ ...upgrade, socket }, options)
    void tunnel.closed.then((why) => misbehaved(listener, why, from))
    if (tunnel.peer.role === 'client' && chain.length > 0) {
      // Its limits would be a device's.
      refusedStranger(listener, 'peer.role', from, 'a client with a certificate')
      tunnel.close('peer.role', 'a client presents no certificate')
    } else if (tunnel.peer.role === 'agent')
      await admitAgent(listener, socket, tunnel, chain, epoch, from)
    else if (tunnel.peer.role === 'client')
      serveClient(listener.room, {
        tunnel,
        exporter: socket.exportKeyingMaterial(32, 'EXPORTER-sallyport-session', Buffer.alloc(0)),
        source: {
          ip: from === '' ? null : from,
          tls: tlsOf(socket),
        },
        proven(session) {
          listener.proven(from)
          if (listener.sessions.take(session, performance.now())) return true
          refusedStranger(listener, 'session.pace', from, session)
          return false
        },
      })
    else {
      refusedStranger(listener, 'peer.role', from, tunnel.peer.role)
      tunnel.close('peer.role', 'a gateway does not take tunnels of this role')
    }
  } catch (error) {
    socket.destroy()
    if (error instanceof MuxError) refusedStranger(listener, error.code, from, error.message)
    else listener.report(error, 'a tunnel could not be accepted')
  }
}

/** What the peer presented, leaf first; nothing has been checked. */
function presentedChain(socket: TLSSocket): Uint8Array[] {
  const leaf = socket.getPeerX509Certificate()
  return leaf === undefined ? [] : [new Uint8Array(leaf.raw)]
}

/** Ends that are nobody's doing: the network's. */
const LOST: ReadonlySet<string> = new Set(['peer.lost', 'peer.silent', 'carrier.failed'])

/** A peer that broke the protocol is told to the operator, whoever it is. */
function misbehaved(listener: TunnelListener, why: CloseReason, from: string): void {
  if (why.fault !== 'remote' || !Object.hasOwn(muxCodes, why.code) || LOST.has(why.code)) return
  refusedStranger(listener, why.code, from, why.message)
}

/** For the node's own log, held back where it repeats: how many were, or undefined where this one is. */
function refusedStranger(
  listener: TunnelListener,
  code: string,
  from: string,
  detail: string,
): number | undefined {
  const suppressed = listener.quiet.tell(`${code} ${from}`, performance.now())
  if (suppressed !== undefined) listener.refused(code, from, detail, suppressed)
  return suppressed
}

interface Admission {
  readonly device: Device
  readonly peer: Peer
}

async function admitAgent(
  listener: TunnelListener,
  socket: TLSSocket,
  tunnel: Tunnel,
  chain: readonly Uint8Array[],
  epoch: number,
  from: string,
): Promise<void> {
  let ended: CloseReason | undefined
  void tunnel.closed.then((why) => (ended = why))
  const admission = await admit(listener, tunnel, chain, from)
  if (admission === undefined) return
  const offer = await controlOffer(tunnel)
  const hello = offer.kind === 'control' ? parseHello(offer.metadata) : undefined
  if (hello === undefined) {
    offer.refuse('control.metadata', 'the first stream of an agent is its control stream')
    tunnel.close('control.metadata', 'the first stream of an agent is its control stream')
    return
  }
  const tls: DeviceTls = {
    version: socket.getProtocol() ?? 'unknown',
    cipher: tlsOf(socket).cipher ?? 'unknown',
    group: hello.tls.group,
    pq: hello.tls.group?.includes('MLKEM') ?? false,
  }
  const cut = cutter(tunnel, socket)
  const presence: Presence = {
    device: admission.device.id,
    tunnel,
    peer: admission.peer,
    tls,
    agent: { version: hello.agent.version, version_int: hello.agent.version_int },
    epoch,
    since: listener.now(),
    listeners: toListeners(hello.targets),
    cut: cut.cut,
    withdrawnAt: cut.withdrawnAt,
  }
  await recordUp(listener, presence, { from, clockOffsetMs: hello.agent.now_ms - listener.now() })
  await place(listener, presence, offer, () => ended)
}

/** Puts a recorded tunnel in place, unless something came between. */
async function place(
  listener: TunnelListener,
  presence: Presence,
  offer: Offer,
  ended: () => CloseReason | undefined,
): Promise<void> {
  await listener.caStore.proven(presence.peer.serial, instant(listener.now()))
  // Recording took time: what ended, was revoked or was overtaken meanwhile is not put in place.
  const standing = await listener.room.stands(presence.peer)
  const late = ended() ?? (standing.ok ? undefined : standing)
  const placing = late === undefined ? listener.registry.put(presence) : undefined
  if (placing?.placed === true) {
    serve(listener, presence, offer)
    placing.replaced?.tunnel.close('tunnel.replaced', REPLACED)
    // A revocation cuts what is in the registry; one that came just before is read here.
    const still = await listener.room.stands(presence.peer)
    if (!still.ok) await presence.cut(still.code, still.message, performance.now())
    return
  }
  const { code, message } = late ?? { code: 'tunnel.replaced', message: REPLACED }
  presence.tunnel.close(code, message)
  await recordDown(listener, presence, code)
}

/** What a tunnel in place does until it ends. */
function serve(listener: TunnelListener, presence: Presence, offer: Offer): void {
  const { device, epoch, tunnel } = presence
  const { gateway } = listener
  const control = offer.accept(encode({ v: 1, device, now_ms: listener.now(), gateway, epoch }))
  readReports(listener, presence, control)
  void tunnel.closed.then((why) => {
    const was = listener.registry.remove(device, tunnel)
    return recordDown(listener, presence, was === undefined ? 'tunnel.replaced' : why.code)
  })
}

async function recordUp(
  listener: TunnelListener,
  { device, tls, peer, agent, epoch }: Presence,
  { from, clockOffsetMs }: { readonly from: string; readonly clockOffsetMs: number },
): Promise<void> {
  await listener.log.append({
    code: 'tunnel.up',
    message: `tunnel of ${device} up`,
    status: 'success',
    disposition: 'allowed',
    device,
    src: from === '' ? undefined : { ip: from },
    data: {
      tunnel: `${listener.gateway}/${epoch}`,
      tls_version: tls.version,
      cipher: tls.cipher,
      group: tls.group ?? 'unknown',
      serial: peer.serial,
      agent_version: agent.version,
      clock_offset_ms: Math.round(clockOffsetMs),
      epoch,
    },
  })
}

interface Turned {
  readonly code: string
  readonly message: string
  /** What the certificate names; null where it names nothing. */
  readonly device: string | null
  readonly decision?: DecisionRef
}

/**
 * Records a refusal. A device that proved who it is has an event for each; strangers, who can knock
 * as often as they like, have one per reason, source and minute, with the number of the others.
 */
async function recordRefusal(
  listener: TunnelListener,
  from: string,
  { code, message, device, decision }: Turned,
): Promise<void> {
  const unknown = STRANGERS.has(code)
  const suppressed = unknown ? refusedStranger(listener, code, from, message) : 0
  if (suppressed === undefined) return
  if (!unknown) listener.refused(code, from, message, 0)
  const claim = unknown && device !== null ? `, claiming to be ${device}` : ''
  await listener.log.append({
    code: 'tunnel.down',
    message: `tunnel refused: ${code}${claim}`,
    status: 'failure',
    disposition: 'blocked',
    reason: code,
    device: unknown || device === null ? 'unknown' : device,
    src: from === '' ? undefined : { ip: from },
    decisions: decision === undefined ? undefined : [decision],
    data: { tunnel: 'refused', suppressed: unknown ? suppressed : undefined },
  })
}

/** A peer that is cut may hear why for this long; one that does not read its socket loses it all the same. */
const CUT_GRACE_MS = 200

function cutter(tunnel: Tunnel, socket: TLSSocket) {
  let withdrawn: number | undefined
  return {
    withdrawnAt: () => withdrawn,
    cut: async (code: string, message: string, withdrawnAt: number): Promise<void> => {
      withdrawn ??= withdrawnAt
      tunnel.close(code, message)
      const timer = setTimeout(() => socket.destroy(), CUT_GRACE_MS)
      await tunnel.closed
      clearTimeout(timer)
    },
  }
}

/** Identity, state, policy: refused with the reason in GOAWAY, so that the device's own log can say it. */
async function admit(
  listener: TunnelListener,
  tunnel: Tunnel,
  chain: readonly Uint8Array[],
  from: string,
): Promise<Admission | undefined> {
  const refuse = async (
    code: string,
    message: string,
    device: string | null,
    decision?: DecisionRef,
  ) => {
    const turned = { code, message, device, ...(decision === undefined ? {} : { decision }) }
    await recordRefusal(listener, from, turned)
    tunnel.close(code, message)
    return undefined
  }
  if (chain.length === 0)
    return await refuse('peer.none', 'an agent presents its device certificate', null)
  const peer = await verifyPeer(chain, {
    tenant: listener.tenant,
    issuers: listener.issuers(),
    store: listener.caStore,
    now: instant(listener.now()),
    purpose: 'tunnel',
  })
  if (!peer.ok) return await refuse(peer.code, peer.message, peer.device)
  if (!listener.allowance.take(peer.device, performance.now())) {
    // Not recorded one by one: that is what it would be done for.
    refusedStranger(listener, 'device.pace', from, peer.device)
    tunnel.close('device.pace', 'this device connects too often; it may try again in a minute')
    return undefined
  }
  listener.proven(from)
  const device = await listener.devices.find(peer.device)
  if (device === undefined)
    return await refuse('device.unknown', 'no device of this name is registered', peer.device)
  const decision = listener.decisions.ask('tunnel.connect', {
    subject: { id: device.id, kind: 'device' },
    device: {
      ...deviceFacts(device, undefined),
      cert: { serial: peer.serial, not_after: Math.floor(peer.notAfter / 1000) },
    },
    tunnel: { peer_device_id: peer.device, peer_ip: from === '' ? null : from },
  })
  if (decision.allow) return { device, peer }
  const first = decision.denials[0]
  return await refuse(
    first?.code ?? 'policy.denied',
    first?.msg ?? 'policy does not allow this tunnel',
    device.id,
    refOf(decision),
  )
}

/** The agent's first stream; a tunnel without one within the time is nobody's, and there is no second. */
async function controlOffer(tunnel: Tunnel): Promise<Offer> {
  const { promise, resolve, reject } = Promise.withResolvers<Offer>()
  const timer = setTimeout(() => {
    reject(new MuxError('hello.timeout', 'remote'))
    tunnel.close('control.timeout', 'the agent did not open its control stream')
  }, HELLO_TIMEOUT_MS)
  let first = true
  tunnel.onOpen = (offer) => {
    if (first) resolve(offer)
    // Not in the same breath: an OPEN whose RESET came with it is known to be taken back only then.
    else
      queueMicrotask(() =>
        offer.refuse('stream.unexpected', 'an agent opens its control stream only'),
      )
    first = false
  }
  void tunnel.closed.then(() => reject(new MuxError('hello.timeout', 'remote')))
  try {
    return await promise
  } finally {
    clearTimeout(timer)
  }
}

function parseHello(metadata: Uint8Array) {
  try {
    const value: unknown = JSON.parse(decoder.decode(metadata))
    return Value.Check(Hello, value) ? value : undefined
  } catch {
    return undefined
  }
}

/** Newline-delimited JSON; a line that is none of ours ends the tunnel, because the two no longer agree. */
function readReports(listener: TunnelListener, presence: Presence, control: TunnelStream): void {
  const reporting: Reporting = { listener, presence, asking: new Map() }
  const allowance = new Allowance(REPORTS_PER_SECOND, REPORTS_AT_ONCE, 1)
  const lines = new Lines(REPORT_LIMIT)
  control.onData = (chunk) => {
    const whole = lines.take(chunk)
    control.consumed(chunk.length)
    if (whole === undefined) {
      presence.tunnel.close('control.limit', 'a report is too long')
      return
    }
    for (const line of whole) {
      if (!allowance.take('report', performance.now())) {
        presence.tunnel.close('control.rate', 'the agent reports without end')
        return
      }
      if (!report(reporting, line)) {
        presence.tunnel.close('control.report', 'a report is not of the protocol')
        return
      }
    }
  }
  control.onClose = () => presence.tunnel.close('control.closed', 'the control stream ended')
}

interface Reporting {
  readonly listener: TunnelListener
  readonly presence: Presence
  /** Sessions being decided again, with the instant of the earliest change that came since. */
  readonly asking: Map<LiveSession, number | undefined>
}

function report(reporting: Reporting, line: string): boolean {
  const { listener, presence } = reporting
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return false
  }
  if (!Value.Check(Report, value)) return false
  const at = performance.now()
  switch (value.type) {
    case 'ping':
      return true
    case 'targets':
      listener.registry.report(presence.device, presence.tunnel, toListeners(value.targets))
      return true
    case 'owner_changed': {
      const session = listener.room.live.get(value.session)
      if (session === undefined || session.device !== presence.device) return true
      session.changed = Value.Check(TargetsSchema, [
        { process: 'x', kind: 'tcp', listener: value.observed },
      ])
        ? toObserved(value.observed as Parameters<typeof toObserved>[0])
        : null
      void decideAgain(reporting, session, at)
      return true
    }
  }
}

/** One question at a time per session: all that is reported during one is asked about together after it. */
async function decideAgain(
  { listener, asking }: Reporting,
  session: LiveSession,
  at: number,
): Promise<void> {
  if (asking.has(session)) {
    asking.set(session, asking.get(session) ?? at)
    return
  }
  try {
    for (let due: number | undefined = at; due !== undefined; due = asking.get(session)) {
      asking.set(session, undefined)
      const withdrawal = { trigger: 'process', at: due } as const
      await listener.reauthorization.withdraw((one) => one === session, withdrawal)
    }
  } finally {
    asking.delete(session)
  }
}

async function recordDown(
  listener: TunnelListener,
  presence: Presence,
  reason: string,
): Promise<void> {
  const withdrawn = presence.withdrawnAt()
  const took = withdrawn === undefined ? undefined : Math.ceil(performance.now() - withdrawn)
  await listener.log
    .append({
      code: 'tunnel.down',
      message: `tunnel of ${presence.device} down: ${reason}`,
      status: 'success',
      reason,
      ...(took === undefined ? {} : { disposition: 'revoked' as const }),
      device: presence.device,
      data: {
        tunnel: `${listener.gateway}/${presence.epoch}`,
        serial: presence.peer.serial,
        time_to_cut_ms: took,
        duration_ms: Math.max(0, Math.round(listener.now() - presence.since)),
      },
    })
    .catch((error: unknown) =>
      listener.report(error, `the end of the tunnel of ${presence.device} could not be recorded`),
    )
}
