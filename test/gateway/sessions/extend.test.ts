/** A session whose grant is extended while it is open: no gap, no time that nobody approved, and everybody is told. */
import { describe, expect, test } from 'vitest'
import { hashOf, type Statement } from '#approval'
import type { Obligations } from '#policy'
import { TunnelRefused } from '#tunnel'
import { extensionOf } from '../../../gateway/grants/extend.ts'
import { expiresAt, type Approval, type Grant } from '../../../gateway/grants/grant.ts'
import { follow, isNews, leave } from '../../../gateway/sessions/extend.ts'
import {
  LiveSession,
  type LiveSessionOptions,
  type LiveStream,
} from '../../../gateway/sessions/live.ts'
import { Reauthorization } from '../../../gateway/sessions/reevaluate.ts'
import type { SessionRoom, Target } from '../../../gateway/sessions/room.ts'
import { signedOpening } from '../../../gateway/sessions/signed.ts'
import { openStream } from '../../../gateway/sessions/stream.ts'
import { grantAround } from '../grants/around.ts'
import { statementOf } from '../../support/statement.ts'

const NOW = 1_780_000_000
const statement = statementOf(NOW)
const own = grantAround(statement, { state: 'active', first_used_at: NOW, uses: 1 })
function longer(longer_s: number): Grant {
  const made = extensionOf({ grant: own, longer_s, reason: 'r' }, 'g_2', NOW + 1)
  return { ...own, extension: { statement: made, hash: hashOf(made), approvals: [] } }
}

/** A session of `own`, opened at its first use, over one connection and with one client that only listens. */
function place(more: Partial<Obligations> = {}) {
  const told: unknown[] = []
  const tell = (who: string) => (message: Uint8Array) =>
    void told.push([who, JSON.parse(new TextDecoder().decode(message))])
  const clock = { now: NOW * 1000 }
  const reports: string[] = []
  const obligations = {
    max_duration_s: 7200,
    not_after: NOW + 600,
    idle_timeout_s: 90_000,
    reeval_after_s: 90_000,
    max_bandwidth_bps: 1,
    record: false,
    notify: false,
    supervise: false,
    ot_each: false,
    ot_windows: [],
    ot_level: 1,
    ...more,
  } as unknown as Obligations
  const session = new LiveSession({
    id: 's_1',
    grant: 'g_1',
    device: 'press-07',
    process: 'plc',
    kind: 'tcp',
    subject: { id: 'iss|vera', authn: { methods: [] }, token_exp: NOW + 90_000 },
    source: { ip: null, tls: null },
    obligations,
    decision: { id: 'd_1', revision: 'r1', codes: [] },
    presence: { peer: { notAfter: (NOW + 90_000) * 1000 } },
    openedAt: NOW * 1000,
    expiresAt: expiresAt(own) * 1000,
  } as unknown as LiveSessionOptions)
  session.startIdx = 1
  session.advance('recorded')
  const cuts: string[] = []
  const cut = ({ code }: { readonly code: string }) => {
    cuts.push(code)
    return Promise.resolve()
  }
  session.streams.add({
    source: session.source,
    observed: null,
    carrier: { cut, tell: tell('client') },
    lease: tell('device'),
    toldEnd: session.end(),
    gate: undefined,
    narrowed: undefined,
  })
  session.watchers.add({ cut, tell: tell('watcher') })
  const room = {
    now: () => clock.now,
    report: (_: unknown, what: string) => void reports.push(what),
    live: new Map([[session.id, session]]),
    ending: new Set(),
    ended: () => undefined,
    log: { append: () => Promise.resolve({ idx: 1 }) },
    store: { end: () => Promise.resolve() },
  } as unknown as SessionRoom
  return { session, room, told, clock, reports, cuts, obligations }
}

