/**
 * The composition root: every part of a node is made here, in the order in which it may be needed,
 * and undone in the reverse order when the block is left.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pino, type Logger } from 'pino'
import { openLog, shipSyslog, type AuditLog, type Shipper } from '#audit'
import { est, instant, type CaEvent, type CaLog } from '#ca'
import { BUILTIN_BUNDLE, loadBundle, PolicyEngine } from '#policy'
import { AppSignIns } from './access/apps.ts'
import { AppForwarder } from './access/http.ts'
import { edgeCertificate, openAuthority, type Authority } from './authority.ts'
import { splitHostPort, type Config } from './config.ts'
import { Decisions } from './decisions.ts'
import type { DeviceState } from './devices/device.ts'
import { Registry } from './devices/presence.ts'
import { decideIssuance } from './enrolment.ts'
import { caEvent, identityEvent } from './events.ts'
import type { GrantRoom } from './grants/request.ts'
import { openIdentity, type Identity } from './identity/index.ts'
import { keyFile } from './keys/file.ts'
import { createApi } from './listen/api.ts'
import { createEdge, type Edge } from './listen/edge.ts'
import { estHandler } from './listen/est.ts'
import { dispatch } from './listen/front.ts'
import { openOperations, type Operations } from './listen/operations.ts'
import { refusePage } from './listen/page.ts'
import { deviceRoutes } from './listen/routes/devices.ts'
import { grantRoutes } from './listen/routes/grants.ts'
import { logRoutes } from './listen/routes/log.ts'
import { peopleRoutes } from './listen/routes/people.ts'
import { sessionRoutes } from './listen/routes/sessions.ts'
import { acceptTunnel } from './listen/tunnel.ts'
import type { LiveSession } from './sessions/live.ts'
import { Reauthorization } from './sessions/reevaluate.ts'
import type { SessionRoom } from './sessions/room.ts'
import { SqliteCaStore } from './store/sqlite/ca.ts'
import { SqliteDeviceStore } from './store/sqlite/devices.ts'
import { SqliteGrantStore } from './store/sqlite/grants.ts'
import { SqliteIdentityStore, SqliteOidcStore } from './store/sqlite/identity.ts'
import { lockDirectory } from './store/sqlite/lock.ts'
import { SqliteSessionStore } from './store/sqlite/sessions.ts'
import { SqliteThread } from './store/sqlite/thread.ts'

export const VERSION = '0.1.0'

/** Where people and programs find a running node. */
export interface Addresses {
  readonly listen: AddressInfo
  readonly operations: AddressInfo
  readonly origin: string
}

const now = () => Date.now()

/** What is opened from the data directory before anything listens. */
export interface Foundation extends AsyncDisposable {
  readonly logger: Logger
  readonly thread: SqliteThread
  readonly log: AuditLog
  readonly authority: Authority
  readonly identity: Identity
  readonly caStore: SqliteCaStore
  readonly caLog: CaLog
}

/** Lock, store, log, CA, identity: made at first start, opened ever after. */
export async function openFoundation(config: Config): Promise<Foundation> {
  await using undo = new AsyncDisposableStack()
  const logger = pino({ level: config.log_level, base: { gateway: config.gateway } })
  mkdirSync(config.data, { recursive: true, mode: 0o700 })
  undo.use(lockDirectory(join(config.data, 'lock')))
  const thread = undo.use(await SqliteThread.open(join(config.data, 'store.sqlite')))
  const log = undo.use(await openNodeLog(config))
  await log.append({
    code: 'node.start',
    message: `gateway ${config.gateway} starting`,
    status: 'success',
    data: { version: VERSION },
  })
  const authority = await openAuthority(config, now())
  const identity = undo.use(
    await openIdentity({
      origin: originOf(config),
      directory: config.data,
      store: new SqliteIdentityStore(thread),
      oidcStore: new SqliteOidcStore(thread),
      log: async (event) => void (await log.append(identityEvent(event))),
      now,
      report: (error, id) => logger.error({ err: error, id }, 'identity'),
    }),
  )
  const owned = undo.move()
  return {
    logger,
    thread,
    log,
    authority,
    identity,
    caStore: new SqliteCaStore(thread),
    caLog: async (event: CaEvent) => void (await log.append(caEvent(event))),
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  }
}

function originOf(config: Config): string {
  return `https://${config.public_host}:${publicPort(config)}`
}

function publicPort(config: Config): number {
  return config.public_port ?? splitHostPort(config.listen).port
}

