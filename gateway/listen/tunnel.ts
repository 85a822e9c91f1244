/** The tunnel end of the one port: who is this, may they connect, and what their tunnel then serves. */
import type { TLSSocket } from 'node:tls'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { AuditLog } from '#audit'
import { instant, verifyPeer, type CaStore, type Issuers, type Peer } from '#ca'
import { driveTunnel, MuxError, type Offer, type Tunnel, type TunnelStream } from '#tunnel'
import { serveClient } from '../access/tcp.ts'
import { refOf, type Decisions } from '../decisions.ts'
import type { Device, DeviceStore } from '../devices/device.ts'
import type { DeviceTls, Presence, Registry } from '../devices/presence.ts'
import { deviceFacts, plainAddress } from '../facts.ts'
import type { Reauthorization } from '../sessions/reevaluate.ts'
import { TargetsSchema, toListeners, toObserved } from '../sessions/observed.ts'
import type { SessionRoom } from '../sessions/room.ts'

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
  /** Told of every connection that was refused, for the node's own log. */
  readonly refused: (code: string, from: string, detail: string) => void
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
/** Longest line of a report. */
const REPORT_LIMIT = 256 * 1024
const decoder = new TextDecoder('utf-8', { fatal: true })
const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

/** Takes over a TLS connection that negotiated `sallyport/1`. Never throws. */
export async function acceptTunnel(
  listener: TunnelListener,
  socket: TLSSocket,
  epoch: number,
): Promise<void> {
  const from = plainAddress(socket.remoteAddress ?? '')
  try {
    const chain = presentedChain(socket)
    const tunnel = await driveTunnel(socket, {
      role: 'gateway',
      side: 'acceptor',
      instance: listener.gateway,
      epoch,
    })
    if (tunnel.peer.role === 'agent') await admitAgent(listener, socket, tunnel, chain, epoch, from)
    else if (tunnel.peer.role === 'client')
      serveClient(listener.room, {
        tunnel,
        exporter: socket.exportKeyingMaterial(32, 'EXPORTER-sallyport-session', Buffer.alloc(0)),
      })
    else {
      listener.refused('peer.role', from, tunnel.peer.role)
      tunnel.close('peer.role', 'a gateway does not take tunnels of this role')
    }
  } catch (error) {
    socket.destroy()
    if (error instanceof MuxError) listener.refused(error.code, from, error.message)
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
    cipher: socket.getCipher().standardName,
    group: hello.tls.group,
    pq: hello.tls.group?.includes('MLKEM') ?? false,
  }
  await listener.log.append({
    code: 'tunnel.up',
    message: `tunnel of ${admission.device.id} up`,
    status: 'success',
    disposition: 'allowed',
    device: admission.device.id,
    src: from === '' ? undefined : { ip: from },
    data: {
      tunnel: `${listener.gateway}/${epoch}`,
      tls_version: tls.version,
      cipher: tls.cipher,
      group: tls.group ?? 'unknown',
      serial: admission.peer.serial,
      agent_version: hello.agent.version,
      clock_offset_ms: Math.round(hello.agent.now_ms - listener.now()),
      epoch,
    },
  })
  await listener.caStore.proven(admission.peer.serial, instant(listener.now()))
  const presence: Presence = {
    device: admission.device.id,
    tunnel,
    peer: admission.peer,
    tls,
    agent: { version: hello.agent.version, version_int: hello.agent.version_int },
    epoch,
    since: listener.now(),
    listeners: toListeners(hello.targets),
  }
  const replaced = listener.registry.put(presence)
  const control = offer.accept(
    encode({
      v: 1,
      device: presence.device,
      now_ms: listener.now(),
      gateway: listener.gateway,
      epoch,
    }),
  )
  readReports(listener, presence, control)
  replaced?.tunnel.close('tunnel.replaced', 'a newer tunnel of this device took over')
  void tunnel.closed.then((why) => down(listener, presence, why.code))
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
    ids?: { id: string; revision: string; codes: readonly string[] },
  ) => {
    listener.refused(code, from, message)
    await listener.log.append({
      code: 'tunnel.down',
      message: `tunnel refused: ${code}`,
      status: 'failure',
      disposition: 'blocked',
      reason: code,
      device: device ?? 'unknown',
      src: from === '' ? undefined : { ip: from },
      decisions: ids === undefined ? undefined : [ids],
      data: { tunnel: 'refused' },
    })
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
    else offer.refuse('stream.unexpected', 'an agent opens its control stream only')
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
  let pending = ''
  const text = new TextDecoder('utf-8')
  control.onData = (chunk) => {
    pending += text.decode(chunk, { stream: true })
    control.consumed(chunk.length)
    if (pending.length > REPORT_LIMIT) {
      presence.tunnel.close('control.limit', 'a report is too long')
      return
    }
    for (let at = pending.indexOf('\n'); at !== -1; at = pending.indexOf('\n')) {
      const line = pending.slice(0, at)
      pending = pending.slice(at + 1)
      if (!report(listener, presence, line)) {
        presence.tunnel.close('control.report', 'a report is not of the protocol')
        return
      }
    }
  }
  control.onClose = () => presence.tunnel.close('control.closed', 'the control stream ended')
}

function report(listener: TunnelListener, presence: Presence, line: string): boolean {
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
      session.observed = Value.Check(TargetsSchema, [
        { process: 'x', kind: 'tcp', listener: value.observed },
      ])
        ? toObserved(value.observed as Parameters<typeof toObserved>[0])
        : null
      void listener.reauthorization.withdraw((one) => one === session, { trigger: 'process', at })
      return true
    }
  }
}

async function down(listener: TunnelListener, presence: Presence, code: string): Promise<void> {
  const was = listener.registry.remove(presence.device, presence.tunnel)
  const reason = was === undefined ? 'tunnel.replaced' : code
  await listener.log
    .append({
      code: 'tunnel.down',
      message: `tunnel of ${presence.device} down: ${reason}`,
      status: 'success',
      reason,
      device: presence.device,
      data: {
        tunnel: `${listener.gateway}/${presence.epoch}`,
        duration_ms: Math.max(0, Math.round(listener.now() - presence.since)),
      },
    })
    .catch((error: unknown) =>
      listener.report(error, `the end of the tunnel of ${presence.device} could not be recorded`),
    )
}
