/** `/certificates` and `/ca/crls`: what was issued, ending it, and the lists that say so. */
import { Type } from 'typebox'
import {
  Certificate as CertificateView,
  CertificateQuery,
  RevocationList,
  Revocation as RevocationView,
  Revoke,
  RevokeIssuer,
  IssuerId,
  Serial,
  Page,
} from '#api'
import {
  encodePem,
  type CaStore,
  type CertificateRow,
  type Crl,
  type Issuers,
  type RevocationReason,
} from '#ca'
import { revokeAndCut, type RevocationRoom, type Revoked } from '../../devices/revoke.ts'
import { actorOf, srcOf } from '../../events.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization, type Caller } from '../authorize.ts'
import { page, pageIn, pageOf, readCursor, USUAL } from '../cursor.ts'

export interface CertificateRoutes extends Omit<Authorization, 'api'> {
  readonly tenant: string
  /** `https://host:port` that the lists are fetched from. */
  readonly origin: string
  readonly caStore: Pick<CaStore, 'listCertificates' | 'findCertificate' | 'issuerRevocation'>
  readonly revocation: RevocationRoom
  readonly crls: () => Promise<readonly Crl[]>
  readonly issuers: () => Issuers
}

const Params = Type.Object({ serial: Serial })
const seconds = (ms: number) => Math.floor(ms / 1000)

function view(row: CertificateRow): CertificateView {
  return {
    serial: row.serial,
    profile: row.profile,
    subject: row.subject,
    issuer: row.issuer,
    state: row.state,
    not_before: seconds(row.notBefore),
    not_after: seconds(row.notAfter),
    issued_at: seconds(row.recordedAt),
    first_used_at: row.firstUsedAt === null ? null : seconds(row.firstUsedAt),
    revoked_at: row.revokedAt === null ? null : seconds(row.revokedAt),
    reason: row.revocationReason,
    renews: row.parent,
    spki_sha256: row.spkiSha256,
  }
}

/** A revocation as the API tells of it. */
export function viewRevocation({ row, sessions, tunnels, timeToCutMs }: Revoked): RevocationView {
  return {
    epoch: row.epoch,
    reason: row.reason,
    serials: [...row.serials],
    tunnels,
    sessions: sessions.map((session) => ({ ...session })),
    time_to_cut_ms: timeToCutMs,
  }
}

/** What somebody gave as the reason, in the log before it is acted on. */
export async function recordWords(
  { log, caller }: Pick<Authorization, 'log'> & { readonly caller: Caller },
  operation: 'device:replace' | 'device:retire' | 'token:create',
  entity: string,
  words: string,
): Promise<void> {
  await log.append({
    code: 'admin.call',
    message: `${entity}: ${words}`,
    status: 'success',
    actor: actorOf(caller.subject),
    src: srcOf(caller.source),
    decisions: [caller.decision],
    data: { operation, verb: 'update', entity },
  })
}

export function certificateRoutes(api: Api, room: CertificateRoutes): void {
  const authorization = { ...room, api }
  api.server.get(
    '/api/v1/certificates',
    {
      schema: {
        querystring: CertificateQuery,
        response: { 200: pageOf(CertificateView) },
      },
    },
    async (request) => {
      const query = request.query as CertificateQuery
      const { device, state, limit = USUAL } = query
      const target = device === undefined ? undefined : { kind: 'device', id: device }
      await authorize(authorization, request, 'ca:read', target)
      const list = `certificates ${device ?? ''} ${state ?? ''}`
      const [after] = readCursor(list, [''], query) ?? []
      const rows = await room.caStore.listCertificates(room.tenant, {
        ...(device === undefined ? {} : { subject: device, profile: 'device' }),
        ...(state === undefined ? {} : { state: state as CertificateRow['state'] }),
        ...(after === undefined ? {} : { after }),
        limit: limit + 1,
      })
      const { items, next } = page(list, rows, query, ({ serial }) => [serial])
      return { items: items.map(view), next }
    },
  )
  api.server.get(
    '/api/v1/ca/crls',
    { schema: { querystring: Page, response: { 200: pageOf(RevocationList) } } },
    async (request) => {
      await authorize(authorization, request, 'ca:read')
      const all = await room.crls()
      const { items, next } = pageIn('crls', all, request.query, ({ issuer }) => [issuer])
      return {
        next,
        items: items.map(({ issuer, number, thisUpdate, nextUpdate, entries, der }) => ({
          issuer,
          number,
          this_update: seconds(thisUpdate),
          next_update: seconds(nextUpdate),
          entries,
          url: `${room.origin}/crl/${issuer}.crl`,
          pem: encodePem('X509 CRL', der),
        })),
      }
    },
  )
  revoking(api, room)
  revokingIssuers(api, room)
}

