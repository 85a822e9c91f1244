/**
 * The composition root: every part of a node is made here, in the order in which it may be needed,
 * and undone in the reverse order when the block is left.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { AddressInfo } from 'node:net'
import type { Logger } from 'pino'
import { shipSyslog, type ActiveLine, type Shipper } from '#audit'
import { est, instant, stillStands, type PendingStore } from '#ca'
import { systemClock } from '#tunnel'
import { AppSignIns } from './access/apps.ts'
import { AppForwarder } from './access/http.ts'
import { edgeCertificate } from './authority.ts'
import { splitHostPort, type Config } from './config.ts'
import type { Decisions } from './decisions.ts'
import { InventoryWatch } from './devices/drift.ts'
import { Registry } from './devices/presence.ts'
import { cutRevoked, type RevocationRoom } from './devices/revoke.ts'
import { decideIssuance, estSetup, inventory, type EstSetup } from './enrolment.ts'
import { now, openFoundation, originOf, publicPort, type Foundation } from './foundation.ts'
import { openHttpsSinks } from './sinks.ts'
import { VERSION } from './version.ts'
import { Admission, DEFAULT_ADMISSION } from './listen/admission.ts'
import { createApi, type Api } from './listen/api.ts'
import { createEdge, type Edge, type EdgeCertificate } from './listen/edge.ts'
import { estHandler } from './listen/est.ts'
import { dispatch, dispatchUpgrade, type Handler } from './listen/front.ts'
import type { TunnelListener } from './listen/listener.ts'
import { openOperations, type Health, type Operations } from './listen/operations.ts'
import { refusePage } from './listen/page.ts'
import { Quiet } from './listen/quiet.ts'
import { Publication } from './listen/revocation.ts'
import { auditorRoutes } from './listen/routes/auditors.ts'
import { baselineRoutes } from './listen/routes/baseline.ts'
import { certificateRoutes } from './listen/routes/certificates.ts'
import { deviceRoutes } from './listen/routes/devices.ts'
import { enrolmentRoutes } from './listen/routes/enrolments.ts'
import { lockRoutes } from './listen/routes/locks.ts'
import { grantRoutes } from './listen/routes/grants.ts'
import { idpRoutes } from './listen/routes/idps.ts'
import { logRoutes } from './listen/routes/log.ts'
import { passkeyRoutes } from './listen/routes/passkeys.ts'
import { policyRoutes } from './listen/routes/policy.ts'
import { peopleRoutes } from './listen/routes/people.ts'
import { recordingRoutes } from './listen/routes/recordings.ts'
import { tokenRoutes } from './listen/routes/tokens.ts'
import { witnessRoutes } from './listen/routes/witness.ts'
import { sessionRoutes } from './listen/routes/sessions.ts'
import { keepSources } from './listen/sources.ts'
import { Allowance } from './listen/allowance.ts'
import { acceptTunnel } from './listen/tunnel.ts'
import { Locks } from './locks/locks.ts'
import { openPolicy, type NodePolicy } from './policy/node.ts'
import { BundleServer } from './policy/publish.ts'
import type { PolicyService } from './policy/service.ts'
import type { AuditorStore } from './recordings/auditors.ts'
import { Recordings } from './recordings/recordings.ts'
import { Reauthorization } from './sessions/reevaluate.ts'
import type { SessionRoom } from './sessions/room.ts'
import { WitnessRoom } from './witnesses.ts'
import { watchFlows } from './sessions/stats.ts'
import { SqliteAuditorStore } from './store/sqlite/auditors.ts'
import { SqliteDeviceStore } from './store/sqlite/devices.ts'
import { SqlitePendingStore } from './store/sqlite/enrolments.ts'
import { SqliteGrantStore } from './store/sqlite/grants.ts'
import { SqliteInventoryStore } from './store/sqlite/inventories.ts'
import { SqliteLockStore } from './store/sqlite/locks.ts'
import { SqliteSessionStore } from './store/sqlite/sessions.ts'

/** Where people and programs find a running node. */
export interface Addresses {
  readonly listen: AddressInfo
  readonly operations: AddressInfo
  readonly origin: string
}

