/** What a node answers over HTTP: its routes, its pages, and what its CA publishes. */
import { randomBytes } from 'node:crypto'
import { est, instant, type PendingStore } from '#ca'
import type { Config } from './config.ts'
import { cutRevoked, type RevocationRoom } from './devices/revoke.ts'
import { actorOf, srcOf } from './events.ts'
import { decideIssuance, inventory, type EstSetup } from './enrolment.ts'
import { now, originOf, publicPort, type Foundation, type Report, type Undo } from './foundation.ts'
import { VERSION } from './version.ts'
import { AgentBuild } from './devices/onboarding.ts'
import { agentFiles } from './listen/agent-files.ts'
import { createApi, type Api, type ApiOptions } from './listen/api.ts'
import { estHandler } from './listen/est.ts'
import { dispatch, type Handler } from './listen/front.ts'
import type { Flood } from './listen/rated.ts'
import { Rates } from './listen/rates.ts'
import { Publication } from './listen/revocation.ts'
import { auditorRoutes } from './listen/routes/auditors.ts'
import { baselineRoutes } from './listen/routes/baseline.ts'
import { openTickets } from './grants/tickets.ts'
import { breakGlassRoutes } from './listen/routes/break-glass.ts'
import { certificateRoutes } from './listen/routes/certificates.ts'
import { deviceRoutes } from './listen/routes/devices.ts'
import { enrolmentRoutes } from './listen/routes/enrolments.ts'
import { lockRoutes } from './listen/routes/locks.ts'
import { grantRoutes } from './listen/routes/grants.ts'
import { idpRoutes } from './listen/routes/idps.ts'
import { logRoutes } from './listen/routes/log.ts'
import { invitationRoutes } from './listen/routes/invitations.ts'
import { passkeyRoutes } from './listen/routes/passkeys.ts'
import { totpRoutes } from './listen/routes/totp.ts'
import { policyRoutes } from './listen/routes/policy.ts'
import { peopleRoutes } from './listen/routes/people.ts'
import { pruneRoutes } from './listen/routes/prune.ts'
import { rotateRoutes } from './listen/routes/rotate.ts'
import { serviceRoutes } from './listen/routes/services.ts'
import { recordingRoutes } from './listen/routes/recordings.ts'
import { rolloutRoutes } from './listen/routes/rollouts.ts'
import { superviseRoutes } from './listen/routes/supervise.ts'
import { tokenRoutes } from './listen/routes/tokens.ts'
import { witnessRoutes } from './listen/routes/witness.ts'
import { sessionRoutes } from './listen/routes/sessions.ts'
import { knownPersonsOf, personsOf } from './persons.ts'
import type { PolicyComparison } from './policy/comparison.ts'
import type { NodePolicy } from './policy/node.ts'
import type { Retention } from './retention.ts'
import type { Rotation } from './rotation.ts'
import type { WitnessRoom } from './witnesses.ts'
import { SqlitePendingStore } from './store/sqlite/enrolments.ts'
import type { Access } from './live.ts'

export interface Web {
  readonly setup: EstSetup
  readonly report: Report
  /** Somebody at this address has proven to belong here. */
  readonly proven: (address: string) => void
  readonly witnesses: WitnessRoom
  readonly retention: Retention
  readonly rotation: Rotation
  /** Of this gateway's policy with that of others; undefined where there are none. */
  readonly comparison: PolicyComparison | undefined
}

