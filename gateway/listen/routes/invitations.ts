/** `/invitations`: guests. Who may make accounts invites, who may take access away withdraws. */
import { Type } from 'typebox'
import {
  AccountId,
  Invitation,
  InvitationId,
  MadeInvitation,
  NewInvitation,
  RenewAccount,
  Page,
} from '#api'
import type { Identity, Invitation as Held } from '../../identity/index.ts'
import type { Api } from '../api.ts'
import { authorize, doneBy, type Authorization } from '../authorize.ts'
import { page, pageOf, readCursor, USUAL } from '../cursor.ts'
import { toRefusal } from './people.ts'

export interface InvitationRoutes extends Omit<Authorization, 'api'> {
  readonly identity: Identity
  /** `https://<host>:<port>`. */
  readonly origin: string
  /** Epoch milliseconds. */
  readonly now: () => number
}

const seconds = (ms: number) => Math.floor(ms / 1000)

function view(held: Held, now: number): Invitation {
  const { id, email, name, vendor, groups, renews, by, closed, createdAt, expiresAt } = held
  return {
    id,
    email,
    name,
    vendor,
    renews,
    by,
    groups: [...groups],
    state: closed?.how ?? (expiresAt <= now ? 'expired' : 'open'),
    created_at: seconds(createdAt),
    expires_at: seconds(expiresAt),
    closed_at: closed === null ? null : seconds(closed.at),
  }
}

const rethrow = (error: unknown): never => {
  throw toRefusal(error)
}

const Empty = Type.Object({}, { additionalProperties: false })

function made({ origin, now }: InvitationRoutes, invitation: Held, secret: string): MadeInvitation {
  // Behind the hash: it reaches no server log and no referrer.
  return { invitation: view(invitation, now()), url: `${origin}/oidc/invitation#${secret}` }
}

export function invitationRoutes(api: Api, room: InvitationRoutes): void {
  making(api, room)
  keeping(api, room)
}

/** A link for a guest, and one for the owner of an account. */
function making(api: Api, room: InvitationRoutes): void {
  const authorization = { ...room, api }
  const { server } = api
  const { invitations } = room.identity
  server.post(
    '/api/v1/invitations',
    { schema: { body: NewInvitation, response: { 201: MadeInvitation } } },
    async (request, reply) => {
      const caller = await authorize(authorization, request, 'account:create')
      const { stands_s: standsSeconds, groups = [], ...rest } = request.body
      const asked = { ...rest, groups, standsSeconds }
      const { invitation, secret } = await invitations.invite(asked, doneBy(caller)).catch(rethrow)
      return reply.status(201).send(made(room, invitation, secret))
    },
  )
  server.post(
    '/api/v1/accounts/:id/renew',
    {
      schema: {
        params: Type.Object({ id: AccountId }),
        body: RenewAccount,
        response: { 201: MadeInvitation },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const target = { kind: 'account', id, act: 'account:renew' } as const
      // Whoever has the link is that person from then on: it takes the right to make one, whatever the account may do.
      const caller = await authorize(authorization, request, 'account:create', target)
      const { invitation, secret } = await invitations
        .renew(id, request.body.stands_s, doneBy(caller))
        .catch(rethrow)
      return reply.status(201).send(made(room, invitation, secret))
    },
  )
}

/** Those there are, and withdrawing one. */
function keeping(api: Api, room: InvitationRoutes): void {
  const authorization = { ...room, api }
  const { server } = api
  const { invitations } = room.identity
  const schema = { querystring: Page, response: { 200: pageOf(Invitation) } }
  server.get('/api/v1/invitations', { schema }, async (request) => {
    await authorize(authorization, request, 'account:list')
    const { query } = request
    const [createdAt, id] =
      readCursor('invitations', [0, ''] as readonly [number, string], query) ?? []
    const after = createdAt === undefined || id === undefined ? undefined : { createdAt, id }
    const rows = await invitations.list((query.limit ?? USUAL) + 1, after)
    const { items, next } = page('invitations', rows, query, (one) => [one.createdAt, one.id])
    return { items: items.map((one) => view(one, room.now())), next }
  })
  server.post(
    '/api/v1/invitations/:id/revoke',
    {
      schema: {
        params: Type.Object({ id: InvitationId }),
        body: Empty,
        response: { 200: Invitation },
      },
    },
    async (request) => {
      const { id } = request.params
      const idle = (await invitations.find(id))?.closed !== null
      const target = { kind: 'invitation', id, act: 'account:uninvite', idle } as const
      const caller = await authorize(authorization, request, 'account:disable', target)
      return view(await invitations.revoke(id, doneBy(caller)).catch(rethrow), room.now())
    },
  )
}
