/** `/idps`: companies' own providers. Who may make accounts may say which company makes them. */
import { Type } from 'typebox'
import { Idp, IdpId, NewIdp, Page, RemovedIdp } from '#api'
import type { Identity, Idp as IdentityIdp } from '../../identity/index.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, doneBy, type Authorization } from '../authorize.ts'
import { pageIn, pageOf } from '../cursor.ts'
import { toRefusal } from './people.ts'

export interface IdpRoutes extends Omit<Authorization, 'api'> {
  readonly identity: Identity
}

const Params = Type.Object({ id: IdpId })
const Empty = Type.Object({}, { additionalProperties: false })

function view(idp: IdentityIdp): Idp {
  const { id, name, issuer, auth, party, vendor, listed, enabled } = idp
  return {
    id,
    name,
    issuer,
    auth,
    party,
    vendor,
    listed,
    enabled,
    client_id: idp.clientId,
    own_ca: idp.ca !== null,
    domains: [...idp.domains],
    trust_email: idp.trustEmail,
    groups_claim: idp.groupsClaim,
    groups: { ...idp.groups },
    roles: { ...idp.roles },
    methods: { ...idp.methods },
    login_s: idp.loginSeconds,
    created_at: Math.floor(idp.createdAt / 1000),
    redirect_uri: idp.redirectUri,
    backchannel_logout_uri: idp.logoutUri,
    jwks_uri: idp.jwksUri,
  }
}

const rethrow = (error: unknown): never => {
  throw toRefusal(error)
}

export function idpRoutes(api: Api, room: IdpRoutes): void {
  reading(api, room)
  adding(api, room)
  acting(api, room)
}

function reading({ server, ...api }: Api, room: IdpRoutes): void {
  const authorization = { ...room, api: { server, ...api } }
  const schema = { querystring: Page, response: { 200: pageOf(Idp) } }
  server.get('/api/v1/idps', { schema }, async (request) => {
    await authorize(authorization, request, 'idp:list', { kind: 'idp', id: '*' })
    const all = await room.identity.idps.list()
    const { items, next } = pageIn('idps', all, request.query, ({ id }) => [id])
    return { items: items.map(view), next }
  })
  server.get(
    '/api/v1/idps/:id',
    { schema: { params: Params, response: { 200: Idp } } },
    async (request) => {
      const { id } = request.params
      await authorize(authorization, request, 'idp:list', { kind: 'idp', id })
      const found = await room.identity.idps.find(id)
      if (found === undefined)
        throw new Refusal('idp.unknown', `no provider is called ${id}`, {
          nextStep: 'list them: sallyport idp list',
        })
      return view(found)
    },
  )
}

function adding(api: Api, room: IdpRoutes): void {
  api.server.post(
    '/api/v1/idps',
    { schema: { body: NewIdp, response: { 201: Idp } } },
    async (request, reply) => {
      const {
        id,
        name,
        issuer,
        auth,
        domains,
        secret,
        ca,
        vendor,
        groups,
        roles,
        methods,
        listed,
      } = request.body
      const idle = (await room.identity.idps.find(id)) === undefined
      const target = { kind: 'idp', id, idle }
      const { subject, source } = await authorize(
        { ...room, api },
        request,
        'account:create',
        target,
      )
      if ((auth === 'secret') !== (secret !== undefined))
        throw new Refusal('body.invalid', 'a secret belongs to auth "secret", and to no other')
      const entry = {
        id,
        name,
        issuer,
        domains,
        clientId: request.body.client_id,
        secret: secret ?? null,
        signs: auth === 'key',
        ca: ca ?? null,
        vendor: vendor ?? null,
        groups: groups ?? {},
        roles: roles ?? {},
        methods: methods ?? {},
        listed: listed ?? false,
        trustEmail: request.body.trust_email ?? false,
        groupsClaim: request.body.groups_claim ?? 'groups',
        loginSeconds: request.body.login_s ?? 8 * 3_600,
      }
      const added = await room.identity.idps.add(entry, doneBy({ subject, source })).catch(rethrow)
      return reply.status(201).send(view(added))
    },
  )
}

/** Switching one off and removing it take access away from its people, as disabling them does: the same operation. */
function acting(api: Api, room: IdpRoutes): void {
  const authorization = { ...room, api }
  for (const act of ['enable', 'disable'] as const)
    api.server.post(
      `/api/v1/idps/:id/${act}`,
      { schema: { params: Params, body: Empty, response: { 200: Idp } } },
      async (request) => {
        const { id } = request.params
        const enabled = (await room.identity.idps.find(id))?.enabled ?? false
        const target = { kind: 'idp', id, idle: !enabled }
        const operation = act === 'disable' ? 'account:disable' : 'idp:change'
        const { subject, source } = await authorize(authorization, request, operation, target)
        const by = doneBy({ subject, source })
        return view(await room.identity.idps.enable(id, act === 'enable', by).catch(rethrow))
      },
    )
  api.server.post(
    '/api/v1/idps/:id/remove',
    { schema: { params: Params, body: Empty, response: { 200: RemovedIdp } } },
    async (request) => {
      const { id } = request.params
      const target = { kind: 'idp', id }
      const { subject, source } = await authorize(authorization, request, 'account:disable', target)
      const by = doneBy({ subject, source })
      return { id, people: await room.identity.idps.remove(id, by).catch(rethrow) }
    },
  )
}
