/** `/info`, `/bootstrap`, `/me`, `/accounts`. */
import { Type } from 'typebox'
import { Account, AccountId, Bootstrap, Info, LinkAccount, Me, NewAccount, Page } from '#api'
import {
  IdentityError,
  identityRows,
  type Account as IdentityAccount,
  type Identity,
  type IdentityCode,
} from '../../identity/index.ts'
import { plainAddress } from '../../facts.ts'
import type { Locks } from '../../locks/locks.ts'
import { Refusal, type ProblemCode } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, doneBy, type Authorization } from '../authorize.ts'
import { page, pageOf, readCursor, USUAL } from '../cursor.ts'

export interface PeopleRoutes extends Omit<Authorization, 'api'> {
  readonly identity: Identity
  readonly locks: Pick<Locks, 'keepingAdministrator' | 'linking'>
  readonly info: Info
}

function toAccount(account: IdentityAccount): Account {
  const { sub, email, name, party, vendor, roles, groups, disabled } = account
  const { outside, person } = account
  return {
    sub,
    email,
    name,
    party,
    vendor,
    disabled,
    person,
    roles: [...roles],
    groups: [...groups],
    idp: outside?.idp ?? null,
  }
}

/** The identity room's closed codes as answers of this API. */
export function toRefusal(error: unknown): unknown {
  if (!(error instanceof IdentityError)) return error
  const { detail, nextStep } = identityRows[error.code]
  const code = error.fault ?? error.code
  return new Refusal(problemOf(error.code), detail, {
    nextStep,
    denials: [{ code, msg: detail, next_step: nextStep }],
    cause: error,
  })
}

const PROBLEMS: Readonly<Partial<Record<IdentityCode, ProblemCode>>> = {
  'account.exists': 'account.exists',
  'account.unknown': 'account.unknown',
  'account.last_admin': 'account.state',
  'account.outside': 'account.state',
  'account.self': 'account.state',
  'account.moved': 'account.state',
  'account.disabled': 'account.state',
  'passkey.address': 'passkey.state',
  'passkey.none': 'passkey.state',
  'passkey.stale': 'passkey.refused',
  'passkey.exists': 'passkey.state',
  'passkey.full': 'passkey.state',
  'passkey.moved': 'passkey.state',
  'passkey.last': 'passkey.state',
  'passkey.unknown': 'passkey.unknown',
  'passkey.refused': 'passkey.refused',
  'totp.none': 'totp.unknown',
  'totp.stale': 'totp.refused',
  'totp.password': 'totp.state',
  'totp.code': 'totp.refused',
  'totp.limit': 'ceremony.limit',
  'totp.moved': 'totp.state',
  'invitation.unknown': 'invitation.unknown',
  'invitation.used': 'invitation.state',
  'invitation.revoked': 'invitation.state',
  'invitation.full': 'invitation.state',
  'invitation.company': 'invitation.state',
  'ceremony.unknown': 'ceremony.unknown',
  'ceremony.limit': 'ceremony.limit',
  'service.unknown': 'service.unknown',
  'service.exists': 'service.state',
  'service.full': 'service.state',
  'service.revoked': 'service.state',
  'log.unavailable': 'log.unavailable',
  'log.incomplete': 'log.unavailable',
  'idp.unknown': 'idp.unknown',
  'idp.exists': 'idp.taken',
  'idp.taken': 'idp.taken',
  'idp.full': 'idp.taken',
  'idp.entry': 'idp.invalid',
  'idp.discovery': 'idp.invalid',
  'idp.unreachable': 'idp.unreachable',
}