describe('what a session stands on', () => {
  const target = {} as Target
  const write = (first_used_at: number | null): Grant => ({
    ...grantAround(statementOf(NOW, { id: 'g_2', ot_level: 2 })),
    state: first_used_at === null ? 'approved' : 'active',
    first_used_at,
  })
  const stood = ({ session }: ReturnType<typeof place>) => ({
    elevation: session.elevation,
    used: session.footing?.grants.map(({ first_used_at: used }) => used),
  })

  test('a grant that was used stays used, though a decision was looked up before that', () => {
    const there = place()
    const later = { grants: [write(null)], changesAt: NOW + 3000 }
    there.session.stands({ grants: [write(NOW)], changesAt: NOW + 600 }, { target, grants: [] })
    there.session.stands(later, { target, grants: [write(null)] })
    expect(stood(there)).toEqual({
      elevation: { grants: [write(NOW)], changesAt: NOW + 600 },
      used: [NOW],
    })
  })
  test('and one that nobody used is unused, and one that is gone is not brought back', () => {
    const there = place()
    const none = { grants: [write(null)], changesAt: NOW + 3000 }
    there.session.stands(none, { target, grants: [] })
    expect(stood(there)).toEqual({ elevation: none, used: [] })
    there.session.stands({ grants: [write(NOW)], changesAt: NOW + 600 }, { target, grants: [] })
    there.session.stands({ grants: [], changesAt: Infinity }, { target, grants: [] })
    expect(stood(there)).toEqual({ elevation: { grants: [], changesAt: Infinity }, used: [] })
  })
})

describe('what follows a decision', () => {
  test('a grant as it was: nothing changes, nobody is told', () => {
    const { session, room, told } = place()
    expect(isNews(session, own)).toBe(false)
    follow(room, session, own)
    expect([session.end(), told]).toEqual([(NOW + 600) * 1000, []])
  })
  test('extended: it ends later, both ends are told how much is left, once', () => {
    const { session, room, told, clock } = place()
    clock.now += 100_000
    session.obligations = { ...session.obligations, not_after: NOW + 900 }
    for (let again = 0; again < 2; again++) follow(room, session, longer(300))
    expect([session.end(), session.deadline()]).toEqual([(NOW + 900) * 1000, (NOW + 900) * 1000])
    expect(told).toEqual([
      ['device', { t: 'lease', remaining_ms: 800_000 }],
      ['client', { t: 'extended', remaining_ms: 800_000 }],
      ['watcher', { t: 'extended', remaining_ms: 800_000 }],
    ])
  })
  test('policy ends it sooner than the extension: so long it lasts', () => {
    const { session, room, told } = place()
    session.obligations = { ...session.obligations, not_after: NOW + 700 }
    follow(room, session, longer(300))
    expect(session.end()).toBe((NOW + 700) * 1000)
    expect(told).toContainEqual(['device', { t: 'lease', remaining_ms: 700_000 }])
  })
  test('no session lasts longer than policy lets any, whatever its grant', () => {
    const { session, room } = place({ max_duration_s: 650 })
    session.obligations = { ...session.obligations, not_after: NOW + 900 }
    follow(room, session, longer(300))
    expect(session.end()).toBe((NOW + 650) * 1000)
  })
  test('the extension is taken back: it ends when it would have', () => {
    const { session, room, told } = place()
    session.obligations = { ...session.obligations, not_after: NOW + 900 }
    follow(room, session, longer(300))
    const before = told.length
    session.obligations = { ...session.obligations, not_after: NOW + 600 }
    follow(room, session, own)
    expect([session.end(), session.extension, told.length]).toEqual([
      (NOW + 600) * 1000,
      null,
      before,
    ])
  })
  test('a connection that resists being told: reported, and the others are told', () => {
    const { session, room, told, reports } = place()
    const [stream] = session.streams
    if (stream !== undefined) {
      stream.lease = () => {
        throw new Error('gone')
      }
    }
    session.obligations = { ...session.obligations, not_after: NOW + 900 }
    follow(room, session, longer(300))
    expect([told.length, reports.length]).toEqual([2, 1])
  })
  test('a connection with an end of its own goes: who was told that end is told the later one', () => {
    const { session, room, told } = place()
    const [stays] = session.streams
    const goes = { source: session.source, observed: null } as unknown as LiveStream
    session.streams.add(goes)
    session.bindAlso(goes, { ...session.obligations, not_after: NOW + 60 })
    if (stays !== undefined) stays.toldEnd = session.end()
    leave(room, session, goes)
    leave(room, session, goes)
    expect(told).toEqual([
      ['device', { t: 'lease', remaining_ms: 600_000 }],
      ['client', { t: 'extended', remaining_ms: 600_000 }],
    ])
  })
})

