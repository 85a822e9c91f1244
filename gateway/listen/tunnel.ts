/** The tunnel end of the one port: who is this, may they connect, and what their tunnel then serves. */
import type { IncomingMessage } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { instant, verifyPeer, type Peer } from '#ca'
import { acceptWebSocket, driveTunnel, MuxError } from '#tunnel'
import type { CloseReason, Offer, Tunnel } from '#tunnel'
import { tlsOf } from '../access/source.ts'
import { serveClient } from '../access/tcp.ts'
import { refOf, type DecisionRef } from '../decisions.ts'
import { toldIn } from '../zone.ts'
import type { Device } from '../devices/device.ts'
import type { Inventory } from '../devices/inventory.ts'
import { Looks } from '../devices/looks.ts'
import type { DeviceTls, Presence } from '../devices/presence.ts'
import { deviceFacts, plainAddress } from '../facts.ts'
import { TargetsSchema, toInventory, toListeners, UnreadableSchema } from '../sessions/observed.ts'
import type { TunnelListener } from './listener.ts'
import { readReports } from './reports.ts'
import {
  misbehaved,
  recordDown,
  recordRefusal,
  recordUp,
  refusedStranger,
} from './tunnel-events.ts'

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
  unreadable: UnreadableSchema,
  /** It looks when it is asked to: docs/process-scope.md. */
  looks: Type.Optional(Type.Integer({ minimum: 0 })),
})
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
const REPLACED = 'a newer tunnel of this device took over'
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
        openings: listener.openings,
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
  const looks = new Looks()
  const presence: Presence = {
    device: admission.device.id,
    tunnel,
    peer: admission.peer,
    tls,
    agent: { version: hello.agent.version, version_int: hello.agent.version_int },
    epoch,
    since: listener.now(),
    listeners: toListeners(hello.targets),
    looks,
    cut: cut.cut,
    withdrawnAt: cut.withdrawnAt,
  }
  await recordUp(listener, presence, { from, clockOffsetMs: hello.agent.now_ms - listener.now() })
  // A greeting without targets may be one that they did not fit: they follow on the control stream.
  const greeted =
    hello.targets.length > 0 ? toInventory(hello.targets, hello.unreadable) : undefined
  const asked = (hello.looks ?? 0) > 0 ? looks : undefined
  await place(listener, presence, { offer, greeted, looks: asked }, () => ended)
}

/** The agent's own first stream, what it said it exposes, and its looks where it can be asked for one. */
interface Greeting {
  readonly offer: Offer
  readonly greeted: Inventory | undefined
  readonly looks: Looks | undefined
}

/** Puts a recorded tunnel in place, unless something came between. */
async function place(
  listener: TunnelListener,
  presence: Presence,
  { greeted, ...control }: Greeting,
  ended: () => CloseReason | undefined,
): Promise<void> {
  await listener.caStore.proven(presence.peer.serial, instant(listener.now()))
  // Recording took time: what ended, was revoked or was overtaken meanwhile is not put in place.
  const standing = await listener.room.stands(presence.peer)
  const late = ended() ?? (standing.ok ? undefined : standing)
  const placing = late === undefined ? listener.registry.put(presence) : undefined
  if (placing?.placed === true) {
    serve(listener, presence, control)
    if (greeted !== undefined) listener.inventories.seen(presence.device, greeted)
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
function serve(
  listener: TunnelListener,
  presence: Presence,
  { offer, looks }: Omit<Greeting, 'greeted'>,
): void {
  const { device, epoch, tunnel } = presence
  const { gateway } = listener
  const log = listener.witnesses.origin
  const control = offer.accept(
    encode({ v: 1, device, now_ms: listener.now(), gateway, epoch, log, updates: 1, starts: 1 }),
  )
  readReports(listener, presence, control, looks)
  void tunnel.closed.then((why) => {
    const was = listener.registry.remove(device, tunnel)
    if (was !== undefined && why.code === ISLAND && why.fault === 'remote') cutOff(listener, device)
    return recordDown(listener, presence, was === undefined ? 'tunnel.replaced' : why.code)
  })
}

/** What an agent says as it leaves because the owner of its device wants that. */
const ISLAND = 'owner.island'

/** The sessions of the device end: policy is told that its owner has cut it off. */
function cutOff(listener: TunnelListener, device: string): void {
  listener.registry.cutOff(device)
  const withdrawal = { trigger: 'device', at: performance.now() } as const
  listener.reauthorization
    .withdraw((session) => session.device === device, withdrawal)
    .catch((error: unknown) => listener.report(error, `the sessions of ${device} could not be cut`))
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
    // Nobody gets in for want of a record; on a full disk, too, the device is to hear why.
    await recordRefusal(listener, from, turned).catch((error: unknown) =>
      listener.report(error, `that a device was turned away could not be recorded (${code})`),
    )
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
      // Who dials is not cut off.
      ...deviceFacts(device, undefined, false),
      cert: { serial: peer.serial, not_after: Math.floor(peer.notAfter / 1000) },
    },
    tunnel: { peer_device_id: peer.device, peer_ip: from === '' ? null : from },
  })
  if (decision.allow) return { device, peer }
  const [first] = toldIn(device.zone, decision.denials, listener.decisions)
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
