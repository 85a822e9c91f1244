/** `/info`, `/bootstrap`, `/me`, `/accounts`. */
import { Type } from 'typebox'
import { Account, Bootstrap, Info, Me, NewAccount } from '#api'
import {
  IdentityError,
  identityRows,
  type Account as IdentityAccount,
  type Identity,
  type IdentityCode,
} from '../../identity/index.ts'
import { plainAddress } from '../../facts.ts'
import { Refusal, type ProblemCode } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'

export interface PeopleRoutes extends Omit<Authorization, 'api'> {
  readonly identity: Identity
  readonly info: Info
}

function toAccount(account: IdentityAccount): Account {
  const { sub, email, name, party, vendor, roles, groups, disabled } = account
  return { sub, email, name, party, vendor, roles: [...roles], groups: [...groups], disabled }
}

/** The identity room's closed codes as answers of this API. */
function toRefusal(error: unknown): unknown {
  if (!(error instanceof IdentityError)) return error
  const { detail, nextStep } = identityRows[error.code]
  return new Refusal(problemOf(error.code), detail, {
    nextStep,
    denials: [{ code: error.code, msg: detail, next_step: nextStep }],
    cause: error,
  })
}

function problemOf(code: IdentityCode): ProblemCode {
  if (code.startsWith('bootstrap.')) return 'bootstrap.refused'
  if (code === 'account.exists') return 'account.exists'
  if (code === 'log.unavailable') return 'log.unavailable'
  return 'account.invalid'
}

export function peopleRoutes(api: Api, room: PeopleRoutes): void {
  const { server } = api
  const authorization = { ...room, api }
  server.get('/api/v1/info', { schema: { security: [], response: { 200: Info } } }, () => room.info)

  server.post(
    '/api/v1/bootstrap',
    { schema: { security: [], body: Bootstrap, response: { 201: Account } } },
    async (request, reply) => {
      const { token, email, name, password } = request.body
      const source = plainAddress(request.raw.socket.remoteAddress ?? '')
      const account = await room.identity.accounts
        .redeemBootstrap(token, { email, name, password }, source)
        .catch((error: unknown) => {
          throw toRefusal(error)
        })
      return reply.status(201).send(toAccount(account))
    },
  )

  server.get('/api/v1/me', { schema: { response: { 200: Me } } }, async (request) => {
    const subject = await api.caller(request)
    const { id, email, party, vendor, roles, groups, authn } = subject
    return {
      id,
      email,
      party,
      vendor,
      roles: [...roles],
      groups: [...groups],
      methods: [...authn.methods],
    }
  })

  server.get(
    '/api/v1/accounts',
    { schema: { response: { 200: Type.Object({ items: Type.Array(Account) }) } } },
    async (request) => {
      await authorize(authorization, request, 'account:list')
      return { items: (await room.identity.accounts.list('', 500)).map(toAccount) }
    },
  )

  server.post(
    '/api/v1/accounts',
    { schema: { body: NewAccount, response: { 201: Account } } },
    async (request, reply) => {
      const caller = await authorize(authorization, request, 'account:create')
      const { vendor, groups, ...rest } = request.body
      const account = await room.identity.accounts
        .create(
          { ...rest, vendor: vendor ?? null, groups: groups ?? [] },
          { id: caller.subject.id, source: caller.source.ip },
        )
        .catch((error: unknown) => {
          throw toRefusal(error)
        })
      return reply.status(201).send(toAccount(account))
    },
  )
}