describe('at the very end of its time', () => {
  /** Everything a decision asks for, with the grant as the store has it at that moment. */
  function deciding(grant: Grant, standing = false) {
    const made = place()
    const asked: unknown[] = []
    const room = Object.assign(made.room, {
      identity: { current: () => Promise.resolve(made.session.subject) },
      devices: {
        find: () =>
          Promise.resolve({ id: 'press-07', zone: 'default', state: 'active', labels: {} }),
        findProcess: () =>
          Promise.resolve({ id: 'plc', kind: 'tcp', locality: 'device', port: 1, expect: {} }),
      },
      registry: { find: () => undefined, isCutOff: () => false },
      grants: { find: () => Promise.resolve(grant) },
      decisions: {
        ask: (_: string, facts: { grants: { expires_at: number }[] }) => {
          asked.push(facts.grants)
          const ends = Math.max(...facts.grants.map(({ expires_at: at }) => at))
          const allow = standing || ends * 1000 > made.clock.now
          return {
            allow,
            decision_id: 'd_2',
            layer: 'host',
            revision: 'r1',
            reasons: [],
            denials: allow ? [] : [{ code: 'grant.expired', msg: 'your grant has ended' }],
            obligations: { ...made.obligations, not_after: standing ? NOW + 7200 : ends },
          }
        },
      },
    })
    // No connection: what is decided is about the session as a whole.
    made.session.streams.clear()
    made.session.presence = {
      peer: { notAfter: (NOW + 90_000) * 1000, serial: '01' },
      tls: null,
      agent: { version_int: 1 },
      listeners: new Map(),
    } as unknown as typeof made.session.presence
    return { ...made, asked, again: new Reauthorization(room) }
  }

  test('extended in the same moment: policy is asked, and it goes on', async () => {
    const { session, clock, asked, cuts, again } = deciding(longer(300))
    clock.now = (NOW + 600) * 1000
    using _ = again
    expect(await again.withdraw(() => true, { trigger: 'deadline', at: 0 })).toEqual([])
    expect([asked.length, session.state, session.end(), cuts]).toEqual([
      1,
      'open',
      (NOW + 900) * 1000,
      [],
    ])
  })
  test('taken back by the time it is decided: it becomes no longer', async () => {
    const { session, room, told, again } = deciding(longer(300))
    const found = [longer(300), own]
    Object.assign(room.grants, { find: () => Promise.resolve(found.shift()) })
    using _ = again
    expect(await again.withdraw(() => true, { trigger: 'grant', at: 0 })).toEqual([])
    expect([session.end(), session.extension, told]).toEqual([(NOW + 600) * 1000, null, []])
  })
  test('not extended: it ends unasked', async () => {
    const { session, clock, asked, cuts, again } = deciding(own)
    clock.now = (NOW + 600) * 1000
    using _ = again
    await again.withdraw(() => true, { trigger: 'deadline', at: 0 })
    expect([asked.length, session.state, cuts]).toEqual([0, 'ended', ['window.end']])
  })
  test.for([
    {
      name: 'revoked',
      grant: { ...own, state: 'revoked' as const },
      at: 10,
      code: 'grant.revoked',
    },
    {
      name: 'given back',
      grant: { ...own, state: 'spent' as const },
      at: 10,
      code: 'grant.expired',
    },
    { name: 'its extension was taken back', grant: own, at: 700, code: 'window.end' },
    {
      name: 'recorded as over',
      grant: { ...own, state: 'expired' as const },
      at: 700,
      code: 'window.end',
    },
    { name: 'its extension is over too', grant: longer(300), at: 900, code: 'window.end' },
  ])('$name, in a zone that lets its person in without a grant too: it ends', async (row) => {
    const { session, clock, asked, cuts, again } = deciding(row.grant, true)
    follow({ now: () => clock.now } as SessionRoom, session, longer(300))
    session.obligations = { ...session.obligations, not_after: NOW + 7200 }
    clock.now = (NOW + row.at) * 1000
    using _ = again
    const cut = await again.withdraw(() => true, { trigger: 'grant', at: 0 })
    expect([cut.length, session.state, cuts]).toEqual([1, 'ended', [row.code]])
    expect(asked.length).toBeLessThanOrEqual(1)
  })
  test.for([
    { name: 'while that carries: it ends unasked', carries: true, asks: 0, ends: ['window.end'] },
    {
      name: 'once that is gone: policy is asked, and it goes on',
      carries: false,
      asks: 1,
      ends: [],
    },
  ])('at the end of its only connection, of which alone all was decided, $name', async (row) => {
    const { session, room, clock, asked, cuts, again } = deciding(own)
    const { source } = session
    const cut = ({ code }: { readonly code: string }) => Promise.resolve(void cuts.push(code))
    const stream = { source, observed: null, carrier: { cut } } as unknown as LiveStream
    session.watchers.clear()
    session.streams.add(stream)
    const obligations = { ...session.obligations, not_after: NOW + 60 }
    session.rebind([{ sight: { source, observed: null }, obligations }])
    if (!row.carries) leave(room, session, stream)
    clock.now = (NOW + 60) * 1000
    expect(session.deadline()).toBe(clock.now)
    using _ = again
    await again.withdraw(() => true, { trigger: 'deadline', at: 0 })
    expect([asked.length, cuts]).toEqual([row.asks, row.ends])
    expect(session.state).toBe(row.carries ? 'ended' : 'open')
    if (!row.carries) expect(session.end()).toBe((NOW + 600) * 1000)
  })
  test('extended, and the time of the extension is over too: policy is asked, and it ends', async () => {
    const { session, clock, asked, cuts, again } = deciding(longer(300))
    clock.now = (NOW + 900) * 1000
    using _ = again
    await again.withdraw(() => true, { trigger: 'deadline', at: 0 })
    expect([asked.length, session.state, cuts]).toEqual([1, 'ended', ['grant.expired']])
  })
})