/** A part that is undone when the node stops; the stack keeps the order. */
type Undo = AsyncDisposableStack
type Report = (error: unknown, what: string) => void

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

  const policy = await openPolicy(config, { log, now, report }, undo)
  const { decisions } = policy
  const { revision } = policy.service.status()
  const access = await openAccess(config, foundation, decisions, report, undo)
  const witnesses = new WitnessRoom(log, config.witnesses, now)
  const shippers = openShippers(config, foundation)
  for (const shipper of shippers) undo.use(shipper)
  undo.use(watchSinks(shippers, logger))
  undo.defer(onLogState(foundation, access, report))
  policy.service.serve({
    decisions,
    replay: policy.replay,
    preview: (decide) => access.reauthorization.preview(decide),
    withdraw: (withdrawal) => access.reauthorization.withdraw(() => true, withdrawal),
  })
  if (policy.source !== undefined) undo.use(policy.source).start()
  const setup = estSetup(config.est)
  const admission = openAdmission(config, report, undo)
  const proven = (address: string) => admission.proven(address, performance.now())
  const web = { setup, report, proven, witnesses }
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
      { shippers, witnesses },
      policy.service,
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

/** Devices, sessions, and what carries them. */
interface Access {
  readonly registry: Registry
  readonly inventories: InventoryWatch
  readonly room: SessionRoom
  readonly reauthorization: Reauthorization
  readonly locks: Locks
  readonly signIns: AppSignIns
  readonly apps: AppForwarder
  readonly recordings: Recordings
  readonly auditors: AuditorStore
}

async function openAccess(
  config: Config,
  { thread, log, identity, caStore }: Foundation,
  decisions: Decisions,
  report: Report,
  undo: Undo,
): Promise<Access> {
  const registry = new Registry()
  const signIns = new AppSignIns()
  const auditors = new SqliteAuditorStore(thread)
  const recordings = openRecordings(config, { auditors, log, report })
  const room: SessionRoom = {
    log,
    store: new SqliteSessionStore(thread),
    grants: new SqliteGrantStore(thread),
    devices: new SqliteDeviceStore(thread),
    registry,
    decisions,
    identity,
    live: new Map(),
    recordings,
    stands: (peer) => stillStands(peer, { store: caStore, now: instant(now()) }),
    now,
    report,
    ended: (session) => {
      apps.close(session.id)
      signIns.forget(session.id)
    },
  }
  const apps = undo.use(new AppForwarder({ room, log, signIns, refuse: refusePage }))
  await closeCrashed(room)
  await recordings.recover()
  undo.use(watchFlows(room))
  log.setHeartbeat(() => heartbeatOf(room))
  const reauthorization = undo.use(new Reauthorization(room))
  const store = new SqliteInventoryStore(thread)
  const watching = { store, log, reauthorization, clock: systemClock, now, report }
  const inventories = undo.use(new InventoryWatch(watching))
  identity.onChange(({ subject }) => {
    const at = performance.now()
    const touches = (session: { subject: { id: string } }) => session.subject.id === subject
    void reauthorization.withdraw(touches, { trigger: 'identity', at })
  })
  // From here on no decision is made without them.
  const locks = await Locks.open({ store: new SqliteLockStore(thread), log, now })
  decisions.locks = locks
  const inside = { registry, inventories, room, reauthorization, locks }
  return { ...inside, signIns, apps, recordings, auditors }
}

const RECORDING_BYTES = 256 * 1024 * 1024
const FLOOR_BYTES = 64 * 1024 * 1024

function openRecordings(
  { data, recordings: settings = {} }: Config,
  { auditors, log, report }: { auditors: AuditorStore; log: Foundation['log']; report: Report },
): Recordings {
  return new Recordings({
    directory: join(data, 'recordings'),
    auditors,
    log,
    floorBytes: settings.floor_bytes ?? FLOOR_BYTES,
    sessionBytes: settings.session_bytes ?? RECORDING_BYTES,
    terminalInput: settings.terminal_input ?? false,
    version: VERSION,
    now,
    random: (bytes) => randomBytes(bytes),
    report,
  })
}

/** The sessions whose start is in the log: one that is still opening has no place there yet. */
function heartbeatOf({ live }: SessionRoom): ActiveLine[] {
  return [...live.values()]
    .filter(({ state }) => state !== 'opening')
    .map(({ id, grant, device, process, subject, kind, startIdx }) => ({
      session: id,
      grant,
      device,
      process,
      party: subject.party,
      kind,
      startIdx,
    }))
}

