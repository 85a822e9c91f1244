/** `/recordings`: which there are, their sealed parts, who looked; each look an event before a byte is given. */
import { readFile } from 'node:fs/promises'
import { Type } from 'typebox'
import { Page, Recording, RecordingView, SessionId, type RecordingPart } from '#api'
import {
  fileOf,
  partPath,
  readRecording,
  recordingPlaces,
  type RecordingPlace,
  type StoredPart,
  type StoredRecording,
} from '#audit'
import { actorOf, srcOf } from '../../events.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization, type Caller } from '../authorize.ts'
import { pageIn, pageOf } from '../cursor.ts'

export interface RecordingRoutes extends Omit<Authorization, 'api'> {
  readonly directory: string
}

const Params = Type.Object({ id: SessionId })
const PartParams = Type.Object({
  id: SessionId,
  track: Type.Integer({ minimum: 1, maximum: 9_999 }),
  part: Type.Integer({ minimum: 1, maximum: 9_999_999 }),
})

function view({ facts, parts, end }: StoredRecording): Recording {
  const { session, format, device, process, grant, began, recipients } = facts
  return {
    session,
    format,
    device,
    process,
    grant,
    began,
    recipients: [...recipients],
    parts: parts.map(viewPart),
    bytes: parts.reduce((sum, part) => sum + part.bytes, 0),
    end: end === undefined ? null : viewEnd(end),
  }
}

function viewPart({ track, part, sha256, bytes, t0, t1, torn, idx }: StoredPart): RecordingPart {
  return { track, part, sha256, bytes, t0, t1, torn, idx }
}

function viewEnd({ parts, root, idx, reason }: NonNullable<StoredRecording['end']>) {
  return { parts, root, idx, reason }
}

export function recordingRoutes(api: Api, room: RecordingRoutes): void {
  const authorization = { ...room, api }
  api.server.get(
    '/api/v1/recordings',
    {
      schema: {
        querystring: Page,
        response: { 200: pageOf(Recording) },
      },
    },
    async (request) => {
      await authorize(authorization, request, 'recording:list')
      const places = await recordingPlaces(room.directory)
      // Those that go on first: one that ends meanwhile was shown, and comes again.
      const keyOf = ({ open, at, name }: RecordingPlace) => [open ? 1 : 0, at, name]
      const { items, next } = pageIn('recordings', places, request.query, keyOf, 'down')
      const found = await Promise.all(items.map((one) => readRecording(room.directory, one.name)))
      const there = found.filter((one) => one !== undefined)
      // Of a list, the parts are many and nobody's question.
      return { items: there.map((one) => ({ ...view(one), parts: [] })), next }
    },
  )

  api.server.get(
    '/api/v1/recordings/:id',
    { schema: { params: Params, response: { 200: Recording } } },
    async (request) => {
      const { id } = request.params
      await authorize(authorization, request, 'recording:list', { kind: 'recording', id })
      return view(await known(room, id))
    },
  )
  reading(api, room)
}

function reading(api: Api, room: RecordingRoutes): void {
  const authorization = { ...room, api }
  api.server.get(
    '/api/v1/recordings/:id/parts/:track/:part',
    { schema: { params: PartParams } },
    async (request, reply) => {
      const { id, track, part } = request.params
      const caller = await authorize(authorization, request, 'recording:read', {
        kind: 'recording',
        id,
      })
      const { facts, parts } = await known(room, id)
      const found = parts.find((one) => one.track === track && one.part === part)
      if (found === undefined)
        throw new Refusal('recording.unknown', `${id} has no part ${part} in track ${track}`, {
          nextStep: `see \`sallyport recording show ${id}\``,
        })
      const sealed = await readFile(partPath(room.directory, id, fileOf(found)))
      await room.log.append({
        ...about(caller, facts),
        code: 'recording.read',
        message: `part ${part} of the recording given out, sealed`,
        data: { track, part, file: fileOf(found), sha256: found.sha256, bytes: found.bytes },
      })
      return reply.type('application/octet-stream').header('cache-control', 'no-store').send(sealed)
    },
  )

  api.server.post(
    '/api/v1/recordings/:id/views',
    { schema: { params: Params, body: RecordingView, response: { 200: RecordingView } } },
    async (request) => {
      const { id } = request.params
      const caller = await authorize(authorization, request, 'recording:read', {
        kind: 'recording',
        id,
      })
      const { facts } = await known(room, id)
      const { how, ranges } = request.body
      await room.log.append({
        ...about(caller, facts),
        code: 'recording.view',
        message: `the recording was opened: ${how}`,
        data: { ranges: ranges.map((range) => ({ ...range })) },
      })
      return request.body
    },
  )
}

function about(caller: Caller, facts: StoredRecording['facts']) {
  return {
    status: 'success',
    disposition: 'allowed',
    actor: actorOf(caller.subject),
    src: srcOf(caller.source),
    decisions: [caller.decision],
    session: facts.session,
    device: facts.device,
    process: facts.process,
    grant: facts.grant,
  } as const
}

async function known({ directory }: RecordingRoutes, id: string): Promise<StoredRecording> {
  const recording = await readRecording(directory, id)
  if (recording === undefined)
    throw new Refusal('recording.unknown', `session ${id} has no recording on this node`, {
      nextStep: 'see `sallyport recording list`',
    })
  return recording
}
