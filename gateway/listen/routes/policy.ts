/** `/policy` and `/decisions`: what is in force, rolling another out, and why a decision came out as it did. */
import { Type } from 'typebox'
import type { FastifyInstance } from 'fastify'
import {
  BundleSourceHealth,
  DecisionId,
  DecisionsQuery,
  ImpactQuery,
  LoggedDecision,
  NewTrial,
  PolicyActivated,
  PolicyDigest,
  PolicyImpact,
  PolicyStatus,
  PolicyTrial,
  WhoCan,
  WhoCanQuery,
} from '#api'
import { CATALOGUE, type Decision } from '#policy'
import { nextStepOf } from '../../decisions.ts'
import { actorOf } from '../../events.ts'
import type { Identity } from '../../identity/index.ts'
import { people } from '../../policy/consent.ts'
import { readCursor } from '../../policy/exporter.ts'
import type { DecisionJournal } from '../../policy/journal.ts'
import type { PolicyComparison } from '../../policy/comparison.ts'
import type { NodePolicy } from '../../policy/node.ts'
import type { DecisionRecord } from '../../policy/record.ts'
import type { Activated, Impact } from '../../policy/parts.ts'
import type { PolicyService } from '../../policy/service.ts'
import type { BundleSource } from '../../policy/source.ts'
import { whoCan } from '../../policy/who-can.ts'
import { Refusal } from '../../problem.ts'
import type { SessionRoom } from '../../sessions/room.ts'
import type { Api } from '../api.ts'
import { Allowance } from '../allowance.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { takeOctets } from '../octets.ts'

export interface PolicyRoutes extends Omit<Authorization, 'api'> {
  readonly policy: PolicyService
  readonly journal: DecisionJournal
  readonly source: Pick<BundleSource, 'health' | 'again'> | undefined
  readonly exported: NodePolicy['exported']
  readonly identity: Pick<Identity, 'accounts' | 'issuer'>
  readonly room: SessionRoom
  /** The human being behind an identity. */
  readonly personOf: (identity: string) => Promise<string>
  /** Which one this is, by its own name: what it tries another does not. */
  readonly gateway: string
  /** With what others decide by; undefined where there are none. */
  readonly comparison: Pick<PolicyComparison, 'shown'> | undefined
}

const BUNDLE_TYPE = 'application/vnd.openpolicyagent.bundles'
const MAX_BUNDLE_BYTES = 16 * 1024 * 1024

export function policyRoutes(api: Api, routes: PolicyRoutes): void {
  reading(api, routes)
  // Bundles come as octets, in this scope alone; everything else of the API takes JSON.
  void api.server.register((scoped, _options, done) => {
    rollout(scoped as unknown as Api['server'], api, routes)
    done()
  })
  deciding(api, routes)
}

const NONE = { code: '', msg: null, remedy: null, next_step: null, ref: null }

/**
 * What a vendor was shown, and no more: who has no grant gets one answer for what exists and what does
 * not (sessions/open.ts), so its record has one too.
 */
function viewOfVendor(record: DecisionRecord, siteNext: string | undefined): LoggedDecision {
  const { custom, input } = record
  const { msg, remedy, next } = CATALOGUE['grant.none']
  const unknown = custom.point === 'session.open' && input.grants.length === 0
  const whole = view(record)
  return {
    ...whole,
    effect: unknown ? 'deny' : whole.effect,
    revision: null,
    data_digest: null,
    layer: null,
    zone: null,
    why: unknown
      ? [{ code: 'grant.none', msg, remedy, next_step: siteNext ?? next, ref: null }]
      : whole.why.map((one) => ({ ...one, ref: null })),
    obligations: null,
    input: null,
  }
}

