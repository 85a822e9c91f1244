/** `/grants`: asking, approving, rejecting, revoking, giving back. */
import { Type } from 'typebox'
import {
  Approve,
  EndReason,
  EndedGrant,
  Grant as GrantView,
  GrantId,
  NewExtension,
  NewGrant,
  SignedGrant,
  Page,
} from '#api'
import type { GrantSignature } from '#approval'
import { approveGrant, endGrant, findGrant, type Ending } from '../../grants/approve.ts'
import { recordShortened, recordSuperseded } from '../../grants/effect.ts'
import { requestExtension } from '../../grants/extend.ts'
import { expiresAt, shownState, type Grant } from '../../grants/grant.ts'
import type { ReviewWatch } from '../../grants/review.ts'
import { requestGrant, type GrantRoom } from '../../grants/request.ts'
import { inTurn } from '../../grants/turn.ts'
import { during } from '../../grants/window.ts'
import type { Source } from '../../facts.ts'
import type { Subject } from '../../identity/index.ts'
import { Refusal } from '../../problem.ts'
import { touchedBy } from '../../sessions/touched.ts'
import type { CutConnection, Reauthorization } from '../../sessions/reevaluate.ts'
import { StoreError } from '../../store/sqlite/thread.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { page, pageOf, readCursor, USUAL } from '../cursor.ts'
import type { DecisionRef } from '../../decisions.ts'

export interface GrantRoutes extends Omit<Authorization, 'api'> {
  readonly grants: GrantRoom
  readonly reauthorization: Reauthorization
  /** Counts the seals that were broken. */
  readonly glass: Pick<ReviewWatch, 'refresh'>
  /** Told that there may be news of a grant. */
  readonly changed: () => void
}

const Params = Type.Object({ id: GrantId })

/** A grant as the API shows it now. */
export function grantView({ now, spare }: GrantRoom, grant: Grant): GrantView {
  const nowMs = now()
  const { statement } = grant
  return {
    id: statement.id,
    hash: grant.hash,
    state: shownState(grant, Math.floor(nowMs / 1000)),
    requester: statement.requester,
    requester_email: grant.requester_email,
    vendor: statement.vendor,
    device: statement.devices[0] ?? '',
    processes: [...statement.processes],
    duration_s: statement.max_duration_s,
    not_before: statement.not_before,
    not_after: statement.not_after,
    first_used_at: grant.first_used_at,
    expires_at: expiresAt(grant),
    ...recurrence(grant, Math.floor(nowMs / 1000)),
    ot_level: statement.ot_level,
    ot_windows: [...(statement.ot_windows ?? [])],
    max_uses: statement.max_uses ?? null,
    max_bytes: statement.max_bytes ?? null,
    extends: statement.extends?.grant ?? null,
    supersedes: statement.supersedes?.grant ?? null,
    sealed: statement.sealed?.quorum ?? null,
    unseals: statement.unseals?.grant ?? null,
    extension:
      grant.extension === null
        ? null
        : {
            grant: grant.extension.statement.id,
            duration_s: grant.extension.statement.max_duration_s,
            not_after: grant.extension.statement.not_after,
          },
    uses: grant.uses,
    bytes: grant.bytes - spare(statement.id),
    reason: statement.reason,
    ticket: statement.ticket,
    approvals: grant.approvals.map(({ by, email, at, hash, decision_id, signature }) => ({
      by,
      email,
      at,
      grant_hash: hash,
      decision_id,
      signed: signature !== null,
    })),
    approvals_needed: grant.approvals_needed,
    ended: grant.ended,
    created_at: statement.created_at,
  }
}

/** When its windows are, and which is the one that is open or opens next at `now` (epoch seconds). */
function recurrence(grant: Grant, now: number): Pick<GrantView, 'recurring' | 'opens'> {
  const { recurring } = grant.statement
  if (recurring === undefined) return { recurring: null, opens: null }
  const { period } = during(grant, now)
  return {
    recurring: { ...recurring, days: [...recurring.days] },
    opens: period === undefined || period.until <= now ? null : { ...period },
  }
}

export function grantRoutes(api: Api, room: GrantRoutes): void {
  reading(api, room)
  asking(api, room)
  ending(api, room)
}

