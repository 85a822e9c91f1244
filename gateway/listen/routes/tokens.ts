/** `/devices/{id}/tokens`: one-time enrolment tokens, made, shown by what became of them, ended, freed for another key. */
import { Type } from 'typebox'
import { DeviceToken, EnrolmentToken, Name, Page, TokenAct, TokenId } from '#api'
import {
  instant,
  isMakersClaim,
  obstacleToRebinding,
  rebindToken,
  type CaStore,
  type TokenObstacle,
  type TokenRow,
} from '#ca'
import type { Device, DeviceStore } from '../../devices/device.ts'
import { ANOTHER_ID } from '../../devices/retire.ts'
import { revokeAndCut, type Reach, type RevocationRoom } from '../../devices/revoke.ts'
import { deviceToken, TOKEN_LIFETIME_S, type TokenRoom } from '../../devices/token.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { pageIn, pageOf } from '../cursor.ts'
import { recordWords } from './certificates.ts'

export interface TokenRoutes extends Omit<Authorization, 'api'> {
  readonly devices: Pick<DeviceStore, 'find'>
  readonly caStore: CaStore
  readonly revocation: RevocationRoom
  readonly tokens: TokenRoom
  /** Epoch milliseconds. */
  readonly now: () => number
}

const Params = Type.Object({ id: Name })
const TokenParams = Type.Object({ id: Name, token: TokenId })
const seconds = (ms: number) => Math.floor(ms / 1000)

function view(row: TokenRow, now: number): EnrolmentToken {
  const { id, createdAt, expiresAt, revokedAt, binding } = row
  const unused = expiresAt <= now ? 'expired' : 'unused'
  const state = binding === null ? unused : 'used'
  return {
    id,
    kind: isMakersClaim(row) ? 'maker' : 'token',
    state: revokedAt === null ? state : 'revoked',
    created_at: seconds(createdAt),
    expires_at: seconds(expiresAt),
    used_at: binding === null ? null : seconds(binding.at),
    serial: binding?.serial ?? null,
    spki_sha256: binding?.spkiSha256 ?? null,
  }
}

export function tokenRoutes(api: Api, room: TokenRoutes): void {
  making(api, room)
  acting(api, room)
}

function making(api: Api, room: TokenRoutes): void {
  const authorization = { ...room, api }
  const { tenant } = room.tokens
  api.server.get(
    '/api/v1/devices/:id/tokens',
    {
      schema: {
        params: Params,
        querystring: Page,
        response: { 200: pageOf(EnrolmentToken) },
      },
    },
    async (request) => {
      const { id } = request.params
      await authorize(authorization, request, 'device:show', { kind: 'device', id })
      await known(room, id)
      const rows = await room.caStore.listTokens(tenant, id)
      const keyOf = (row: TokenRow) => [row.createdAt, row.id]
      const { items, next } = pageIn(`tokens ${id}`, rows, request.query, keyOf, 'down')
      return { items: items.map((row) => view(row, room.now())), next }
    },
  )
  api.server.post(
    '/api/v1/devices/:id/token',
    { schema: { params: Params, response: { 201: DeviceToken } } },
    async (request, reply) => {
      const { id } = request.params
      const caller = await authorize(authorization, request, 'token:create', { kind: 'device', id })
      takesTokens(await known(room, id))
      // Whoever asks for another may have shown the last one to somebody.
      for (const row of await room.caStore.listTokens(tenant, id))
        if (view(row, room.now()).state === 'unused' && !isMakersClaim(row)) {
          const words = 'revoke, unless it is used before that: a newer one is made'
          await recordWords({ ...room, caller }, 'token:create', `token:${row.id}`, words)
          await room.caStore.revokeToken(tenant, row.id, instant(room.now()))
        }
      return reply.status(201).send(await deviceToken(room.tokens, id))
    },
  )
}