function view(record: DecisionRecord): LoggedDecision {
  const { result, custom, input } = record
  const said: Pick<Decision, 'allow' | 'reasons' | 'denials'> = result
  const why = said.allow
    ? said.reasons.map(({ code, ref = null }) => ({ ...NONE, code, ref }))
    : said.denials.map((denial) => {
        const { code, msg, remedy = null, ref = null } = denial
        return { code, msg, remedy, next_step: nextStepOf(denial) ?? null, ref }
      })
  return {
    decision_id: record.decision_id,
    timestamp: record.timestamp,
    point: custom.point,
    effect: result.effect,
    revision: record.bundles.sallyport.revision,
    data_digest: custom.data_digest,
    layer: custom.layer,
    session: custom.session,
    zone: input.device?.zone ?? null,
    why,
    obligations: result.obligations,
    input,
  }
}

function reading(api: Api, routes: PolicyRoutes): void {
  const authorization = { ...routes, api }
  api.server.get(
    '/api/v1/policy',
    { schema: { response: { 200: PolicyStatus } } },
    async (request) => {
      await authorize(authorization, request, 'policy:read')
      const { policy, journal } = routes
      const status = policy.status()
      const log = journal.health()
      const { candidate } = status
      return {
        ...status,
        candidate:
          candidate === null ? null : { ...candidate, person: await called(routes, candidate.by) },
        trusted_keys: [...status.trusted_keys],
        boot_failures: [...status.boot_failures],
        bundle_source: routes.source?.health() ?? null,
        gateways: routes.comparison?.shown() ?? null,
        journal: { ...log, rings: [...log.rings] },
      }
    },
  )

  api.server.get(
    '/api/v1/policy/bundle',
    { schema: { produces: [BUNDLE_TYPE] } },
    async (request, reply) => {
      await authorize(authorization, request, 'policy:read')
      const digest = routes.policy.status().bundle_digest ?? ''
      void reply.header('etag', `"${digest}"`).header('cache-control', 'no-cache')
      if (request.headers['if-none-match'] === `"${digest}"`) return reply.status(304).send()
      return reply.type(BUNDLE_TYPE).send(Buffer.from(routes.policy.archive()))
    },
  )

  lookingBack(api, routes)
  exporting(api, routes)
}

/** The address of an account here; what else brought a bundle is called as it is. */
async function called({ identity }: PolicyRoutes, by: string): Promise<string> {
  const own = `${identity.issuer}|`
  if (!by.startsWith(own)) return by
  return (await identity.accounts.find(by.slice(own.length)))?.email ?? by
}

function lookingBack(api: Api, routes: PolicyRoutes): void {
  const allowance = new Allowance(1, 20)
  api.server.get(
    '/api/v1/decisions/:id',
    { schema: { params: Type.Object({ id: DecisionId }), response: { 200: LoggedDecision } } },
    async (request) => {
      const { id } = request.params
      const subject = await api.caller(request)
      const vendor = subject.party === 'vendor'
      if (!allowance.take(subject.id, performance.now()))
        throw new Refusal('decision.limit', 'one decision each second may be asked about', {
          nextStep: 'wait a moment',
        })
      if (!vendor) await authorize({ ...routes, api }, request, 'policy:read')
      const record = await routes.journal.find(id)
      // Vendors may ask about their own; those of others do not exist for them.
      if (record === undefined || (vendor && record.input.subject.id !== subject.id))
        throw new Refusal('decision.unknown', `no decision ${id} is kept here`, {
          nextStep: 'decisions are kept for a time, on the node that made them',
        })
      return vendor
        ? viewOfVendor(record, routes.room.decisions.nextStep('grant.none'))
        : view(record)
    },
  )
}

/** Who may read the log of events may have that of decisions, and each page is an event there. */
function exporting(api: Api, routes: PolicyRoutes): void {
  let turn: Promise<unknown> = Promise.resolve()
  let waiting = 0
  api.server.get(
    '/api/v1/decisions',
    { schema: { querystring: DecisionsQuery, produces: ['application/json'] } },
    async (request, reply) => {
      const { from: since = 0, after } = request.query
      const begin = after === undefined ? { acts: { since }, flow: { since } } : readCursor(after)
      const id = after ?? new Date(since).toISOString()
      const target = { kind: 'decisions', id } as const
      await authorize({ ...routes, api }, request, 'audit:read', target)
      if (waiting >= MOST_EXPORTS)
        throw new Refusal('policy.busy', 'the decision log is being handed out to others', {
          nextStep: 'ask again in a moment',
        })
      waiting++
      const page = turn.then(() => routes.exported(begin)).finally(() => waiting--)
      turn = page.catch(() => undefined)
      return reply.type('application/json').send(await page)
    },
  )
}