/** Everything that speaks HTTP on the one port. */
export async function openHttp(
  config: Config,
  foundation: Foundation,
  policy: NodePolicy,
  access: Access,
  { setup, report, proven, witnesses, retention, rotation, comparison }: Web,
  undo: Undo,
): Promise<Handler> {
  const { authority, caStore, caLog, identity, thread } = foundation
  const { decisions } = policy
  const { devices } = access.room
  const publication = undo.use(await openPublication(config, foundation, access, report))
  if (access.ending !== undefined) access.ending.revoked = publication.revoked
  const pending = new SqlitePendingStore(thread)
  const build = new AgentBuild(config.agent_files)
  const api = undo.use(
    await createApi({
      version: VERSION,
      identity,
      now,
      report,
      proven,
      answers: access.answers,
      outOfScope: scopeEvent(foundation),
      rating: { rates: new Rates(config.api_rates), flooded: telling(foundation, report) },
      routes(calls) {
        addRoutes(
          calls,
          config,
          foundation,
          { ...policy, comparison },
          access,
          publication,
          pending,
          build,
        )
        pruneRoutes(calls, { decisions, log: foundation.log, retention })
        rotateRoutes(calls, { decisions, log: foundation.log, rotation })
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
    agent: agentFiles({
      build: {
        script: () => build.script(),
        files: async () => [...(await build.files()), ...access.rolled.files()],
      },
      report,
    }),
    oidc: (request, response) => identity.handle(request, response),
    api,
    app: (request, response, label) => access.apps.handle(request, response, label),
  })
}

/** A service called what is not for it. */
function scopeEvent({ log }: Foundation): ApiOptions['outOfScope'] {
  return async (subject, source, route) => {
    await log.append({
      code: 'admin.call',
      message: `${route} refused: no scope of this service opens it`,
      status: 'failure',
      disposition: 'unauthorized',
      reason: 'service.scope',
      actor: actorOf(subject),
      src: srcOf(source),
      data: { operation: 'api:scope', verb: 'read', path: route },
    })
  }
}

/** Of a person in the log of what was done; of an address, whose nobody knows, in the node's own. */
function telling({ log, logger }: Foundation, report: Report): (flood: Flood) => void {
  return ({ code, route, source, subject, suppressed }) => {
    if (subject === undefined) {
      logger.warn({ code, from: source.ip, route, suppressed }, 'calls refused')
      return
    }
    log
      .append({
        code: 'admin.call',
        message: `${route} refused: asked too often (${suppressed} more since the last that was told)`,
        status: 'failure',
        disposition: 'blocked',
        reason: code,
        actor: actorOf(subject),
        src: srcOf(source),
        data: { operation: 'api:rate', verb: 'read', path: route },
      })
      .catch((error: unknown) => report(error, 'who asks too often could not be recorded'))
  }
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

function addRoutes(
  calls: Api,
  config: Config,
  { log, identity, authority, caStore, caLog }: Foundation,
  {
    decisions,
    service,
    journal,
    source,
    exported,
    comparison,
  }: NodePolicy & Pick<Web, 'comparison'>,
  access: Access,
  publication: Publication,
  pending: PendingStore,
  build: AgentBuild,
): void {
  const { tenant } = config
  const { registry, inventories, room, reauthorization, locks, signIns, sockets } = access
  const { supervision } = access
  const { recordings, auditors, reviews, glass, notices } = access
  const { devices, grants } = room
  const origin = originOf(config)
  peopleRoutes(calls, {
    decisions,
    log,
    identity,
    locks,
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
  const { update_keys: updateKeys } = config
  const tokens = { tenant, store: caStore, origin, caSha256, updateKeys, build, now }
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
    ending: access.ending,
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
  const spare = (grant: string) => room.allotments.spare(grant)
  const apart = access.changes === undefined ? personOf : knownPersonsOf(identity)
  const asking = { registry, decisions, log, personOf: apart, spare, now }
  const { tickets } = config
  const ticketFault = tickets === undefined ? undefined : openTickets(tickets, now)
  const grantRoom = { tenant, store: grants, devices, ticketFault, ...asking }
  const changed = () => notices?.poke()
  const granting = { decisions, log, grants: grantRoom, reauthorization, glass, changed }
  grantRoutes(calls, granting)
  breakGlassRoutes(calls, { ...granting, reviews })
  invitationRoutes(calls, { decisions, log, identity, origin, now })
  serviceRoutes(calls, { decisions, log, identity, now })
  passkeyRoutes(calls, { ...granting, identity, locks, origin, now })
  totpRoutes(calls, { ...granting, identity, origin, now })
  const appOrigin = (process: string, device: string) =>
    `https://${process}--${device}.${config.apps_domain}:${publicPort(config)}`
  sessionRoutes(calls, {
    ...guard,
    room,
    reauthorization,
    supervision,
    signIns,
    sockets,
    appOrigin,
  })
  superviseRoutes(calls, { ...guard, room, supervision, personOf })
  const { live } = room
  lockRoutes(calls, { decisions, log, locks, identity, devices, live, reauthorization })
  logRoutes(calls, { decisions, log })
  recordingRoutes(calls, { ...guard, directory: recordings.directory })
  auditorRoutes(calls, { ...guard, auditors, now, random: (bytes) => randomBytes(bytes) })
  rolloutRoutes(calls, { ...guard, rollouts: access.rollouts })
  policyRoutes(calls, {
    decisions,
    log,
    policy: service,
    journal,
    source,
    exported,
    identity,
    room,
    personOf,
    gateway: config.gateway,
    comparison,
  })
}
