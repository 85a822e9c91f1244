/** What another policy would do to open sessions: who ends, who goes on with less, and that everybody is counted. */
import { expect, test } from 'vitest'
import { hashOf } from '#approval'
import type { Decision, Obligations } from '#policy'
import { foresee } from '../../../gateway/sessions/foresee.ts'
import { LiveSession, type LiveSessionOptions } from '../../../gateway/sessions/live.ts'
import type { SessionRoom } from '../../../gateway/sessions/room.ts'

const NOW = 1_800_000_000_000
const S = NOW / 1000
const subject = { id: 'iss|vera', email: 'vera', token_exp: S + 9000, groups: [], roles: [] }
const presence = { peer: { notAfter: NOW + 9e6 }, listeners: new Map(), tls: {}, agent: {} }

const bound = (more: Partial<Obligations> = {}): Obligations => ({
  max_duration_s: 3600,
  not_after: S + 3600,
  idle_timeout_s: 900,
  reeval_after_s: 300,
  max_bandwidth_bps: 1e7,
  max_bytes: 1e8,
  max_streams: 8,
  ot_level: 1,
  approvals: 1,
  record: false,
  justification: true,
  supervise: false,
  notify: false,
  ot_each: false,
  processes: ['plc'],
  methods: ['GET'],
  ot_windows: [],
  ...more,
})
const allow = (more: Partial<Obligations> = {}) =>
  ({
    allow: true,
    effect: 'allow',
    decision_id: 'd_1',
    revision: 'r',
    layer: 'rego',
    reasons: [{ code: 'grant.live' }],
    denials: [],
    obligations: bound(more),
  }) as unknown as Decision
const deny = {
  ...allow(),
  allow: false,
  denials: [{ code: 'grant.unapproved', msg: 'not enough', next: 'Ring.' }],
} as unknown as Decision

const grant = (id: string, level: number) => {
  const statement = {
    id,
    requester: subject.id,
    devices: ['press'],
    processes: ['plc'],
    ot_level: level,
    not_before: S - 60,
    not_after: S + 900 - id.length,
    max_duration_s: 900 - 100 * level,
    vendor: null,
    ...(level > 1 ? { ot_windows: [{ unit: 1, from: 0, to: 9 }] } : {}),
  }
  const ids = { first_used_at: S - 30, ended: null, state: 'active', approvals: [] }
  return { statement, hash: hashOf(statement as never), approvals_needed: 1, ...ids }
}

function open(id: string, kind: string, more: Partial<Obligations> = {}, expiresAt = NOW + 9e5) {
  const options = {
    id,
    grant: 'g',
    device: 'press',
    process: 'plc',
    kind,
    subject,
    presence,
    login: { subject: subject.id },
    source: { ip: '192.0.2.1', tls: {} },
    obligations: bound(more),
    decision: { id: 'd', revision: 'r', codes: [] },
    secret: new Uint8Array(32),
    openedAt: NOW - 1000,
    expiresAt,
  }
  return new LiveSession(options as unknown as LiveSessionOptions)
}

function connect(session: LiveSession, level: number) {
  session.streams.add({
    source: session.source,
    observed: null,
    carrier: undefined,
    narrowed: undefined,
    lease: undefined,
    toldEnd: session.end(),
    gate: { level, windows: [] },
  })
}

/** What these sessions stand on; the policy in force says what `today` says. */
function roomOf(sessions: readonly LiveSession[], today: Decision, writes: unknown[] = []) {
  const kind = sessions[0]?.kind
  const process = { device: 'press', id: 'plc', kind, locality: 'device', port: 502, expect: {} }
  return {
    live: new Map(sessions.map((one) => [one.id, one])),
    now: () => NOW,
    identity: { current: () => Promise.resolve(subject) },
    devices: {
      find: () => Promise.resolve({ id: 'press', zone: 'default', state: 'active', labels: {} }),
      findProcess: () => Promise.resolve(process),
    },
    registry: { find: () => presence, isCutOff: () => false },
    grants: { find: () => Promise.resolve(grant('g', 1)), writes: () => Promise.resolve(writes) },
    decisions: { weigh: () => today },
  } as unknown as SessionRoom
}

const everywhere = (decision: Decision) => (questions: readonly unknown[]) =>
  Promise.resolve(questions.map(() => decision))

test('whom time ends before anybody is asked is counted as looked at, too', async () => {
  const room = roomOf([open('s_over', 'tcp', {}, NOW - 1), open('s_on', 'tcp')], allow())
  const found = await foresee(room, everywhere(allow()))
  expect(found).toMatchObject({ sessions: 2, narrowed: [] })
  expect(found.ended.map(({ session, cause }) => [session.id, cause.code])).toEqual([
    ['s_over', 'window.end'],
  ])
})