function acting(api: Api, room: TokenRoutes): void {
  const authorization = { ...room, api }
  for (const act of ['revoke', 'rebind'] as const)
    api.server.post(
      `/api/v1/devices/:id/tokens/:token/${act}`,
      { schema: { params: TokenParams, body: TokenAct, response: { 200: EnrolmentToken } } },
      async (request) => {
        const at = performance.now()
        const { id, token } = request.params as { id: string; token: string }
        const { reason } = request.body as TokenAct
        const tokens = await room.caStore.listTokens(room.tokens.tenant, id)
        const idle = !tokens.some(
          (one) => one.id === token && one.binding === null && one.revokedAt === null,
        )
        const target = { kind: 'device', id, idle }
        const caller = await authorize(authorization, request, 'token:create', target)
        const row = await tokenOf(room, id, token)
        // What will be refused is refused before the log says that it is done.
        const before = await obstacleTo(act, row, room)
        if (before !== undefined) throw obstructed(act, row, before)
        const entity = `token:${token}`
        await recordWords({ ...room, caller }, 'token:create', entity, `${act}: ${reason}`)
        const by = { by: caller.subject.id, at, requestId: request.id }
        const after = act === 'revoke' ? await revoke(row, room) : await rebind(row, by, room)
        if (after !== undefined) throw obstructed(act, row, after)
        return view(await tokenOf(room, id, token), room.now())
      },
    )
}

type Act = 'revoke' | 'rebind'
type Obstacle = TokenObstacle | 'used'

async function obstacleTo(
  act: Act,
  row: TokenRow,
  room: TokenRoutes,
): Promise<Obstacle | undefined> {
  if (act === 'rebind') {
    takesTokens(await known(room, row.device))
    return await obstacleToRebinding(row, room.caStore)
  }
  if (row.binding !== null) return 'used'
  return row.revokedAt === null ? undefined : 'revoked'
}

async function revoke({ tenant, id }: TokenRow, room: TokenRoutes): Promise<Obstacle | undefined> {
  const done = await room.caStore.revokeToken(tenant, id, instant(room.now()))
  return done ? undefined : 'changed'
}

async function rebind(
  row: TokenRow,
  by: Omit<Reach, 'reason'>,
  { caStore, revocation, now }: TokenRoutes,
): Promise<Obstacle | undefined> {
  const reach = { ...by, reason: 'superseded' } as const
  const end = async (serial: string) => await revokeAndCut(revocation, { serial }, reach)
  const request = { lifetimeSeconds: TOKEN_LIFETIME_S, now: instant(now()) }
  return await rebindToken(row, request, { store: caStore, end })
}

function obstructed(act: Act, { id, device, binding }: TokenRow, obstacle: Obstacle): Refusal {
  const serial = binding?.serial ?? ''
  if (obstacle === 'used')
    return new Refusal('token.used', `${id} was used: what counts now is the certificate it got`, {
      nextStep: `end that: sallyport ca revoke ${serial} --reason …`,
    })
  if (obstacle === 'in use')
    return new Refusal('token.used', `${id} was used, and its certificate ${serial} as well`, {
      nextStep: `make a new token instead: sallyport device token ${device}`,
    })
  const state = obstacle === 'changed' ? 'not what it was a moment ago' : obstacle
  return new Refusal('token.state', `${id} is ${state}; there is nothing to ${act}`, {
    nextStep: `see what became of it: sallyport device tokens ${device}`,
  })
}

async function tokenOf(room: TokenRoutes, device: string, token: string): Promise<TokenRow> {
  const rows = await room.caStore.listTokens(room.tokens.tenant, device)
  const row = rows.find(({ id }) => id === token)
  if (row !== undefined) return row
  throw new Refusal('token.unknown', `${device} has no token ${token}`, {
    nextStep: `see those it has: sallyport device tokens ${device}`,
  })
}

function takesTokens({ id, state }: Device): void {
  if (state !== 'revoked' && state !== 'retired') return
  throw new Refusal('device.state', `the device is ${state}; it gets no token`, {
    nextStep:
      state === 'retired'
        ? ANOTHER_ID
        : `ready it for another machine: sallyport device replace ${id} --reason …`,
  })
}

async function known({ devices }: TokenRoutes, id: string) {
  const device = await devices.find(id)
  if (device !== undefined) return device
  throw new Refusal('device.unknown', `no device ${id}`, {
    nextStep: 'see `sallyport device list`',
  })
}