/** Everything under one issuing CA, which signs no more by then. */
function revokingIssuers(api: Api, room: CertificateRoutes): void {
  api.server.post(
    '/api/v1/ca/issuers/:id/revoke',
    {
      schema: {
        params: Type.Object({ id: IssuerId }),
        body: RevokeIssuer,
        response: { 200: RevocationView },
      },
    },
    async (request) => {
      const at = performance.now()
      const { id } = request.params as { id: string }
      const { reason, comment = reason } = request.body as RevokeIssuer
      const before = await room.caStore.issuerRevocation(room.tenant, id)
      const idle = !isRetired(room.issuers(), id) || isOver(before, reason)
      const target = { kind: 'issuer', id, idle }
      const caller = await authorize({ ...room, api }, request, 'device:retire', target)
      assertRetired(room.issuers(), id)
      await recordWords({ ...room, caller }, 'device:retire', `issuer:${id}`, comment)
      const reach = { reason, by: caller.subject.id, at, requestId: request.id }
      return viewRevocation(await revokeAndCut(room.revocation, { issuer: id }, reach))
    },
  )
}

function isRetired({ all, active, next }: Issuers, id: string): boolean {
  return [active, ...next].every((one) => one.id !== id) && all.some((one) => one.id === id)
}

function assertRetired({ all, active, next }: Issuers, id: string): void {
  if (!all.some((issuer) => issuer.id === id))
    throw new Refusal('issuer.unknown', `no issuing CA ${id}`, {
      nextStep: 'see `sallyport ca crl`',
    })
  if (active.id === id)
    throw new Refusal('issuer.active', 'this issuing CA signs what is issued now', {
      nextStep:
        'let another sign first, on the machine of the node: `sallyport ca rotate --now`, with `--root-key FILE` where the root key is away, or under a CA above `sallyport ca import --chain FILE --now`; once `sallyport ca status` calls this one retired, revoke it',
    })
  if (next.some((issuer) => issuer.id === id))
    throw new Refusal('issuer.next', 'this issuing CA is to sign what is issued later', {
      nextStep:
        'let it have its turn with `sallyport ca rotate --now` on the machine of the node, and another take over with a second one; once `sallyport ca status` calls this one retired, revoke it',
    })
}

/** Whether nothing is left to end of what was revoked for `before`; that a key is in other hands ends more than that. */
function isOver(before: RevocationReason | null | undefined, reason: string): boolean {
  return (
    before !== null &&
    before !== undefined &&
    (reason !== 'keyCompromise' || before === 'keyCompromise')
  )
}

function revoking(api: Api, room: CertificateRoutes): void {
  const authorization = { ...room, api }
  api.server.post(
    '/api/v1/certificates/:serial/revoke',
    { schema: { params: Params, body: Revoke, response: { 200: RevocationView } } },
    async (request) => {
      const at = performance.now()
      const { serial } = request.params
      const { reason, comment = reason } = request.body as Revoke
      const row = await room.caStore.findCertificate(serial)
      // Ending a device's certificate takes it out of service: the same right as retiring it.
      const idle =
        row === undefined || row.tenant !== room.tenant || isOver(row.revocationReason, reason)
      const target =
        row?.profile === 'device'
          ? { kind: 'device', id: row.subject, idle }
          : { kind: 'certificate', id: serial, idle }
      const caller = await authorize(authorization, request, 'device:retire', target)
      if (row === undefined || row.tenant !== room.tenant)
        throw new Refusal('certificate.unknown', `no certificate ${serial}`, {
          nextStep: 'see `sallyport ca certificates`',
        })
      await recordWords({ ...room, caller }, 'device:retire', `certificate:${serial}`, comment)
      const reach = { reason, by: caller.subject.id, at, requestId: request.id }
      return viewRevocation(await revokeAndCut(room.revocation, { serial }, reach))
    },
  )
}
