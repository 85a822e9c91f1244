/** `/totp`: one's own authenticator app, and an administrator's way to take it from somebody who lost it. */
import { Type } from 'typebox'
import { AccountId, Enrolling, NewTotp, Totps } from '#api'
import {
  secondShown,
  type Identity,
  type Subject,
  type Totp as Held,
} from '../../identity/index.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, doneBy, type Authorization } from '../authorize.ts'
import { toRefusal } from './people.ts'

export interface TotpRoutes extends Omit<Authorization, 'api'> {
  readonly identity: Identity
  /** `https://<host>:<port>`. */
  readonly origin: string
  /** Epoch milliseconds. */
  readonly now: () => number
}

const Empty = Type.Object({}, { additionalProperties: false })
/** How long ago the second factor was shown that takes an app off, at most. Seconds. */
const FRESH_S = 300

const seconds = (ms: number) => Math.floor(ms / 1000)

const view = (held: Held | undefined): Totps => ({
  items:
    held === undefined
      ? []
      : [
          {
            name: held.name,
            created_at: seconds(held.createdAt),
            used_at: held.usedAt === null ? null : seconds(held.usedAt),
          },
        ],
})

const rethrow = (error: unknown): never => {
  throw toRefusal(error)
}

export function totpRoutes(api: Api, room: TotpRoutes): void {
  const { server } = api
  const { totps, accounts, issuer } = room.identity
  const subOf = ({ id }: Subject): string => id.slice(issuer.length + 1)
  server.get('/api/v1/totp', { schema: { response: { 200: Totps } } }, async (request) =>
    view(await totps.find(subOf(await api.caller(request)))),
  )
  server.post(
    '/api/v1/totp',
    { schema: { body: NewTotp, response: { 201: Enrolling } } },
    async (request, reply) => {
      const subject = await api.caller(request)
      const login = room.identity.loginOf(subject)
      const { name } = request.body
      const { secret, expiresAt } = await totps.enrol(subject, login, name).catch(rethrow)
      // Behind the hash: it reaches no server log and no referrer.
      const url = `${room.origin}/oidc/totp#${secret}`
      return reply.status(201).send({ url, expires_at: expiresAt })
    },
  )
  server.post(
    '/api/v1/totp/remove',
    { schema: { body: Empty, response: { 200: Totps } } },
    async (request) => {
      const subject = await api.caller(request)
      const age = seconds(room.now()) - subject.authn.at
      // Who took over a sign-in must not take the second factor off the account with it.
      if (!secondShown(subject.authn) || age < -5 || age > FRESH_S)
        throw new Refusal('policy.denied', 'an app is removed by who has just given a code of it', {
          nextStep: 'sallyport login --again, or ask an administrator',
          denials: [
            { code: 'mfa.stale', msg: 'a fresh second factor is required', remedy: 'step_up' },
          ],
        })
      const sub = subOf(subject)
      await totps.remove(sub, doneBy({ subject, source: api.source(request) })).catch(rethrow)
      return view(await totps.find(sub))
    },
  )
  server.post(
    '/api/v1/accounts/:id/totp/remove',
    { schema: { params: Type.Object({ id: AccountId }), body: Empty, response: { 200: Totps } } },
    async (request) => {
      const { id } = request.params
      const has = (await totps.find(id)) !== undefined || (await accounts.hasLogins(id))
      const target = { kind: 'account', id, idle: !has }
      const caller = await authorize({ ...room, api }, request, 'account:change', target)
      await totps.reset(id, doneBy(caller)).catch(rethrow)
      return view(await totps.find(id))
    },
  )
}