function reading(api: Api, room: GrantRoutes): void {
  const { server } = api
  const authorization = { ...room, api }
  server.get(
    '/api/v1/grants',
    { schema: { querystring: Page, response: { 200: pageOf(GrantView) } } },
    async (request) => {
      const subject = await api.caller(request)
      // Vendors list their own; the decision is asked with them as the owner of what they will see.
      const own = subject.party === 'vendor'
      await authorize(
        authorization,
        request,
        'grant:list',
        own ? { kind: 'grant', id: '*', owner: subject.id } : undefined,
      )
      const [created_at, id] = readCursor('grants', [0, ''], request.query) ?? []
      const rows = await room.grants.store.list({
        ...(own ? { requester: subject.id } : {}),
        ...(created_at === undefined || id === undefined ? {} : { after: { created_at, id } }),
        limit: (request.query.limit ?? USUAL) + 1,
      })
      const { items, next } = page('grants', rows, request.query, ({ statement: one }) => [
        one.created_at,
        one.id,
      ])
      return { items: items.map((grant) => grantView(room.grants, grant)), next }
    },
  )

  server.get(
    '/api/v1/grants/:id',
    { schema: { params: Params, response: { 200: GrantView } } },
    async (request) => {
      const { grant } = await visible(api, room, request.params.id, request)
      return grantView(room.grants, grant)
    },
  )

  server.get(
    '/api/v1/grants/:id/signed',
    { schema: { params: Params, response: { 200: SignedGrant } } },
    async (request) => {
      const { grant } = await visible(api, room, request.params.id, request)
      return signedGrant(grant)
    },
  )
}

/** The grant as a file that is verified without us. */
function signedGrant({ statement, approvals }: Grant): SignedGrant {
  const { ot_windows: windows, recurring, ...rest } = statement
  return {
    v: 1,
    statement: {
      ...rest,
      devices: [...statement.devices],
      processes: [...statement.processes],
      ...(windows === undefined ? {} : { ot_windows: [...windows] }),
      ...(recurring && { recurring: { ...recurring, days: [...recurring.days] } }),
    },
    approvals: approvals.map(({ by, email, at, decision_id, signature }) => ({
      by,
      email,
      at,
      decision_id,
      signature: signature === null ? null : copied(signature),
    })),
  }
}

function copied({ assertion, key, relying_party: { id, origins } }: GrantSignature) {
  return { assertion, key, relying_party: { id, origins: [...origins] } }
}

/** A vendor is told of another's grant exactly what they are told of one that does not exist. */
async function known(
  api: Api,
  room: GrantRoutes,
  id: string,
  request: Parameters<Api['caller']>[0],
): Promise<{ grant: Grant; subject: Subject }> {
  const subject = await api.caller(request)
  const grant = await findGrant(room.grants, id)
  if (subject.party === 'vendor' && grant.statement.requester !== subject.id)
    throw new Refusal('grant.unknown', `no grant ${id}`)
  return { grant, subject }
}

/** The grant, if the caller may see it; recorded where policy refuses. Throws Refusal `grant.unknown`, `policy.denied`. */
export async function visible(
  api: Api,
  room: GrantRoutes,
  id: string,
  request: Parameters<Api['caller']>[0],
): Promise<{ grant: Grant; subject: Subject }> {
  const found = await known(api, room, id, request)
  await authorize({ ...room, api }, request, 'grant:show', {
    kind: 'grant',
    id,
    owner: found.grant.statement.requester,
  })
  return found
}

function asking(api: Api, room: GrantRoutes): void {
  const { server } = api
  server.post(
    '/api/v1/grants',
    { schema: { body: NewGrant, response: { 201: GrantView } } },
    async (request, reply) => {
      const at = performance.now()
      const subject = await api.caller(request)
      const { ot_level = 1, ...ask } = request.body
      const grant = await requestGrant(room.grants, {
        ...ask,
        ot_level,
        subject,
        source: api.source(request),
      })
      await takesEffect(room, grant, at)
      return reply.status(201).send(grantView(room.grants, grant))
    },
  )

  server.post(
    '/api/v1/grants/:id/extension',
    { schema: { params: Params, body: NewExtension, response: { 201: GrantView } } },
    async (request, reply) => {
      const at = performance.now()
      const { grant, subject } = await visible(api, room, request.params.id, request)
      const source = api.source(request)
      const asked = await requestExtension(room.grants, { ...request.body, subject, source, grant })
      await takesEffect(room, asked, at)
      return reply.status(201).send(grantView(room.grants, asked))
    },
  )

  server.post(
    '/api/v1/grants/:id/approve',
    { schema: { params: Params, body: Approve, response: { 200: GrantView } } },
    async (request) => {
      const at = performance.now()
      const { subject } = await visible(api, room, request.params.id, request)
      const grant = await approveGrant(room.grants, {
        subject,
        source: api.source(request),
        id: request.params.id,
        hash: request.body.hash,
      })
      await takesEffect(room, grant, at)
      return grantView(room.grants, grant)
    },
  )
}

interface Withdrawn {
  readonly grant: Grant
  readonly ending: Ending
  readonly reason: string
  readonly subject: Subject
  readonly source: Source
  readonly decision?: DecisionRef
  /** Monotonic milliseconds at which the request came in. */
  readonly at: number
}

