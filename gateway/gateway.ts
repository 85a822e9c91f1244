/**
 * The composition root: every part of a node is made here, in the order in which it may be needed,
 * and undone in the reverse order when the block is left.
 */
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { AddressInfo } from 'node:net'
import type { Logger } from 'pino'
import type { Shipper } from '#audit'
import { edgeCertificate } from './authority.ts'
import type { SteadyClock } from './clock.ts'
import { splitHostPort, type Config } from './config.ts'
import type { Decisions } from './decisions.ts'
import { estSetup } from './enrolment.ts'
import {
  clock,
  now,
  openFoundation,
  originOf,
  type Foundation,
  type Report,
  type Undo,
} from './foundation.ts'
import { VERSION } from './version.ts'
import { Admission, DEFAULT_ADMISSION } from './listen/admission.ts'
import { createEdge, type Edge } from './listen/edge.ts'
import { dispatchUpgrade, type Handler } from './listen/front.ts'
import type { TunnelListener } from './listen/listener.ts'
import { openOperations, type Health, type Operations } from './listen/operations.ts'
import { Quiet } from './listen/quiet.ts'
import { keepSources } from './listen/sources.ts'
import { Allowance } from './listen/allowance.ts'
import { acceptTunnel } from './listen/tunnel.ts'
import { openComparison, type PolicyComparison } from './policy/comparison.ts'
import { openPolicy, type NodePolicy } from './policy/node.ts'
import { BundleServer } from './policy/publish.ts'
import { reporting } from './policy/report.ts'
import { networksOf } from './networks.ts'
import { foresee } from './sessions/foresee.ts'
import { Retention } from './retention.ts'
import { Rotation } from './rotation.ts'
import { WitnessRoom } from './witnesses.ts'
import { openHttp, type Web } from './http.ts'
import { openShippers, watchSinks } from './shipping.ts'
import { onLogState, openAccess, type Access } from './live.ts'
import { alsoAsking, renewing } from './renewal.ts'

/** Where people and programs find a running node. */
export interface Addresses {
  readonly listen: AddressInfo
  readonly operations: AddressInfo
  readonly origin: string
}

/**
 * Runs a node until `signal` aborts; resolves when it has stopped. Rejects when it cannot start:
 * ConfigError, DirectoryInUse, KeyError, AuditError, PolicyError, or the port's own error.
 */