/** What cannot be recorded must not go on: every session ends when the log is lost. Gives what stops it. */
function onLogState(
  { log, logger }: Foundation,
  { room, reauthorization }: Access,
  report: Report,
): () => void {
  const why = { reason: 'audit_state', code: 'log.unavailable' } as const
  return log.onState((state, detail) => {
    const level = state === 'OK' ? 'info' : state === 'DRAIN' ? 'error' : 'warn'
    logger[level]({ state, detail }, 'audit log changed its state')
    if (state !== 'DRAIN') return
    for (const session of room.live.values())
      reauthorization
        .end(session, { ...why, message: 'the log cannot be written' })
        .catch((error: unknown) =>
          report(error, `the end of session ${session.id} could not be recorded`),
        )
  })
}

/** The log's own recovery wrote `session.end` for what a crash left open; the list follows it. */
async function closeCrashed(room: SessionRoom): Promise<void> {
  const at = Math.floor(room.now() / 1000)
  for (const { id, bytes_in, bytes_out, connections } of await room.store.open())
    await room.store.end({
      id,
      at,
      reason: 'node_crash',
      bytes_in,
      bytes_out,
      connections,
      time_to_cut_ms: null,
    })
}

function openShippers(config: Config, { log }: Foundation): Shipper[] {
  const syslog = config.syslog.map((sink) =>
    shipSyslog(log, {
      name: sink.name,
      host: sink.host,
      port: sink.port,
      ca: readFileSync(sink.ca_file),
      ...(sink.cert_file === undefined ? {} : { cert: readFileSync(sink.cert_file) }),
      ...(sink.key_file === undefined ? {} : { key: readFileSync(sink.key_file) }),
      ...(sink.servername === undefined ? {} : { servername: sink.servername }),
      enterpriseNumber: sink.enterprise_number ?? 32_473,
      format: sink.format ?? 'ocsf',
    }),
  )
  return [...syslog, ...openHttpsSinks(config.sinks, log)]
}

const SINK_CHECK_MS = 10_000

