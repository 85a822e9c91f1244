/** `/audit/log`: the log in the public format, for witnesses and auditors, and the cosignatures that come back. */
import type { FastifyRequest } from 'fastify'
import { Accused, Cosignature, CosignaturesTaken, HeadQuery, ShownHead, WitnessList } from '#api'
import { actorOf } from '../../events.ts'
import { plainAddress } from '../../facts.ts'
import { Refusal } from '../../problem.ts'
import type { WitnessRoom } from '../../witnesses.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'

export interface WitnessRoutes extends Omit<Authorization, 'api'> {
  readonly room: WitnessRoom
}

const PREFIX = '/api/v1/audit'

export function witnessRoutes(api: Api, { room, ...guard }: WitnessRoutes): void {
  const { server } = api
  /** A named witness, or somebody who may read the log. Gives the epoch that the witness follows. */
  const admit = async (request: FastifyRequest): Promise<string | undefined> => {
    const { authorization } = request.headers
    const path = request.raw.url ?? '/'
    const witness = await room.caller({ authorization, method: request.method, path })
    if (witness === undefined) await authorize({ ...guard, api }, request, 'audit:read')
    else {
      const { ip } = api.source(request)
      await room.follows(witness.name, ip === null ? null : plainAddress(ip))
    }
    return witness?.follows
  }

  server.get(`${PREFIX}/log/checkpoint`, async (request, reply) => {
    const follows = await admit(request)
    return reply.type('text/plain; charset=utf-8').send(room.head(follows))
  })
  server.get(`${PREFIX}/log/witnessed`, async (request, reply) => {
    const note = room.witnessed(await admit(request))
    if (note === null) throw new Refusal('tile.unknown', 'no witness has cosigned a head yet')
    return reply.type('text/plain; charset=utf-8').send(note)
  })
  server.get(`${PREFIX}/log/tile/*`, async (request, reply) => {
    const follows = await admit(request)
    // The path as it was sent: the format has one spelling for each tile, and no escapes.
    const bytes = room.tile((request.raw.url ?? '').slice(`${PREFIX}/log/`.length), follows)
    return reply.type('application/octet-stream').send(Buffer.from(bytes))
  })
  server.post(
    `${PREFIX}/log/cosignatures`,
    { schema: { body: Cosignature, response: { 200: CosignaturesTaken } } },
    async (request) => {
      if ((await admit(request)) === undefined)
        throw new Refusal('witness.refused', 'only a witness hands in cosignatures')
      const taken = await room.take(request.body.note)
      return { taken: taken.map(({ name, size }) => ({ name, size })) }
    },
  )
  // A head holds hashes and a size: whoever is signed in may hold it against the gateway.
  server.get(
    `${PREFIX}/head`,
    { schema: { querystring: HeadQuery, response: { 200: ShownHead } } },
    async (request) => {
      await api.caller(request)
      return room.show(request.query.from ?? 0, request.query.held)
    },
  )
  server.post(
    `${PREFIX}/head`,
    { schema: { body: Cosignature, response: { 200: Accused } } },
    async (request) => {
      const subject = await api.caller(request)
      return { recorded: await room.accuse(request.body.note, { actor: actorOf(subject) }) }
    },
  )
  server.get(
    `${PREFIX}/witnesses`,
    { schema: { response: { 200: WitnessList } } },
    async (request) => {
      await authorize({ ...guard, api }, request, 'audit:read')
      return {
        items: room.status().map(({ name, cosigned, behind }) => ({
          name,
          size: cosigned?.size ?? null,
          at: cosigned?.at ?? null,
          behind,
        })),
      }
    },
  )
}