/** So many pages are asked for at once; they are made one after the other. */
const MOST_EXPORTS = 4

const since = (query: { since?: number }): number | null =>
  query.since === undefined ? null : query.since * 1000

const GOING_BACK = {
  querystring: Type.Pick(ImpactQuery, ['since'], { additionalProperties: false }),
  response: { 200: PolicyImpact },
}

function rollout(server: Api['server'], api: Api, routes: PolicyRoutes): void {
  const authorization = { ...routes, api }
  const { policy } = routes
  const callerOf = takeOctets(server as unknown as FastifyInstance, {
    types: [BUNDLE_TYPE, 'application/octet-stream'],
    limit: MAX_BUNDLE_BYTES,
    busy: 'policy.busy',
    admit: (request) => {
      const keeps = request.routeOptions.url === '/api/v1/policy/candidate'
      return authorize(authorization, request, keeps ? 'policy:upload' : 'policy:read')
    },
  })
  const schema = { querystring: ImpactQuery, response: { 200: PolicyImpact } }
  server.get('/api/v1/policy/rollback', { schema: GOING_BACK }, async (request) => {
    await authorize(authorization, request, 'policy:read')
    return toImpact(await policy.goingBack(since(request.query)))
  })
  server.post('/api/v1/policy/impact', { schema, bodyLimit: MAX_BUNDLE_BYTES }, async (request) => {
    return toImpact(
      await policy.impact(octets(request.body), since(request.query), request.query.permit),
    )
  })
  server.post(
    '/api/v1/policy/candidate',
    { schema, bodyLimit: MAX_BUNDLE_BYTES },
    async (request) => {
      const { subject } = callerOf(request)
      const { query, body } = request
      return toImpact(
        await policy.upload(octets(body), actorOf(subject), since(query), query.permit),
      )
    },
  )
}

function octets(body: unknown): Uint8Array<ArrayBuffer> {
  if (Buffer.isBuffer(body)) return new Uint8Array(body)
  throw new Refusal('body.invalid', `a bundle is sent as ${BUNDLE_TYPE}`)
}

function toImpact({ live, past, ...impact }: Impact): PolicyImpact {
  return {
    ...impact,
    live: {
      sessions: live.sessions,
      cut: [...live.cut],
      unseen: [...live.unseen],
      narrowed: live.narrowed.map((one) => ({ ...one, tightened: [...one.tightened] })),
    },
    past:
      past === null
        ? null
        : { ...past, turned: past.turned.map((one) => ({ ...one, codes: [...one.codes] })) },
  }
}

function toActivated(
  { revision, digest, cut, already }: Activated,
  { comparison }: Pick<PolicyRoutes, 'comparison'>,
): PolicyActivated {
  const slowest = cut.length === 0 ? null : Math.max(...cut.map((one) => one.time_to_cut_ms))
  const gateways = comparison?.shown() ?? null
  return { revision, digest, already, sessions: [...cut], slowest_ms: slowest, gateways }
}