export async function serve(
  config: Config,
  signal: AbortSignal,
  ready: (addresses: Addresses) => void,
): Promise<void> {
  await using foundation = await openFoundation(config)
  await using undo = new AsyncDisposableStack()
  const { logger, log, identity } = foundation
  const report: Report = (error, what) => logger.error({ err: error }, what)

  const policy = await openPolicy(config, { log, ended: log.ended, now, report }, undo)
  const { decisions } = policy
  const { revision } = policy.service.status()
  const access = await openAccess(config, foundation, decisions, report, undo)
  const witnesses = new WitnessRoom(log, config.witnesses, now, log.ended)
  const shippers = openShippers(config, foundation)
  for (const shipper of shippers) undo.use(shipper)
  undo.use(watchSinks(shippers, logger))
  undo.use(watchClock(clock, logger))
  undo.defer(onLogState(foundation, access, report))
  policy.service.serve({
    decisions,
    replay: policy.replay,
    preview: (decide) => foresee(access.room, decide),
    withdraw: (withdrawal) => access.reauthorization.withdraw(() => true, withdrawal),
  })
  if (policy.source !== undefined) undo.use(policy.source).start()
  const parts = { log, now, report }
  const comparison = openComparison(config, foundation.stores.policies, policy, parts)
  if (comparison !== undefined) undo.use(comparison)
  const setup = estSetup(config.est)
  const admission = openAdmission(config, report, undo)
  const proven = (address: string) => admission.proven(address, performance.now())
  const retention = undo.use(new Retention(log, config.archive, now, report))
  const rotation = undo.use(
    new Rotation({ log, data: config.data, now, report, policy: policy.service }),
  )
  undo.defer(log.onEpoch(() => witnesses.follow(log.ended)))
  const web = { setup, report, proven, witnesses, retention, rotation, comparison }
  const front = await openHttp(config, foundation, policy, access, web, undo)
  const door = { ...web, admission, front }
  const edge = await openEdge(config, foundation, decisions, access, door, undo)

  const { host, port } = splitHostPort(config.listen)
  const listen = await edge.listen(host, port)
  let serving = true
  const operations = undo.use(
    await openHealth(
      config,
      foundation,
      access,
      { shippers, witnesses, comparison },
      policy,
      () => serving,
    ),
  )
  ready({ listen, operations: operations.address, origin: originOf(config) })
  logger.info(
    {
      listen: `${listen.address}:${listen.port}`,
      operations: `${operations.address.address}:${operations.address.port}`,
      origin: originOf(config),
      tenant: config.tenant,
      ca_sha256: foundation.authority.rootSha256,
      policy: revision,
      bootstrap: identity.bootstrapFile,
      recovered: log.recovered.size,
    },
    'ready',
  )
  for (const warning of foundation.authority.warnings) logger.warn(warning)

  await aborted(signal)
  serving = false
  logger.info('stopping')
  edge.stop()
  await drain(config, access)
  await endEverything(access)
  await policy.journal.anchor()
  await log.append({
    code: 'node.stop',
    message: 'gateway stopping',
    status: 'success',
    data: { version: VERSION },
  })
  await Promise.allSettled(shippers.map((shipper) => shipper.flush(2000)))
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

const CLOCK_CHECK_MS = 10_000

/** Says in the node's own log when the clock of the machine was set back, and when it has caught up. */
function watchClock({ held }: Pick<SteadyClock, 'held'>, logger: Logger): Disposable {
  let told = 0
  const timer = setInterval(() => {
    const seconds = Math.round(held() / 1000)
    if (Math.abs(seconds - told) < 5 && (seconds === 0) === (told === 0)) return
    told = seconds
    const says =
      seconds > 0 ? 'the clock was set back: time goes on without it' : 'the clock is right'
    logger[seconds > 0 ? 'warn' : 'info']({ held_s: seconds }, says)
  }, CLOCK_CHECK_MS)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** Who may begin a handshake, with what was known of them before this start. */
function openAdmission(config: Config, report: Report, undo: Undo): Admission {
  const admission = new Admission(
    {
      ...DEFAULT_ADMISSION,
      perSource: config.handshakes_per_source,
      strangers: config.handshakes_of_strangers,
      open: config.connections_per_source,
    },
    performance.now(),
  )
  const file = join(config.data, 'known-sources.json')
  const clocks = { date: now, monotonic: () => performance.now() }
  undo.use(keepSources(admission, { file, clocks, report }))
  return admission
}

interface Door {
  readonly admission: Admission
  readonly front: Handler
}

/** The one port, with a certificate that is replaced in time. */
async function openEdge(
  config: Config,
  foundation: Foundation,
  decisions: Decisions,
  { registry, inventories, room, reauthorization, openings, apps, sockets, rollouts }: Access,
  { setup, report, proven, witnesses, admission, front }: Web & Door,
  undo: Undo,
): Promise<Edge> {
  const { authority, caStore, caLog, log, logger } = foundation
  const tunnels: TunnelListener = {
    tenant: config.tenant,
    gateway: config.gateway,
    issuers: () => authority.issuers,
    caStore,
    devices: room.devices,
    registry,
    inventories,
    decisions,
    log,
    witnesses,
    room,
    reauthorization,
    rollouts,
    now,
    report,
    refused: (code, from, detail, suppressed) =>
      logger.warn({ code, from, detail, suppressed }, 'tunnel refused'),
    quiet: new Quiet(),
    allowance: new Allowance(),
    sessions: new Allowance(0.5, 8),
    openings,
    proven,
  }
  // Later starts count on from a later instant, so that a device's newest tunnel is known across them.
  let epoch = now()
  const first = await edgeCertificate(config, authority, caStore, caLog, now())
  const edge = undo.use(
    createEdge({
      certificate: alsoAsking(first.certificate, setup),
      onRequest: front,
      onUpgrade: dispatchUpgrade({
        appsDomain: config.apps_domain,
        tunnel: (request, socket, head) =>
          void acceptTunnel(tunnels, socket, ++epoch, { request, head }),
        session: (request, socket, head) => sockets.handle(request, socket, head),
        app: (request, socket, head, label) => apps.upgrade(request, socket, head, label),
      }),
      onFault: (code, from, suppressed) =>
        logger.warn({ code, from, suppressed }, 'connection refused'),
      admission,
      balancers: networksOf(config.balancers),
      onTunnel: (socket) => void acceptTunnel(tunnels, socket, ++epoch),
    }),
  )
  undo.use(renewing(config, foundation, edge, setup, first.renewAt, report))
  return edge
}

async function openHealth(
  config: Config,
  { log, thread }: Foundation,
  { registry, room, glass, notices, changes }: Access,
  {
    shippers,
    witnesses,
    comparison,
  }: {
    readonly shippers: readonly Shipper[]
    readonly witnesses: WitnessRoom
    readonly comparison: PolicyComparison | undefined
  },
  policy: Pick<NodePolicy, 'service' | 'source' | 'journal'>,
  serving: () => boolean,
): Promise<Operations> {
  const { service, source } = policy
  const { host, port } = splitHostPort(config.operations)
  const revision = (): string | null => service.status().revision
  const bundles = new BundleServer({
    digest: () => service.status().bundle_digest,
    archive: () => service.archive(),
  })
  const health = (): Health => ({
    parts: {
      log: log.state === 'OK' || log.state === 'WARN',
      store: thread.open,
      ...(changes === undefined ? {} : { shared_store: changes.sighted && changes.writes }),
      policy: revision() !== null,
      serving: serving(),
    },
    devices: registry.size,
    sessions: room.live.size,
    log_state: log.state,
    log_space: {
      free: log.room.freeBytes,
      promised: log.room.reservedBytes,
      closeout: log.room.reserve?.closeout ?? 0,
      breakglass: log.room.reserve?.breakglass ?? 0,
      missing: log.room.reserve?.missing ?? 0,
    },
    break_glass: glass.health(),
    notices: notices?.health() ?? null,
    clock_held_s: Math.round(clock.held() / 1000),
    policy_revision: revision(),
    policy_source: source?.health() ?? null,
    policy_gateways: comparison?.health() ?? null,
    sinks: shippers.map((shipper) => {
      const { name, state, owed, lastError } = shipper.health()
      return { name, state, lag: shipper.lag().events, owed, last_error: lastError }
    }),
    witnesses: witnesses.status().map(({ name, cosigned, behind }) => ({
      name,
      cosigned_at: cosigned?.at ?? null,
      behind,
    })),
  })
  return await openOperations(host, port, { health, policy: reporting(config, policy), bundles })
}

const DRAIN_LOOK_MS = 250
/** When a device may come back to this node; where it has other addresses it goes there at once. */
const RETRY_AFTER_MS = 1000

/**
 * Takes nothing new: devices are told, with where else they may go, and keep serving the sessions
 * they have until the last one ends or the time is up.
 */
async function drain(
  { alternatives, drain_s: seconds }: Config,
  { room, registry }: Access,
): Promise<void> {
  const until = performance.now() + seconds * 1000
  do {
    // Again each time: a tunnel that was being admitted when the node was told to stop may come late.
    for (const { tunnel } of registry.all())
      if (!tunnel.draining) tunnel.goaway('node.draining', RETRY_AFTER_MS, alternatives)
    if (room.live.size === 0 || performance.now() >= until) return
    await setTimeout(DRAIN_LOOK_MS)
  } while (room.live.size > 0)
}

/** A node that stops says so to everybody it serves, and records each end. */
async function endEverything({ room, registry, reauthorization }: Access): Promise<void> {
  const why = { code: 'node.stopping', message: 'the gateway is going down' }
  await Promise.allSettled(
    [...room.live.values()].map((session) =>
      reauthorization.end(session, { reason: 'killed', ...why, by: 'node.stop' }),
    ),
  )
  for (const { tunnel } of registry.all()) tunnel.close(why.code, why.message)
}
