/** `/devices/{id}/tokens`: one-time enrolment tokens, made, shown by what became of them, ended, freed for another key. */
import { Type } from 'typebox'
import { DeviceToken, EnrolmentToken, Name, TokenAct, TokenId } from '#api'
import { instant, rebindToken, type CaLog, type CaStore, type TokenRow } from '#ca'
import type { DeviceStore } from '../../devices/device.ts'
import { deviceToken, TOKEN_LIFETIME_S, type TokenRoom } from '../../devices/token.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { recordWords } from './certificates.ts'

export interface TokenRoutes extends Omit<Authorization, 'api'> {
  readonly devices: Pick<DeviceStore, 'find'>
  readonly caStore: CaStore
  readonly caLog: CaLog
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
    kind: row.hash.startsWith('idevid:') ? 'maker' : 'token',
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
        response: { 200: Type.Object({ items: Type.Array(EnrolmentToken) }) },
      },
    },
    async (request) => {
      const { id } = request.params
      await authorize(authorization, request, 'device:show', { kind: 'device', id })
      await known(room, id)
      const rows = await room.caStore.listTokens(tenant, id)
      return { items: rows.map((row) => view(row, room.now())) }
    },
  )
  api.server.post(
    '/api/v1/devices/:id/token',
    { schema: { params: Params, response: { 201: DeviceToken } } },
    async (request, reply) => {
      const { id } = request.params
      await authorize(authorization, request, 'token:create', { kind: 'device', id })
      const device = await known(room, id)
      if (device.state === 'revoked' || device.state === 'retired')
        throw new Refusal('device.state', `the device is ${device.state}; it gets no token`, {
          nextStep: `ready it for another machine: sallyport device replace ${id} --reason …`,
        })
      // Whoever asks for another may have shown the last one to somebody.
      for (const row of await room.caStore.listTokens(tenant, id))
        if (view(row, room.now()).state === 'unused' && !row.hash.startsWith('idevid:'))
          await room.caStore.revokeToken(tenant, row.id, instant(room.now()))
      return reply.status(201).send(await deviceToken(room.tokens, id))
    },
  )
}

function acting(api: Api, room: TokenRoutes): void {
  const authorization = { ...room, api }
  const { tenant } = room.tokens
  for (const act of ['revoke', 'rebind'] as const)
    api.server.post(
      `/api/v1/devices/:id/tokens/:token/${act}`,
      { schema: { params: TokenParams, body: TokenAct, response: { 200: EnrolmentToken } } },
      async (request) => {
        const { id, token } = request.params as { id: string; token: string }
        const { reason } = request.body as TokenAct
        const target = { kind: 'device', id }
        const caller = await authorize(authorization, request, 'token:create', target)
        const row = await tokenOf(room, id, token)
        await recordWords(
          { ...room, caller },
          'token:create',
          `token:${token}`,
          `${act}: ${reason}`,
        )
        const at = instant(room.now())
        const life = { lifetimeSeconds: TOKEN_LIFETIME_S, now: at, requestId: request.id }
        const done =
          act === 'revoke'
            ? await room.caStore.revokeToken(tenant, token, at)
            : await rebindToken(row, life, { store: room.caStore, log: room.caLog })
        if (!done)
          throw new Refusal('token.state', `${token} is ${SAID[act]}`, {
            nextStep: `see what became of it: sallyport device tokens ${id}`,
          })
        return view(await tokenOf(room, id, token), room.now())
      },
    )
}
const SAID = {
  revoke: 'revoked already',
  rebind: 'unused or revoked, or its certificate is in use: make a new token instead',
} as const

async function tokenOf(room: TokenRoutes, device: string, token: string): Promise<TokenRow> {
  const rows = await room.caStore.listTokens(room.tokens.tenant, device)
  const row = rows.find(({ id }) => id === token)
  if (row !== undefined) return row
  throw new Refusal('token.unknown', `${device} has no token ${token}`, {
    nextStep: `see those it has: sallyport device tokens ${device}`,
  })
}

async function known({ devices }: TokenRoutes, id: string) {
  const device = await devices.find(id)
  if (device !== undefined) return device
  throw new Refusal('device.unknown', `no device ${id}`, {
    nextStep: 'see `sallyport device list`',
  })
}
