/** `/auditors`: whose keys open recordings. Each change is an event that names the key. */
import { Type } from 'typebox'
import { AddedAuditor, Auditor as AuditorView, ConfirmAuditor, Name, NewAuditor, Page } from '#api'
import {
  addAuditor,
  confirmAuditor,
  unknown,
  type Auditor,
  type AuditorStore,
} from '../../recordings/auditors.ts'
import { actorOf, srcOf } from '../../events.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { pageIn, pageOf } from '../cursor.ts'

export interface AuditorRoutes extends Omit<Authorization, 'api'> {
  readonly auditors: AuditorStore
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly random: (bytes: number) => Uint8Array
}

const Params = Type.Object({ name: Name })

function view({ name, recipient, confirmed_at, added_at, by }: Auditor): AuditorView {
  return { name, recipient, state: confirmed_at === null ? 'unconfirmed' : 'active', added_at, by }
}

export function auditorRoutes(api: Api, room: AuditorRoutes): void {
  const { auditors } = room
  const authorization = { ...room, api }
  const seconds = () => Math.floor(room.now() / 1000)
  const target = (act: 'add' | 'confirm' | 'remove', name: string, recipient: string) => ({
    kind: 'auditor',
    id: `${name}:${recipient}`,
    act: `auditor:${act}` as const,
  })
  api.server.get(
    '/api/v1/auditors',
    { schema: { querystring: Page, response: { 200: pageOf(AuditorView) } } },
    async (request) => {
      await authorize(authorization, request, 'auditor:list')
      const keyOf = ({ added_at, name }: Auditor) => [added_at, name]
      const { items, next } = pageIn('auditors', await auditors.list(), request.query, keyOf)
      return { items: items.map(view), next }
    },
  )

  api.server.post(
    '/api/v1/auditors',
    { schema: { body: NewAuditor, response: { 201: AddedAuditor } } },
    async (request, reply) => {
      const { name, recipient } = request.body
      const { subject } = await authorize(
        authorization,
        request,
        'auditor:change',
        target('add', name, recipient),
      )
      const added = { name, recipient, by: subject.id, at: seconds() }
      const { auditor, test } = await addAuditor(auditors, added, room.random)
      return reply
        .status(201)
        .send({ auditor: view(auditor), test: Buffer.from(test).toString('base64') })
    },
  )

  api.server.post(
    '/api/v1/auditors/:name/confirm',
    { schema: { params: Params, body: ConfirmAuditor, response: { 200: AuditorView } } },
    async (request) => {
      const { name } = request.params
      const { recipient = '' } = (await auditors.find(name)) ?? {}
      const asked = target('confirm', name, recipient)
      const { subject, source } = await authorize(authorization, request, 'auditor:change', asked)
      const told = async (status: 'success' | 'failure', reason?: string) =>
        await room.log.append({
          code: 'admin.call',
          message: `the key of auditor ${name} ${status === 'success' ? 'is confirmed' : 'is not confirmed'}`,
          status,
          reason,
          actor: actorOf(subject),
          src: srcOf(source),
          data: { operation: asked.act, verb: 'update', entity: `auditor:${asked.id}` },
        })
      try {
        const confirmed = await confirmAuditor(auditors, name, request.body.secret, seconds())
        await told('success')
        return view(confirmed)
      } catch (error) {
        if (error instanceof Refusal) await told('failure', error.code)
        throw error
      }
    },
  )

  api.server.post(
    '/api/v1/auditors/:name/remove',
    { schema: { params: Params, response: { 200: AuditorView } } },
    async (request) => {
      const { name } = request.params
      const auditor = await auditors.find(name)
      await authorize(
        authorization,
        request,
        'auditor:change',
        target('remove', name, auditor?.recipient ?? ''),
      )
      if (auditor === undefined) throw unknown(name)
      await auditors.remove(name)
      return view(auditor)
    },
  )
}