/** A grant from now on: what it extends, supersedes or lets write is decided again, also where the log failed meanwhile. */
export async function takesEffect(
  {
    grants,
    reauthorization,
    glass,
    changed,
  }: Pick<GrantRoutes, 'grants' | 'reauthorization' | 'glass' | 'changed'>,
  grant: Grant,
  at: number,
): Promise<void> {
  changed()
  if (grant.state !== 'approved') return
  const { ot_level: level, extends: extended, supersedes: old, unseals } = grant.statement
  const failed = await failureOf(recordSuperseded(grants, grant))
  if (unseals !== undefined) await glass.refresh()
  if (level === 2 || extended !== undefined || old !== undefined)
    await reauthorization.withdraw(touchedBy(grant), { trigger: 'grant', at })
  if (failed !== undefined) throw failed.cause
}

/** What it rejected with, for later: something must be cut first. */
async function failureOf(work: Promise<void>): Promise<{ readonly cause: unknown } | undefined> {
  try {
    await work
    return undefined
  } catch (cause) {
    return { cause }
  }
}

/**
 * Ends the grant, then all that stands on it, also where the log fails in between; the answer says how long the cuts took.
 * Where the store does not take the end, this node's sessions under the grant are cut all the same, and the call fails.
 */
export async function withdraw(room: GrantRoutes, ask: Withdrawn): Promise<EndedGrant> {
  // What the node hears of its own act (sessions/changes.ts) waits: the cuts are this call's to tell.
  return await inTurn(room.reauthorization, ask.grant.statement.id, () => endAndCut(room, ask))
}

async function endAndCut(room: GrantRoutes, ask: Withdrawn): Promise<EndedGrant> {
  const connections: CutConnection[] = []
  const cut = async (grant: Grant, fallen = false) =>
    await room.reauthorization.withdraw(touchedBy(grant), {
      trigger: 'grant',
      at: ask.at,
      by: ask.subject.id,
      fallen,
      narrowed: (one) => connections.push(one),
      ...(ask.ending === 'burn' ? { reason: 'grant_burned' as const } : {}),
    })
  const grant = await endGrant(room.grants, ask).catch(async (error: unknown) => {
    const held = ask.grant.state === 'approved' || ask.grant.state === 'active'
    if (error instanceof StoreError && held) await cut(ask.grant, true)
    throw error
  })
  room.changed()
  const failed =
    ask.grant.state === 'approved'
      ? await failureOf(recordShortened(room.grants, ask.grant))
      : undefined
  const sessions = await cut(grant)
  if (failed !== undefined) throw failed.cause
  const times = [...sessions, ...connections].map((one) => one.time_to_cut_ms)
  const slowest = times.length === 0 ? null : Math.max(...times)
  return {
    grant: grantView(room.grants, grant),
    cut: { sessions: [...sessions], connections, slowest_ms: slowest },
  }
}

function ending(api: Api, room: GrantRoutes): void {
  const { server } = api
  const authorization = { ...room, api }
  server.post(
    '/api/v1/grants/:id/revoke',
    { schema: { params: Params, body: EndReason, response: { 200: EndedGrant } } },
    async (request) => {
      const at = performance.now()
      const { grant } = await known(api, room, request.params.id, request)
      const caller = await authorize(authorization, request, 'grant:revoke', target(room, grant))
      return await withdraw(room, {
        ...caller,
        grant,
        ending: 'revoke',
        reason: request.body.reason,
        at,
      })
    },
  )

  server.post(
    '/api/v1/grants/:id/reject',
    { schema: { params: Params, body: EndReason, response: { 200: GrantView } } },
    async (request) => {
      const at = performance.now()
      const { grant } = await known(api, room, request.params.id, request)
      const of = { ...target(room, grant), idle: grant.state !== 'requested' }
      const caller = await authorize(authorization, request, 'grant:revoke', of)
      if (grant.state !== 'requested')
        throw new Refusal(
          'grant.state',
          `the grant is ${grant.state}; it can be revoked, not rejected`,
        )
      const ended = await withdraw(room, {
        ...caller,
        grant,
        ending: 'reject',
        reason: request.body.reason,
        at,
      })
      return ended.grant
    },
  )

  server.post(
    '/api/v1/grants/:id/done',
    { schema: { params: Params, response: { 200: EndedGrant } } },
    async (request) => {
      const at = performance.now()
      const { grant, subject } = await visible(api, room, request.params.id, request)
      if (grant.statement.requester !== subject.id)
        throw new Refusal('grant.state', 'only its holder gives a grant back; others revoke it', {
          nextStep: `sallyport revoke ${request.params.id}`,
        })
      const source = api.source(request)
      return await withdraw(room, { grant, subject, source, ending: 'burn', reason: 'done', at })
    },
  )
}

const STANDING: ReadonlySet<string> = new Set(['requested', 'approved', 'active'])

function target({ grants }: GrantRoutes, grant: Grant) {
  const { id, requester: owner } = grant.statement
  const state = shownState(grant, Math.floor(grants.now() / 1000))
  return { kind: 'grant', id, owner, idle: !STANDING.has(state) }
}
