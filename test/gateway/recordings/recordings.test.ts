/** What is recorded of each kind of process, from a script of bytes; when a session is admitted; what a crash leaves. */
import { renameSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import {
  compare,
  fileOf,
  findParts,
  loggedRecordings,
  readCast,
  readRecording,
  readTrack,
  type AuditError,
  type RecordingDisk,
} from '#audit'
import { Refusal } from '../../../gateway/problem.ts'
import { eventually } from '../../audit/fixture.ts'
import type { Recorded, Recordings } from '../../../gateway/recordings/recordings.ts'
import { terminalTap } from '../../../gateway/recordings/taps.ts'
import { auditorOf, logWith, makePlace, sessionOf, type Place } from '../../support/recordings.ts'
import { until } from '../../support/node.ts'

const MiB = 1024 * 1024
let place: Place
beforeAll(async () => {
  place = await makePlace()
})
afterAll(async () => place[Symbol.asyncDispose]())

const bytes = (text: string) => new TextEncoder().encode(text)
const signal = (value: unknown) => bytes(JSON.stringify(value))
const ignore = () => {}

async function content({ id }: Recorded, track = 1): Promise<string> {
  const stored = await readRecording(place.directory, id)
  const sealed = (stored?.parts ?? [])
    .filter((part) => part.track === track)
    .map((part) => ({ ...part, sealed: readFileSync(join(place.directory, id, fileOf(part))) }))
  return Buffer.from(readTrack(id, sealed, [place.bert])).toString()
}

async function faults({ id }: Recorded): Promise<string[]> {
  const told = loggedRecordings(place.logDirectory, place.log.origin).get(id)
  return compare(told ?? { parts: [], end: undefined }, await findParts(place.directory, id)).map(
    ({ code, file }) => `${code} ${file ?? '-'}`,
  )
}

async function refused(recordings: Recordings, session = sessionOf('tcp')): Promise<Refusal> {
  const admitted = recordings.admit(session, ignore)
  const [outcome] = await Promise.allSettled([admitted])
  if (outcome.status === 'fulfilled') throw new Error('it was admitted')
  expect(outcome.reason).toBeInstanceOf(Refusal)
  return outcome.reason as Refusal
}

describe('a program that the agent starts', () => {
  test('whose window changes while the disk is behind: one size is kept, the latest, before what is shown next', () => {
    const written: string[] = []
    const sink = {
      full: false,
      write: (record: Uint8Array) => void written.push(Buffer.from(record).toString()),
      end: () => {},
    }
    const tap = terminalTap({
      title: 't',
      terminal: { cols: 80, rows: 24 },
      input: false,
      now: () => 0,
      open: () => sink,
    })
    tap.data('out', bytes('one'))
    sink.full = true
    for (let cols = 1; cols <= 1000; cols++)
      tap.signal('in', signal({ t: 'winsize', cols, rows: 24 }))
    expect(written).toHaveLength(1)
    sink.full = false
    tap.data('out', bytes('two'))
    expect(written).toHaveLength(3)
    expect(written[1]).toContain('1000x24')
    expect(written[2]).toContain('two')
  })

  test('is kept as a terminal: what it showed and when, its size, how it ended, and nothing that was typed', async () => {
    const session = sessionOf('spawn')
    const recording = await place.open().admit(session, ignore)
    const tap = recording.tap('192.0.2.7', { cols: 100, rows: 30, term: 'xterm', granted: true })
    tap.signal('in', signal({ t: 'winsize', cols: 120, rows: 40 }))
    tap.data('out', bytes('$ '))
    place.now += 500
    tap.data('in', bytes('secret\r'))
    place.now += 500
    tap.data('out', bytes('ok\r\n'))
    tap.signal('in', signal({ t: 'winsize', cols: 80, rows: 24 }))
    tap.signal('in', signal({ t: 'winsize', cols: -1, rows: 24 }))
    tap.signal('out', signal({ t: 'winsize', cols: 1, rows: 1 }))
    tap.signal('in', bytes('not JSON'))
    place.now += 250
    tap.signal('out', signal({ t: 'exit', code: 3 }))
    tap.end()
    expect(await recording.end('client_done')).toMatch(/^[0-9a-f]{64}$/)
    const text = await content(session)
    expect(text).not.toContain('secret')
    const cast = readCast(text)
    expect(cast).toMatchObject({ cols: 120, rows: 40 })
    expect(cast?.events).toEqual([
      { at: 0, code: 'o', text: '$ ' },
      { at: 1000, code: 'o', text: 'ok\r\n' },
      { at: 1000, code: 'r', text: '80x24' },
      { at: 1250, code: 'x', text: '3' },
    ])
    expect(await faults(session)).toEqual([])
  })

  test.for<[string, unknown, string[]]>([
    ['a code', { t: 'exit', code: 0 }, ['0']],
    ['a signal', { t: 'exit', signal: 'SIGKILL' }, ['137']],
    ['a signal that is none', { t: 'exit', signal: 'SIGNONE' }, []],
    ['nothing', { t: 'exit' }, []],
  ])('that ended with %s has that as its last line', async ([, told, expected]) => {
    const session = sessionOf('spawn')
    const recording = await place.open().admit(session, ignore)
    const tap = recording.tap(null)
    tap.signal('out', signal(told))
    tap.end()
    await recording.end('client_done')
    const events = readCast(await content(session))?.events ?? []
    expect(events.filter(({ code }) => code === 'x').map(({ text }) => text)).toEqual(expected)
  })

  test('has what was typed where the node is told to keep it', async () => {
    const session = sessionOf('spawn')
    const recording = await place.open({ terminalInput: true }).admit(session, ignore)
    const tap = recording.tap(null, { cols: 80, rows: 24, granted: true })
    tap.data('in', bytes('ls\r'))
    tap.end()
    await recording.end('client_done')
    expect(readCast(await content(session))?.events).toEqual([{ at: 0, code: 'i', text: 'ls\r' }])
  })

  test.for([
    ['was asked for by nobody', undefined],
    ['was asked for and not given', { cols: 80, rows: 24, granted: false }],
    ['the agent does not speak of', { cols: 80, rows: 24 }],
  ] as const)('with a terminal that %s has all that went into it kept', async ([, terminal]) => {
    const session = sessionOf('spawn')
    const recording = await place.open().admit(session, ignore)
    const tap = recording.tap(null, terminal)
    tap.data('in', bytes('rm -r /opt/line\n'))
    tap.end()
    await recording.end('client_done')
    expect(readCast(await content(session))?.events).toEqual([
      { at: 0, code: 'i', text: 'rm -r /opt/line\n' },
    ])
  })

  test('has a file for each connection', async () => {
    const session = sessionOf('spawn')
    const recording = await place.open().admit(session, ignore)
    const taps = [recording.tap(null), recording.tap(null)]
    for (const [at, tap] of taps.entries()) tap.data('out', bytes(`terminal ${at}`))
    for (const tap of taps) tap.end()
    await recording.end('client_done')
    expect(await content(session, 1)).toContain('terminal 0')
    expect(await content(session, 2)).toContain('terminal 1')
    expect(await faults(session)).toEqual([])
  })
})

test('a native connection to a web process is packets, in a file beside the requests', async () => {
  const session = sessionOf('http')
  const recording = await place.open().admit(session, ignore)
  const request = { at: 0, endedAt: 1, method: 'GET', host: 'h', target: '/a', ip: null, user: 'u' }
  const rest = {
    status: 200,
    requestType: undefined,
    responseType: undefined,
    bytesIn: 0,
    bytesOut: 0,
  }
  recording.web({ ...request, ...rest, upgraded: undefined, decision: undefined, code: undefined })
  const tap = recording.tap('192.0.2.7')
  tap.data('in', bytes('GET / HTTP/1.1\r\n\r\n'))
  tap.end()
  await recording.end('client_done')
  expect(JSON.parse(await content(session, 1))).toMatchObject({ class_uid: 4002 })
  expect(await content(session, 2)).toContain('GET / HTTP/1.1')
  expect(await faults(session)).toEqual([])
})

test('datagrams are packets of UDP', async () => {
  const session = sessionOf('udp')
  const recording = await place.open().admit(session, ignore)
  const tap = recording.tap('2001:db8::7')
  tap.data('in', bytes('ping'))
  tap.end()
  await recording.end('client_done')
  const file = Buffer.from(await content(session), 'utf8').toString('latin1')
  expect(file).toContain('ping')
  expect(file).toContain('\u0000\u0018\u0000\u0004\u0000\u0000\u0000\u0003')
})

describe('admission', () => {
  test('sets aside what a session may need, once, and gives it back', async () => {
    const recordings = place.open({ free: () => Promise.resolve(92 * MiB), floorBytes: 5 * MiB })
    const session = sessionOf('tcp', { maxBytes: 2.5 * MiB })
    const one = await recordings.admit(session, ignore)
    expect(recordings.reserved).toBe(40 * MiB)
    const two = await recordings.admit(sessionOf('tcp', { maxBytes: 2.5 * MiB }), ignore)
    const refusal = await refused(recordings, sessionOf('tcp', { maxBytes: 2.5 * MiB }))
    expect([refusal.code, refusal.detail]).toEqual([
      'recording.unavailable',
      expect.stringContaining('left'),
    ])
    await one.end('client_done')
    const three = await recordings.admit(sessionOf('tcp', { maxBytes: 2.5 * MiB }), ignore)
    for (const each of [two, three]) await each.end('client_done')
    expect(recordings.reserved).toBe(0)
  })

  test('of a hundred at once gives no room twice', async () => {
    const recordings = place.open({ free: () => Promise.resolve(50 * MiB), floorBytes: 0 })
    const asked = Array.from({ length: 100 }, () =>
      recordings.admit(sessionOf('tcp', { maxBytes: 1 }), ignore),
    )
    const outcomes = await Promise.allSettled(asked)
    const admitted = outcomes.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    // 4 MiB each.
    expect(admitted).toHaveLength(12)
    await Promise.all(admitted.map((one) => one.discard()))
    expect(recordings.reserved).toBe(0)
  })

  test('on the disk of the log is promised by the log: neither gives what the other has promised', async () => {
    const { log } = place
    const before = log.room.reservedBytes
    const recordings = place.open({ free: () => Promise.resolve(92 * MiB + before), floorBytes: 0 })
    const asked = { maxBytes: 2.5 * MiB }
    const one = await recordings.admit(sessionOf('tcp', asked), ignore)
    expect(log.room.reservedBytes - before).toBe(40 * MiB)
    const session = log.admit(20 * MiB)
    expect((await refused(recordings, sessionOf('tcp', asked))).detail).toContain('left')
    session.release()
    const two = await recordings.admit(sessionOf('tcp', asked), ignore)
    const tap = one.tap('192.0.2.7')
    tap.data('in', Buffer.alloc(MiB))
    tap.end()
    await eventually(() => log.room.reservedBytes - before < 79 * MiB)
    for (const each of [one, two]) await each.end('client_done')
    expect(log.room.reservedBytes).toBe(before)
  })

  test('that ends while the disk takes nothing keeps its promise until the disk has taken what it has', async () => {
    const { log } = place
    const before = log.room.reservedBytes
    const taken = Promise.withResolvers<void>()
    const disk: RecordingDisk = {
      async open(path) {
        writeFileSync(path, '')
        return {
          async write(piece) {
            await taken.promise
            writeFileSync(path, piece, { flag: 'a' })
          },
          sync: async () => {},
          close: async () => {},
        }
      },
      rename: async (from, to) => renameSync(from, to),
      syncDirectory: async () => {},
    }
    const recordings = place.open({ disk, report: ignore })
    const recording = await recordings.admit(sessionOf('tcp'), ignore)
    const tap = recording.tap('192.0.2.7')
    tap.data('in', Buffer.alloc(1000))
    tap.end()
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const ended = recording.end('client_done')
    await vi.advanceTimersByTimeAsync(20_000)
    vi.useRealTimers()
    expect(await ended).toBeUndefined()
    expect(log.room.reservedBytes).toBeGreaterThan(before)
    expect(recordings.writes(recording.id)).toBe(true)
    taken.resolve()
    await eventually(() => log.room.reservedBytes === before)
    expect(recordings.reserved).toBe(0)
    // Its end is what the next start of the node says.
    expect(await place.open().recover()).toEqual([recording.id])
  })

  test('is refused where the log has no room, and leaves nothing promised', async () => {
    const admit = (): never => {
      throw new Error('log.room')
    }
    const log = { ...logWith(place, (event) => place.log.append(event)), admit }
    const recordings = place.open({ log })
    expect((await refused(recordings)).code).toBe('recording.unavailable')
    expect(recordings.reserved).toBe(0)
  })

  test('sets aside for Modbus what its small requests become', async () => {
    const recordings = place.open()
    const session = sessionOf('modbus', { maxBytes: MiB })
    const recording = await recordings.admit(session, ignore)
    const budget = recordings.reserved
    const tap = recording.tap('2001:db8::1234:5678')
    const request = Buffer.from('000100000006010300000001', 'hex')
    const reply = Buffer.from('0001000000050103020000', 'hex')
    const verdict = {
      allowed: false,
      operation: 'write',
      unit: 247,
      functionCode: 16,
      address: 65_535,
      quantity: 123,
      exception: 1,
      request,
    }
    const outcome = { verdicts: [verdict], toClient: [reply], toDevice: [] }
    const rounds = 2_000
    for (let round = 0; round < rounds; round++) tap.judged('in', outcome as never)
    tap.end()
    await recording.end('client_done')
    const stored = await readRecording(place.directory, session.id)
    const taken = stored?.parts.reduce((sum, part) => sum + part.bytes, 0) ?? 0
    const passed = rounds * (request.length + reply.length)
    expect(taken / passed).toBeGreaterThan(8)
    expect(taken / passed).toBeLessThan(budget / session.maxBytes)
  })

  test('reserves no more than one session may take', async () => {
    const recordings = place.open({ sessionBytes: 8 * MiB })
    const one = await recordings.admit(sessionOf('tcp', { maxBytes: 64 * 1024 * MiB }), ignore)
    expect(recordings.reserved).toBe(8 * MiB)
    await one.discard()
  })

  test.for([
    ['one auditor', [auditorOf('anna', { recipient: { text: 'age1x' } } as never)]],
    ['no auditor', []],
  ] as const)('with %s is refused', async ([, auditors]) => {
    const { code } = await refused(
      place.open({ auditors: { list: () => Promise.resolve(auditors) } }),
    )
    expect(code).toBe('recording.unavailable')
  })

  test('without knowing how much room there is, is refused', async () => {
    const free = () => Promise.reject(new Error('EIO'))
    expect((await refused(place.open({ free }))).code).toBe('recording.unavailable')
  })

  test('where the place cannot be made, is refused, and gives the room back', async () => {
    const file = join(place.home, 'a-file')
    writeFileSync(file, '')
    const recordings = place.open({
      directory: join(file, 'recordings'),
      free: () => Promise.resolve(1e12),
    })
    expect((await refused(recordings)).code).toBe('recording.unavailable')
    expect(recordings.reserved).toBe(0)
  })

  test('of a session that was not opened after all leaves nothing', async () => {
    const session = sessionOf('tcp')
    const recording = await place.open().admit(session, ignore)
    await recording.discard()
    expect(readdirSync(place.directory)).not.toContain(session.id)
    expect(readdirSync(join(place.directory, '.open'))).toEqual([])
  })
})

describe('a recording that cannot go on', () => {
  test('because its room is used up says so once, and what was taken is whole', async () => {
    const failures: AuditError[] = []
    const session = sessionOf('tcp', { maxBytes: 1 })
    const recording = await place.open().admit(session, (error) => failures.push(error))
    const tap = recording.tap(null)
    for (let at = 0; at < 100; at++) tap.data('out', Buffer.alloc(64 * 1024, 'z'))
    expect(failures.map(({ code }) => code)).toEqual(['recording.budget'])
    await recording.end('recording_failed')
    expect(await faults(session)).toEqual([])
    expect((await content(session)).length).toBeGreaterThan(3 * MiB)
    const told = place.events().filter(({ text }) => text.includes(session.id))
    expect(told.map(({ code }) => code)).toContain('recording.fail')
    expect(told.at(-1)).toMatchObject({ code: 'recording.end' })
  })

  test('because the disk fails keeps what is there, the torn part too', async () => {
    const session = sessionOf('spawn')
    let written = 0
    const failures: AuditError[] = []
    const recording = await place
      .open({
        limits: { partBytes: 100 * 1024 },
        disk: {
          async open(path) {
            writeFileSync(path, '')
            return {
              async write(piece) {
                if ((written += piece.length) > 300_000) throw new Error('EIO')
                writeFileSync(path, piece, { flag: 'a' })
              },
              sync: async () => {},
              close: async () => {},
            }
          },
          rename: async (from, to) => renameSync(from, to),
          syncDirectory: async () => {},
        },
      })
      .admit(session, (error) => failures.push(error))
    const tap = recording.tap(null)
    for (let at = 0; at < 60; at++) {
      tap.data('out', bytes('x'.repeat(10_000)))
      await new Promise((resolve) => setImmediate(resolve))
    }
    await until('it has failed', () => failures.length === 1)
    await recording.end('recording_failed')
    expect(await faults(session)).toEqual([])
    const stored = await readRecording(place.directory, session.id)
    expect(stored?.parts.at(-1)?.torn).toBe(true)
    expect(await content(session)).toContain('xxx')
  })
})

describe('the next start', () => {
  test('closes what was open: parts unknown to the log are told to it, the torn one as such', async () => {
    const session = sessionOf('spawn')
    const recording = await place.open({ limits: { partMs: 20 } }).admit(session, ignore)
    const tap = recording.tap(null)
    tap.data('out', bytes('one'))
    await until('the first part is there', () =>
      readdirSync(join(place.directory, session.id)).includes('001-000001.age'),
    )
    tap.data('out', bytes('two'))
    await until('the second part is there', () =>
      readdirSync(join(place.directory, session.id)).includes('001-000002.age'),
    )
    await until(
      'it is logged',
      async () => ((await readRecording(place.directory, session.id))?.parts.length ?? 0) === 2,
    )
    // As if the node had died within the second part, before the log knew of it.
    const path = join(place.directory, session.id)
    renameSync(join(path, '001-000002.age'), join(path, '001-000002.age.part'))
    truncateSync(join(path, '001-000002.age.part'), 400)
    const manifest = readFileSync(join(path, 'manifest.ndjson'), 'utf8').split('\n').slice(0, 2)
    writeFileSync(join(path, 'manifest.ndjson'), `${manifest.join('\n')}\n{"track":1,"pa`)
    const next = place.open()
    expect(await next.recover()).toEqual([session.id])
    expect(await next.recover()).toEqual([])
    const stored = await readRecording(place.directory, session.id)
    expect(stored?.end?.reason).toBe('node_crash')
    expect(stored?.parts.map(({ torn }) => torn)).toEqual([false, true])
    expect(await content(session)).toContain('one')
    const told = place.events().filter(({ text }) => text.includes(session.id))
    expect(told.filter(({ code }) => code === 'recording.end')).toHaveLength(1)
  })

  test('takes away what had not even said what it is', async () => {
    const { id } = sessionOf('tcp')
    writeFileSync(join(place.directory, '.open', id), '')
    expect(await place.open().recover()).toEqual([id])
    expect(readdirSync(join(place.directory, '.open'))).not.toContain(id)
  })

  test('leaves parts alone whose manifest cannot be read', async () => {
    const session = sessionOf('tcp')
    const recording = await place.open().admit(session, ignore)
    recording.tap(null).data('out', bytes('evidence'))
    await recording.end('client_done')
    writeFileSync(join(place.directory, '.open', session.id), '')
    writeFileSync(join(place.directory, session.id, 'manifest.ndjson'), 'garbage')
    const before = place.reports.length
    expect(await place.open().recover()).not.toContain(session.id)
    expect(place.reports).toHaveLength(before + 1)
    expect(readdirSync(join(place.directory, session.id))).toContain('001-000001.age')
    rmSync(join(place.directory, '.open', session.id))
  })

  test('goes on where one of them cannot be closed', async () => {
    const [bad, good] = [sessionOf('tcp'), sessionOf('tcp')]
    const first = place.open()
    for (const session of [bad, good]) await first.admit(session, ignore)
    const log = logWith(place, (event) =>
      event.session === bad.id ? Promise.reject(new Error('no room')) : place.log.append(event),
    )
    const closed = await place.open({ log }).recover()
    expect(closed).toContain(good.id)
    expect(closed).not.toContain(bad.id)
    rmSync(join(place.directory, bad.id), { recursive: true })
  })
})
