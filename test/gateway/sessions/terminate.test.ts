/** Ending a session: what may go wrong on the way, and that its end is recorded all the same. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AuditError, type AuditLog, type EventInput } from '#audit'
import { spendOf } from '../../../audit/reserve.ts'
import { heartbeatOf } from '../../../gateway/live.ts'
import type { SessionRecording } from '../../../gateway/recordings/recordings.ts'
import { LiveSession, type LiveSessionOptions } from '../../../gateway/sessions/live.ts'
import { terminate, type Cause } from '../../../gateway/sessions/terminate.ts'
import { logWith, makePlace, sessionOf, type Place } from '../../support/recordings.ts'

let place: Place
beforeAll(async () => {
  place = await makePlace()
})
afterAll(async () => place[Symbol.asyncDispose]())

type Room = Parameters<typeof terminate>[0]
const cause: Cause = { reason: 'killed', code: 'session.killed', message: 'cut' }
const recorded = sessionOf('spawn')

function sessionIn(id = recorded.id): LiveSession {
  const session = new LiveSession({
    id,
    grant: recorded.grant,
    device: recorded.device,
    process: recorded.process,
    kind: 'spawn',
    subject: { id: 'i|vera', email: 'vera@acme.test', vendor: 'acme', party: 'vendor' },
    obligations: { max_bandwidth_bps: 0 },
    decision: { id: 'd_1', revision: 'r1', codes: [] },
    openedAt: place.now,
    expiresAt: place.now + 1000,
    // Nothing of the rest is looked at where a session ends.
  } as unknown as LiveSessionOptions)
  session.startIdx = 1
  session.advance('recorded')
  return session
}

/** A room whose log refuses what the reserve does not pay for, as a full disk does. */
function fullRoom(session: LiveSession) {
  const codes: string[] = []
  const stored: string[] = []
  const reports: string[] = []
  const append: AuditLog['append'] = (event: EventInput) => {
    if (spendOf(event) === null)
      return Promise.reject(new AuditError('log.full', 'the disk of the audit log is full'))
    codes.push(event.code)
    return Promise.resolve({ idx: codes.length, uid: 'u', leaf: '0'.repeat(64) })
  }
  const room = {
    log: { append },
    store: { end: ({ id }: { id: string }) => Promise.resolve(void stored.push(id)) },
    live: new Map([[session.id, session]]),
    ending: new Set<LiveSession>(),
    now: () => place.now,
    ended: () => undefined,
    report: (_: unknown, what: string) => void reports.push(what),
  } as unknown as Room
  return { room, codes, stored, reports, append }
}

test('on a full disk the last counts are passed over, and the parts and both ends are recorded', async () => {
  const session = sessionIn()
  const { room, codes, stored, reports, append } = fullRoom(session)
  session.recording = await place
    .open({ log: logWith(place, append) })
    .admit(recorded, () => undefined)
  const tap = session.recording.tap('192.0.2.7')
  tap.data('out', Buffer.from('$ '))
  session.flow.add('out', 2, place.now)
  await terminate(room, session, cause)
  expect(codes).toEqual(['recording.part', 'recording.end', 'session.end'])
  expect(stored).toEqual([session.id])
  expect(reports).toEqual([`the last traffic of session ${session.id} could not be recorded`])
})

test('a session whose recording takes long to end stands in every heartbeat before its end, and in none after', async () => {
  const session = sessionIn('s_slow')
  const { room, codes } = fullRoom(session)
  const asked = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<string>()
  const slow: Pick<SessionRecording, 'end'> = {
    end: () => {
      asked.resolve()
      return gate.promise
    },
  }
  session.recording = slow as SessionRecording
  const named = () => heartbeatOf(room).map((line) => line.session)
  expect(named()).toEqual(['s_slow'])
  const ended = terminate(room, session, cause)
  await asked.promise
  expect([named(), room.live.size]).toEqual([['s_slow'], 0])
  gate.resolve('0'.repeat(64))
  await ended
  expect([named(), codes]).toEqual([[], ['session.end']])
})

test('a session whose end cannot be recorded is let go of, and whoever ended it is told', async () => {
  const session = sessionIn('s_lost')
  const { room } = fullRoom(session)
  let released = 0
  session.room = { release: () => void released++ }
  const log = { ...room.log, append: () => Promise.reject(new AuditError('log.closed', 'closed')) }
  await expect(terminate({ ...room, log }, session, cause)).rejects.toThrow('closed')
  expect([released, room.ending.size]).toEqual([1, 0])
})