/** Says in the node's own log when a sink is down, behind or well again: each at most once a minute. */
function watchSinks(shippers: readonly Shipper[], logger: Logger): Disposable {
  const told = new Map<string, { readonly state: string; readonly at: number }>()
  const timer = setInterval(() => {
    const at = performance.now()
    for (const shipper of shippers) {
      const { name, state, lastError } = shipper.health()
      const last = told.get(name)
      if (state === (last?.state ?? 'OK') || (last !== undefined && at - last.at < 60_000)) continue
      told.set(name, { state, at })
      const level = state === 'OK' ? 'info' : 'warn'
      logger[level]({ sink: name, state, lag: shipper.lag().events, lastError }, 'sink')
    }
  }, SINK_CHECK_MS)
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

interface Web {
  readonly setup: EstSetup
  readonly report: Report
  /** Somebody at this address has proven to belong here. */
  readonly proven: (address: string) => void
  readonly witnesses: WitnessRoom
}

/** Everything that speaks HTTP on the one port. */
async function openHttp(
  config: Config,
  foundation: Foundation,
  policy: NodePolicy,
  access: Access,
  { setup, report, proven, witnesses }: Web,
  undo: Undo,
): Promise<Handler> {
  const { authority, caStore, caLog, identity, thread } = foundation
  const { decisions } = policy
  const { devices } = access.room
  const publication = undo.use(await openPublication(config, foundation, access, report))
  const pending = new SqlitePendingStore(thread)
  const api = undo.use(
    await createApi({
      version: VERSION,
      identity,
      now,
      report,
      proven,
      routes(calls) {
        addRoutes(calls, config, foundation, policy, access, publication, pending)
        witnessRoutes(calls, { decisions, log: foundation.log, room: witnesses })
      },
    }),
  )
  const enrol = est({
    ...setup.options,
    pending,
    tenant: config.tenant,
    store: caStore,
    issuers: () => authority.issuers,
    devices: inventory(devices),
    decide: decideIssuance(decisions),
    log: caLog,
    now: () => instant(now()),
    random: (bytes) => randomBytes(bytes),
    failed: (error, requestId) => report(error, `enrolment request ${requestId}`),
    issued: async ({ device }) => {
      await devices.move(device, ['pending'], 'active')
    },
  })
  return dispatch({
    appsDomain: config.apps_domain,
    est: estHandler(enrol, { report, proven }),
    revocation: publication.handle,
    oidc: (request, response) => identity.handle(request, response),
    api,
    app: (request, response, label) => access.apps.handle(request, response, label),
  })
}

/** Carries out what a crash left intended, then publishes the first lists; before anybody is admitted. */
async function openPublication(
  { tenant, gateway }: Config,
  { authority, caStore, caLog }: Foundation,
  { registry, room, reauthorization }: Access,
  report: Report,
): Promise<Publication> {
  const open = { registry, live: room.live, reauthorization, report }
  const issuers = () => authority.issuers
  return await Publication.open({
    tenant,
    gateway,
    issuers,
    store: caStore,
    log: caLog,
    cut: async (row) => {
      await cutRevoked(open, row, { by: 'gateway', at: performance.now() })
    },
    now,
    report,
  })
}

function revocationRoom(
  { tenant }: Config,
  { caStore: store, caLog: log }: Pick<Foundation, 'caStore' | 'caLog'>,
  { registry, room, reauthorization }: Pick<Access, 'registry' | 'room' | 'reauthorization'>,
  { revoked }: Publication,
): RevocationRoom {
  const { live, report } = room
  return { tenant, store, log, registry, live, reauthorization, revoked, now, report }
}

/** Who is behind an identity of ours; one that is not there any more stands for itself. */
function personsOf({ issuer, accounts }: Foundation['identity']) {
  return async (identity: string): Promise<string> => {
    const account = identity.startsWith(`${issuer}|`)
      ? await accounts.find(identity.slice(issuer.length + 1))
      : undefined
    return account?.person ?? identity
  }
}

function addRoutes(
  calls: Api,
  config: Config,
  { log, identity, authority, caStore, caLog }: Foundation,
  { decisions, service, journal }: NodePolicy,
  { registry, inventories, room, reauthorization, locks, signIns, recordings, auditors }: Access,
  publication: Publication,
  pending: PendingStore,
): void {
  const { tenant } = config
  const { devices, grants } = room
  const origin = originOf(config)
  peopleRoutes(calls, {
    decisions,
    log,
    identity,
    info: {
      product: 'sallyport',
      version: VERSION,
      tenant,
      gateway: config.gateway,
      issuer: identity.issuer,
      client_id: identity.clientId,
      resource: identity.audience,
      apps_domain: config.apps_domain,
      // After a rollover of the root: the new one, without a restart.
      get ca_sha256() {
        return authority.rootSha256
      },
    },
  })
  const caSha256 = () => authority.rootSha256
  const tokens = { tenant, store: caStore, origin, caSha256, now }
  const revocation = revocationRoom(
    config,
    { caStore, caLog },
    { registry, room, reauthorization },
    publication,
  )
  const guard = { decisions, log }
  const stock = {
    devices,
    registry,
    inventories,
    caStore,
    tokens,
    reauthorization,
    revocation,
    now,
  }
  deviceRoutes(calls, { ...guard, ...stock })
  baselineRoutes(calls, { ...guard, devices, inventories, now })
  tokenRoutes(calls, { ...guard, devices, caStore, revocation, tokens, now })
  const crls = () => publication.lists()
  const issuers = () => authority.issuers
  certificateRoutes(calls, { ...guard, tenant, origin, caStore, revocation, crls, issuers })
  enrolmentRoutes(calls, { decisions, log, tenant, pending, now })
  idpRoutes(calls, { decisions, log, identity })
  const personOf = personsOf(identity)
  const grantRoom = { tenant, store: grants, devices, registry, decisions, log, personOf, now }
  const granting = { decisions, log, grants: grantRoom, reauthorization }
  grantRoutes(calls, granting)
  passkeyRoutes(calls, { ...granting, identity, origin, now })
  const appOrigin = (process: string, device: string) =>
    `https://${process}--${device}.${config.apps_domain}:${publicPort(config)}`
  sessionRoutes(calls, { decisions, log, room, reauthorization, signIns, appOrigin })
  const { live } = room
  lockRoutes(calls, { decisions, log, locks, identity, devices, live, reauthorization })
  logRoutes(calls, { decisions, log })
  recordingRoutes(calls, { ...guard, directory: recordings.directory })
  auditorRoutes(calls, { ...guard, auditors, now, random: (bytes) => randomBytes(bytes) })
  policyRoutes(calls, { decisions, log, policy: service, journal, identity, room, personOf })
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
  { registry, inventories, room, reauthorization, apps }: Access,
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
    now,
    report,
    refused: (code, from, detail, suppressed) =>
      logger.warn({ code, from, detail, suppressed }, 'tunnel refused'),
    quiet: new Quiet(),
    allowance: new Allowance(),
    sessions: new Allowance(0.5, 8),
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
        app: (request, socket, head, label) => apps.upgrade(request, socket, head, label),
      }),
      onFault: (code, from, suppressed) =>
        logger.warn({ code, from, suppressed }, 'connection refused'),
      admission,
      onTunnel: (socket) => void acceptTunnel(tunnels, socket, ++epoch),
    }),
  )
  undo.use(renewing(config, foundation, edge, setup, first.renewAt, report))
  return edge
}