function deciding(api: Api, routes: PolicyRoutes): void {
  const authorization = { ...routes, api }
  const { policy } = routes
  api.server.post(
    '/api/v1/policy/activate',
    { schema: { body: PolicyDigest, response: { 200: PolicyActivated } } },
    async (request) => {
      const { digest } = request.body
      const target = { kind: 'policy', id: digest }
      const standing = policy.standing(digest)
      if (standing !== undefined) {
        // Nothing changes, so nobody has to agree: that it is in force is what `policy:read` shows.
        await authorize(authorization, request, 'policy:read', target)
        return toActivated(standing, routes)
      }
      const agreed = policy.consents(digest)
      const { subject } = await authorize(authorization, request, 'policy:push', target, agreed)
      await twoPeople(routes, subject.id, agreed)
      return toActivated(await policy.activate(digest, actorOf(subject)), routes)
    },
  )
  api.server.post(
    '/api/v1/policy/rollback',
    { schema: { response: { 200: PolicyActivated } } },
    async (request) => {
      const { subject } = await authorize(authorization, request, 'policy:rollback')
      return toActivated(await policy.rollback(actorOf(subject)), routes)
    },
  )
  api.server.post(
    '/api/v1/policy/source/look',
    { schema: { response: { 200: BundleSourceHealth } } },
    async (request) => {
      await authorize(authorization, request, 'policy:upload')
      if (routes.source !== undefined) return await routes.source.again()
      throw new Refusal('policy.source', 'no bundles come to this gateway by themselves', {
        nextStep: 'name where from under policy.source in the configuration, or push one by hand',
      })
    },
  )
  trials(api, routes)
  api.server.get(
    '/api/v1/policy/who-can',
    { schema: { querystring: WhoCanQuery, response: { 200: WhoCan } } },
    async (request) => {
      await authorize(authorization, request, 'policy:read')
      return whoCan(routes.room, routes.identity, request.query, api.source(request))
    },
  )
}

/** A program is nobody, and two accounts of one human being are one person, whatever the policy in force can know of that. */
async function twoPeople(
  { policy, personOf }: PolicyRoutes,
  caller: string,
  agreed: readonly string[],
): Promise<void> {
  if (!(await policy.needsSecondPerson())) return
  if ((await people([caller, ...agreed], personOf)) > 1) return
  const { msg, next } = CATALOGUE['admin.second_person']
  throw new Refusal('policy.denied', msg, {
    nextStep: next,
    denials: [{ code: 'admin.second_person', msg, remedy: 'approve', next_step: next }],
  })
}

function noTrial(): Refusal {
  return new Refusal('policy.trial', 'no policy has been on trial since the gateway started', {
    nextStep: 'upload one with sallyport policy push, then sallyport policy try DIGEST --shadow',
  })
}

function trials(api: Api, routes: PolicyRoutes): void {
  const authorization = { ...routes, api }
  const { policy } = routes
  const shown = (): PolicyTrial => {
    const trial = policy.trial()
    if (trial === null) throw noTrial()
    const differences = trial.differences.map((one) => ({ ...one, codes: [...one.codes] }))
    return { ...trial.status, gateway: routes.gateway, differences }
  }
  api.server.get(
    '/api/v1/policy/trial',
    { schema: { response: { 200: PolicyTrial } } },
    async (request) => {
      await authorize(authorization, request, 'policy:read')
      return shown()
    },
  )
  api.server.post(
    '/api/v1/policy/trial',
    { schema: { body: NewTrial, response: { 200: PolicyTrial } } },
    async (request) => {
      const { digest, mode, percent = 0, label } = request.body
      const target = { kind: 'policy', id: digest }
      const agreed = policy.consents(digest)
      // A shadow answers for nobody; a canary decides about people, and is an activation.
      const operation = mode === 'shadow' ? 'policy:upload' : 'policy:push'
      const { subject } = await authorize(authorization, request, operation, target, agreed)
      if (mode === 'canary') await twoPeople(routes, subject.id, agreed)
      const at = label?.indexOf('=') ?? 0
      const share = {
        percent,
        label:
          label === undefined ? null : { name: label.slice(0, at), value: label.slice(at + 1) },
      }
      await policy.try(digest, mode, share, actorOf(subject))
      return shown()
    },
  )
  api.server.post(
    '/api/v1/policy/trial/end',
    { schema: { response: { 200: PolicyTrial } } },
    async (request) => {
      const { subject } = await authorize(authorization, request, 'policy:rollback')
      await policy.endTrial(`ended by ${subject.email}`)
      return shown()
    },
  )
}