test('a store that fails for one session hides nothing of the others, and the one is named', async () => {
  const room = roomOf([open('s_lost', 'tcp'), open('s_1', 'tcp'), open('s_2', 'tcp')], allow())
  const told: string[] = []
  const away = Object.assign(room, {
    identity: {
      current: ({ subject: id }: { subject: string }) =>
        id === 'lost' ? Promise.reject(new Error('disk I/O error')) : Promise.resolve(subject),
    },
    report: (error: unknown, what: string) => void told.push(`${what}: ${String(error)}`),
  })
  Object.assign(room.live.get('s_lost')?.login ?? {}, { subject: 'lost' })
  const found = await foresee(away, everywhere(deny))
  expect(found.sessions).toBe(3)
  expect(found.ended.map(({ session }) => session.id)).toEqual(['s_1', 's_2'])
  expect(found.unseen.map(({ id }) => id)).toEqual(['s_lost'])
  expect(told).toEqual(['a preview could not look at 1 sessions: Error: disk I/O error'])
})

test('a store that is away is said once, however many sessions there are; what the candidate fails at is no such thing', async () => {
  const room = roomOf([open('s_1', 'tcp'), open('s_2', 'tcp')], allow())
  const told: unknown[] = []
  const report = (error: unknown) => void told.push(error)
  const gone = { find: () => Promise.reject(new Error('gone')), writes: () => Promise.resolve([]) }
  const away = Object.assign(room, { report })
  const loops = () => Promise.reject(new Error('bundle.loops'))
  await expect(foresee(away, loops)).rejects.toThrow('bundle.loops')
  const found = await foresee(Object.assign(away, { grants: gone }), everywhere(allow()))
  expect([found.unseen.length, told.length]).toEqual([2, 1])
})

test('who is denied ends, with what the site says to do, and is not narrowed besides', async () => {
  const found = await foresee(roomOf([open('s_1', 'tcp')], allow()), everywhere(deny))
  expect(found.ended).toMatchObject([{ cause: { code: 'grant.unapproved', next: 'Ring.' } }])
  expect(found.narrowed).toEqual([])
})

test('what is less than today is named, with both values; what is more or alike is not', async () => {
  const then = allow({ max_bytes: 1e6, max_streams: 9, ot_level: 0, methods: [] })
  const found = await foresee(roomOf([open('s_1', 'tcp')], allow()), everywhere(then))
  expect(found.narrowed[0]?.tightened).toEqual([
    { name: 'max_bytes', before: 1e8, after: 1e6 },
    { name: 'ot_level', before: 1, after: 0 },
    { name: 'methods', before: ['GET'], after: [] },
  ])
  expect(found.narrowed[0]?.connections).toBe(0)
})

test('of two connections that are told otherwise the session goes on with less only where it is less than both', async () => {
  const session = open('s_1', 'tcp', { max_bytes: 1e7 })
  connect(session, 1)
  session.streams.add({ ...[...session.streams][0]!, observed: { pid: 2 } as never })
  const of = (facts: unknown, first: number, second: number) =>
    allow({ max_bytes: JSON.stringify(facts).includes('"pid":2') ? second : first })
  const room = roomOf([session], allow())
  Object.assign(room.decisions, { weigh: (_: string, facts: unknown) => of(facts, 1e8, 1e7) })
  const then = (first: number, second: number) => async (questions: readonly unknown[]) =>
    questions.map((facts) => of(facts, first, second))
  expect((await foresee(room, then(2e7, 1e7))).narrowed).toEqual([])
  expect((await foresee(room, then(1e6, 1e7))).narrowed[0]?.tightened).toEqual([
    { name: 'max_bytes', before: 1e7, after: 1e6 },
  ])
})

test('what has become less by itself is no change of the policy', async () => {
  const less = allow({ not_after: S + 10 })
  const found = await foresee(roomOf([open('s_1', 'tcp')], less), everywhere(less))
  expect(found).toMatchObject({ sessions: 1, ended: [], narrowed: [] })
})

test('connections that may do more are counted; who reads on the own grant alone is held to that', async () => {
  const session = open('s_1', 'modbus', {
    ot_level: 2,
    ot_windows: [[{ unit: 1, from: 0, to: 9 }]],
  })
  for (const level of [1, 2, 2]) connect(session, level)
  const room = roomOf([session], allow(session.obligations), [grant('write', 2)])
  const asked: number[] = []
  const found = await foresee(room, (questions) => {
    asked.push(questions.length)
    return Promise.resolve(questions.map(() => allow({ ot_level: 1 })))
  })
  // The one sight of all three, with the grant to write and without.
  expect(asked).toEqual([2])
  expect(found.narrowed).toMatchObject([
    { connections: 2, tightened: [{ name: 'ot_level', before: 2, after: 1 }] },
  ])
})