const RENEWAL_CHECK_MS = 3_600_000
/** How soon a running node takes over what `sallyport ca` changed. */
const CA_CHECK_MS = 2_000

/** The handshake asks for makers' certificates too; only EST, never a tunnel, takes them. */
function alsoAsking(
  certificate: EdgeCertificate,
  { clientAuthorities }: EstSetup,
): EdgeCertificate {
  const all = [...certificate.clientAuthorities, ...clientAuthorities]
  return { ...certificate, clientAuthorities: all }
}

/** Replaces the port's certificate at two thirds of its life; tries again each hour where that fails. */
function renewing(
  config: Config,
  { authority, caStore, caLog }: Foundation,
  edge: Edge,
  setup: EstSetup,
  renewAt: number,
  report: Report,
): Disposable {
  let due = renewAt
  let trying = false
  const renew = async (changed: boolean): Promise<void> => {
    if (trying || (!changed && now() < due)) return
    trying = true
    try {
      const next = await edgeCertificate(config, authority, caStore, caLog, now())
      edge.renew(alsoAsking(next.certificate, setup))
      due = next.renewAt
    } catch (error) {
      // Asked for by a change of CA, it is tried again with the hourly look.
      if (changed) due = 0
      report(error, 'the certificate of the port could not be renewed')
    } finally {
      trying = false
    }
  }
  const timer = setInterval(() => void renew(false), RENEWAL_CHECK_MS)
  const watch = setInterval(() => {
    authority.refresh().then(
      (changed) => void (changed && renew(true)),
      (error: unknown) =>
        report(error, 'the CA as it was changed cannot be used; the old one goes on'),
    )
  }, CA_CHECK_MS)
  for (const each of [timer, watch]) each.unref()
  return {
    [Symbol.dispose]() {
      clearInterval(timer)
      clearInterval(watch)
    },
  }
}

async function openHealth(
  config: Config,
  { log, thread }: Foundation,
  { registry, room }: Access,
  {
    shippers,
    witnesses,
  }: { readonly shippers: readonly Shipper[]; readonly witnesses: WitnessRoom },
  policy: PolicyService,
  serving: () => boolean,
): Promise<Operations> {
  const { host, port } = splitHostPort(config.operations)
  const revision = (): string | null => policy.status().revision
  const bundles = new BundleServer({
    digest: () => policy.status().bundle_digest,
    archive: () => policy.archive(),
  })
  const health = (): Health => ({
    parts: {
      log: log.state === 'OK' || log.state === 'WARN',
      store: thread.open,
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
    policy_revision: revision(),
    sinks: shippers.map((shipper) => {
      const { name, state, lastError } = shipper.health()
      return { name, state, lag: shipper.lag().events, last_error: lastError }
    }),
    witnesses: witnesses.status().map(({ name, cosigned, behind }) => ({
      name,
      cosigned_at: cosigned?.at ?? null,
      behind,
    })),
  })
  return await openOperations(host, port, health, bundles)
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