async function openNodeLog(config: Config): Promise<AuditLog> {
  const keys = join(config.data, 'keys')
  const log = await openLog({
    directory: join(config.data, 'log', config.gateway, '1'),
    origin: `${config.tenant}/audit/${config.gateway}/1`,
    signers: {
      ed25519: keyFile(keys, 'log-ed25519', 'ed25519'),
      mlDsa44: keyFile(keys, 'log-ml-dsa-44', 'ml-dsa-44'),
    },
    clock: { now },
    random: (bytes) => randomBytes(bytes),
    node: config.gateway,
    version: VERSION,
    tenant: config.tenant,
  })
  writeFileSync(join(config.data, 'log-keys.txt'), log.vkeys.map((key) => `${key}\n`).join(''))
  return log
}

/**
 * Runs a node until `signal` aborts; resolves when it has stopped. Rejects when it cannot start:
 * ConfigError, DirectoryInUse, KeyError, AuditError, PolicyError, or the port's own error.
 */
export async function serve(config: Config, signal: AbortSignal, ready: (addresses: Addresses) => void): Promise<void> {
  await using foundation = await openFoundation(config)
  await using undo = new AsyncDisposableStack()
  const { logger, thread, log, authority, identity, caStore, caLog } = foundation
  const report = (error: unknown, what: string) => logger.error({ err: error }, what)

  const engine = PolicyEngine.unavailable()
  await engine.activate(await loadBundle(readFileSync(BUILTIN_BUNDLE), { trust: 'builtin', highWater: null }))
  const { revision } = engine.status()
  await log.append({
    code: 'policy.activate',
    message: 'built-in policy active',
    status: 'success',
    data: { revision: revision ?? 'none' },
  })
  const place = { tenant: config.tenant, gateway: config.gateway, site: config.site, timezone: config.timezone }
  const decisions = new Decisions(engine, place, now)

  const registry = new Registry()
  const devices = new SqliteDeviceStore(thread)
  const live = new Map<string, LiveSession>()
  const room: SessionRoom = {
    log,
    store: new SqliteSessionStore(thread),
    grants: new SqliteGrantStore(thread),
    devices,
    registry,
    decisions,
    identity,
    live,
    now,
    report,
    ended: (session) => {
      apps.close(session.id)
      signIns.forget(session.id)
    },
  }
  const signIns = new AppSignIns()
  const apps = undo.use(new AppForwarder({ room, log, signIns, refuse: refusePage }))
  await closeCrashed(room)
  log.setHeartbeat(() => [...live.values()].map(activeLine))
  const reauthorization = undo.use(new Reauthorization(room))
  identity.onChange(({ subject }) => {
    const at = performance.now()
    void reauthorization.withdraw((session) => session.subject.id === subject, { trigger: 'identity', at })
  })

  const shippers = openShippers(config, log)
  for (const shipper of shippers) undo.use(shipper)
  let stopping = false
  const tokens = { tenant: config.tenant, store: caStore, origin: originOf(config), caSha256: authority.rootSha256, now }
  const grants: GrantRoom = { tenant: config.tenant, store: room.grants, devices, registry, decisions, log, now }
  const info = {
    product: 'sallyport' as const,
    version: VERSION,
    tenant: config.tenant,
    gateway: config.gateway,
    issuer: identity.issuer,
    client_id: identity.clientId,
    resource: identity.audience,
    apps_domain: config.apps_domain,
    ca_sha256: authority.rootSha256,
  }
  const api = undo.use(
    await createApi({
      version: VERSION,
      identity,
      now,
      report,
      routes: (calls) => {
        peopleRoutes(calls, { decisions, log, identity, info })
        deviceRoutes(calls, { decisions, log, devices, registry, caStore, tokens, reauthorization, now })
        grantRoutes(calls, { decisions, log, grants, reauthorization })
        sessionRoutes(calls, {
          decisions,
          log,
          room,
          reauthorization,
          signIns,
          appOrigin: (process, device) => `https://${process}--${device}.${config.apps_domain}:${publicPort(config)}`,
        })
        logRoutes(calls, { decisions, log })
      },
    }),
  )
  const enrol = est({
    tenant: config.tenant,
    store: caStore,
    issuers: () => authority.issuers,
    devices,
    decide: decideIssuance(decisions),
    log: caLog,
    now: () => instant(now()),
    random: (bytes) => randomBytes(bytes),
    issued: async ({ device }) => {
      const pending: readonly DeviceState[] = ['pending']
      await devices.move(device, pending, 'active')
    },
  })
  const front = dispatch({
    appsDomain: config.apps_domain,
    est: estHandler(enrol, report),
    oidc: (request, response) => identity.handle(request, response),
    api,
    app: (request, response, label) => apps.handle(request, response, label),
  })

  const first = await edgeCertificate(config, authority, caStore, caLog, now())
  let epoch = now()
  const edge = undo.use(
    createEdge({
      certificate: first.certificate,
      onRequest: front,
      onUpgrade: (_request, socket) => socket.end('HTTP/1.1 501 Not Implemented\r\nconnection: close\r\ncontent-length: 0\r\n\r\n'),
      onFault: (code, from) => logger.warn({ code, from }, 'connection refused'),
      onTunnel: (socket) =>
        void acceptTunnel(
          {
            tenant: config.tenant,
            gateway: config.gateway,
            issuers: () => authority.issuers,
            caStore,
            devices,
            registry,
            decisions,
            log,
            room,
            reauthorization,
            now,
            report,
            refused: (code, from, detail) => logger.warn({ code, from, detail }, 'tunnel refused'),
          },
          socket,
          ++epoch,
        ),
    }),
  )
  undo.use(renewing(config, foundation, edge, first.renewAt, report))
  const { host, port } = splitHostPort(config.listen)
  const listen = await edge.listen(host, port)
  const operations = undo.use(await openHealth(config, { log, registry, live, revision, stopping: () => stopping }))
  ready({ listen, operations: operations.address, origin: originOf(config) })
  logger.info(
    {
      listen: `${listen.address}:${listen.port}`,
      operations: `${operations.address.address}:${operations.address.port}`,
      origin: originOf(config),
      tenant: config.tenant,
      ca_sha256: authority.rootSha256,
      policy: revision,
      bootstrap: identity.bootstrapFile,
      recovered: log.recovered.size,
    },
    'ready',
  )

  await aborted(signal)
  stopping = true
  logger.info('stopping')
  await edge.stop()
  await Promise.allSettled(
    [...live.values()].map((session) =>
      reauthorization.end(session, { reason: 'killed', code: 'node.stopping', message: 'the gateway is going down', by: 'node.stop' }),
    ),
  )
  for (const presence of registry.all()) {
    presence.tunnel.goaway('node.stopping', 1000)
    presence.tunnel.close('node.stopping', 'the gateway is going down')
  }
  await log.append({ code: 'node.stop', message: 'gateway stopping', status: 'success', data: { version: VERSION } })
  await Promise.allSettled(shippers.map((shipper) => shipper.flush(2000)))
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

/** The log's own recovery wrote `session.end` for what a crash left open; the list follows it. */
async function closeCrashed(room: SessionRoom): Promise<void> {
  for (const session of await room.store.open())
    await room.store.end({
      id: session.id,
      at: Math.floor(room.now() / 1000),
      reason: 'node_crash',
      bytes_in: session.bytes_in,
      bytes_out: session.bytes_out,
      connections: session.connections,
      time_to_cut_ms: null,
    })
}

function activeLine(session: LiveSession) {
  return {
    session: session.id,
    grant: session.grant,
    device: session.device,
    process: session.process,
    party: session.subject.party,
    kind: session.kind,
    startIdx: session.startIdx,
  }
}

function openShippers(config: Config, log: AuditLog): Shipper[] {
  return config.syslog.map((sink) =>
    shipSyslog(log, {
      name: sink.name,
      host: sink.host,
      port: sink.port,
      ca: readFileSync(sink.ca_file),
      ...(sink.cert_file === undefined ? {} : { cert: readFileSync(sink.cert_file) }),
      ...(sink.key_file === undefined ? {} : { key: readFileSync(sink.key_file) }),
      ...(sink.servername === undefined ? {} : { servername: sink.servername }),
      enterpriseNumber: sink.enterprise_number ?? 32_473,
    }),
  )
}

/** Replaces the port's certificate at two thirds of its life; tries again each hour where that fails. */
function renewing(
  config: Config,
  { authority, caStore, caLog }: Foundation,
  edge: Edge,
  renewAt: number,
  report: (error: unknown, what: string) => void,
): Disposable {
  let due = renewAt
  const timer = setInterval(() => {
    if (now() < due) return
    edgeCertificate(config, authority, caStore, caLog, now()).then(
      (next) => {
        due = next.renewAt
        edge.renew(next.certificate)
      },
      (error: unknown) => report(error, 'the certificate of the port could not be renewed'),
    )
  }, 3_600_000)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

interface HealthRoom {
  readonly log: AuditLog
  readonly registry: Registry
  readonly live: ReadonlyMap<string, LiveSession>
  readonly revision: string | null
  readonly stopping: () => boolean
}

async function openHealth(config: Config, room: HealthRoom): Promise<Operations> {
  const { host, port } = splitHostPort(config.operations)
  return await openOperations(host, port, () => ({
    parts: {
      log: room.log.state === 'OK' || room.log.state === 'WARN',
      policy: room.revision !== null,
      serving: !room.stopping(),
    },
    devices: room.registry.size,
    sessions: room.live.size,
    log_state: room.log.state,
    policy_revision: room.revision,
  }))
}