describe('while a connection is being opened', () => {
  /** The device answers when `answers` is called; what it is told afterwards is in `signals`. */
  function connecting() {
    const made = place({ not_after: NOW + 7200, max_streams: 8 })
    const signals: unknown[] = []
    const denied: unknown[] = []
    /** The statements that the device was shown, and those that too few have signed for it. */
    const shown: string[] = []
    const wanting = new Set<string>()
    const { promise: answered, resolve: answers } = Promise.withResolvers<undefined>()
    const { promise: dialled, resolve: dials } = Promise.withResolvers<undefined>()
    const decode = (told: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(told))
    const stream = {
      kind: 'tcp',
      answer: new TextEncoder().encode(JSON.stringify({ v: 1, observed: null })),
      signal: (told: Uint8Array) => void signals.push(decode(told)),
      reset: (code: string) => void signals.push({ t: 'reset', code }),
    }
    const presence = {
      peer: { notAfter: (NOW + 90_000) * 1000, serial: '01' },
      tls: null,
      agent: { version_int: 1 },
      listeners: new Map(),
      tunnel: {
        open: async (_: string, metadata: Uint8Array) => {
          dials(undefined)
          await answered
          const { grant } = decode(metadata) as { grant?: { statement: Statement } }
          if (grant !== undefined) shown.push(grant.statement.id)
          const { id } = grant?.statement ?? {}
          if (id !== undefined && wanting.has(id))
            throw new TunnelRefused('approvers.quorum', 'too few')
          return stream
        },
      },
    }
    const kept: { grant: Grant } = { grant: own }
    const process = { id: 'plc', kind: 'tcp', locality: 'device', port: 1, expect: {} }
    const device = { id: 'press-07', zone: 'default', state: 'active', labels: {} }
    const room = Object.assign(made.room, {
      stands: () => Promise.resolve({ ok: true }),
      devices: {
        find: () => Promise.resolve(device),
        findProcess: () => Promise.resolve(process),
      },
      registry: { find: () => presence, isCutOff: () => false },
      grants: { find: () => Promise.resolve(kept.grant) },
      log: {
        append: ({ code, reason }: { code: string; reason?: string }) => {
          denied.push([code, reason])
          return Promise.resolve({ idx: 1 })
        },
      },
      // A zone that lets its person in without a grant too.
      decisions: {
        ask: () => ({
          allow: true,
          decision_id: 'd_2',
          layer: 'host',
          revision: 'r1',
          reasons: [],
          denials: [],
          obligations: made.session.obligations,
        }),
      },
    })
    made.session.streams.clear()
    const opening = openStream(room, made.session, made.session.source)
    return { ...made, room, kept, signals, denied, shown, wanting, dialled, answers, opening }
  }

  const signature = { assertion: {} } as unknown as NonNullable<Approval['signature']>
  const signed = { approvals: [{ signature } as Approval] }
  const both: Grant = { ...longer(300), ...signed }
  const extended: Grant = { ...both, extension: { ...both.extension!, ...signed } }
  function shownTo(grant: Grant, at: number) {
    const made = connecting()
    made.session.footing = { grants: [grant] } as unknown as typeof made.session.footing
    made.session.signed = signedOpening(grant)
    made.kept.grant = grant
    made.clock.now = (NOW + at) * 1000
    return made
  }
  test('too few have signed its extension: the device is shown the grant, while that runs', async () => {
    const { wanting, shown, answers, opening } = shownTo(extended, 599)
    wanting.add('g_2')
    answers(undefined)
    await opening
    expect(shown).toEqual(['g_2', 'g_1'])
  })
  test.for([
    { name: 'the time of the grant itself is over', grant: extended, at: 600, wanting: ['g_2'] },
    {
      name: 'nobody signed the grant itself',
      grant: { ...extended, approvals: [] },
      at: 1,
      wanting: ['g_2'],
    },
  ])('too few have signed its extension, and $name: refused', async (row) => {
    const { wanting, shown, answers, opening } = shownTo(row.grant, row.at)
    for (const id of row.wanting) wanting.add(id)
    answers(undefined)
    await expect(opening).rejects.toMatchObject({ shownCode: 'approvers.quorum' })
    expect(shown).toEqual(['g_2'])
  })
  test('its grant is extended: the device is told so once bytes may flow', async () => {
    const { session, room, kept, signals, dialled, answers, opening } = connecting()
    await dialled
    kept.grant = longer(300)
    follow(room, session, kept.grant)
    answers(undefined)
    await opening
    expect(signals).toEqual([{ t: 'proceed' }, { t: 'lease', remaining_ms: 900_000 }])
  })
  test('and nothing is longer: the device is told nothing more', async () => {
    const { signals, answers, opening } = connecting()
    answers(undefined)
    await opening
    expect(signals).toEqual([{ t: 'proceed' }])
  })
  test('too few have signed either: refused, once both were shown', async () => {
    const { wanting, shown, answers, opening } = shownTo(extended, 1)
    for (const id of ['g_1', 'g_2']) wanting.add(id)
    answers(undefined)
    await expect(opening).rejects.toMatchObject({ shownCode: 'approvers.quorum' })
    expect(shown).toEqual(['g_2', 'g_1'])
  })
  test('its grant is revoked, in a zone that lets its person in without one too: refused', async () => {
    const { kept, signals, denied, dialled, answers, opening } = connecting()
    await dialled
    kept.grant = { ...own, state: 'revoked' }
    answers(undefined)
    await expect(opening).rejects.toMatchObject({
      code: 'session.ended',
      shownCode: 'grant.revoked',
    })
    expect(signals).toEqual([{ t: 'reset', code: 'grant.revoked' }])
    expect(denied).toEqual([['session.deny', 'grant.revoked']])
  })
})