function problemOf(code: IdentityCode): ProblemCode {
  if (code.startsWith('bootstrap.')) return 'bootstrap.refused'
  return PROBLEMS[code] ?? 'account.invalid'
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
      authenticated_at: authn.at,
    }
  })

  listing(api, room)

  server.post(
    '/api/v1/accounts',
    { schema: { body: NewAccount, response: { 201: Account } } },
    async (request, reply) => {
      const caller = await authorize(authorization, request, 'account:create')
      const { vendor, groups, ...rest } = request.body
      const account = await room.identity.accounts
        .create({ ...rest, vendor: vendor ?? null, groups: groups ?? [] }, doneBy(caller))
        .catch((error: unknown) => {
          throw toRefusal(error)
        })
      return reply.status(201).send(toAccount(account))
    },
  )
  changing(api, room)
}

/** A page of accounts, or the one of an address. */
const AccountQuery = Type.Object(
  {
    ...Page.properties,
    email: Type.Optional(Type.String({ maxLength: 320 })),
  },
  { additionalProperties: false },
)

function listing(api: Api, room: PeopleRoutes): void {
  api.server.get(
    '/api/v1/accounts',
    { schema: { querystring: AccountQuery, response: { 200: pageOf(Account) } } },
    async (request) => {
      await authorize({ ...room, api }, request, 'account:list')
      const { limit = USUAL, email } = request.query
      if (email !== undefined) {
        const found = await room.identity.accounts.findByEmail(email)
        return { items: found === undefined ? [] : [toAccount(found)], next: null }
      }
      const [after = ''] = readCursor('accounts', [''], request.query) ?? []
      const rows = await room.identity.accounts.list(after, limit + 1)
      const { items, next } = page('accounts', rows, request.query, ({ sub }) => [sub])
      return { items: items.map(toAccount), next }
    },
  )
}

/** Of an account, the refusal has the name that it has everywhere. */
export function asLast(error: unknown): never {
  const last = error instanceof Refusal && error.code === 'lock.last_admin'
  throw last ? toRefusal(new IdentityError('account.last_admin', { cause: error })) : error
}

const AccountParams = Type.Object({ id: AccountId })
const Empty = Type.Object({}, { additionalProperties: false })

/** Taking access away, giving it back, and saying that two accounts are one person. */
function changing(api: Api, room: PeopleRoutes): void {
  const authorization = { ...room, api }
  const { accounts } = room.identity
  const rethrow = (error: unknown): never => {
    throw toRefusal(error)
  }
  for (const act of ['enable', 'disable'] as const)
    api.server.post(
      `/api/v1/accounts/:id/${act}`,
      { schema: { params: AccountParams, body: Empty, response: { 200: Account } } },
      async (request) => {
        const { id } = request.params
        const disabled = (await accounts.find(id))?.disabled ?? true
        const target = { kind: 'account', id, idle: disabled }
        // Taking access away is an act of its own: it must not wait for whom making accounts waits for.
        const operation = act === 'disable' ? 'account:disable' : 'account:change'
        const caller = await authorize(authorization, request, operation, target)
        const by = doneBy(caller)
        const change = async () =>
          await accounts.change(id, { disabled: act === 'disable' }, by).catch(rethrow)
        if (act === 'enable') return toAccount(await change())
        // One who is locked administers nothing, so they are not who is left.
        const identity = `${room.identity.issuer}|${id}`
        const gone = () => (account: { identity: string }) => account.identity === identity
        return toAccount(await room.locks.keepingAdministrator(gone, change).catch(asLast))
      },
    )
  api.server.post(
    '/api/v1/accounts/:id/link',
    { schema: { params: AccountParams, body: LinkAccount, response: { 200: Account } } },
    async (request) => {
      const { id } = request.params
      const target = { kind: 'account', id }
      const caller = await authorize(authorization, request, 'account:change', target)
      const by = doneBy(caller)
      const { to } = request.body
      const link = async () => await accounts.link(id, to, by).catch(rethrow)
      // Alone again: no lock of somebody else's is on them any more.
      if (to === null) return toAccount(await link())
      const { issuer } = room.identity
      const linked = room.locks.linking(`${issuer}|${id}`, `${issuer}|${to}`, link)
      return toAccount(await linked.catch(asLast))
    },
  )
}
