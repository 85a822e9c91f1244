/** `sallyport recording verify`: recordings are proven against the log, and whatever was done to them is found. */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { rootOf } from '#audit'
import { sha256 } from '../../audit/recording/parts.ts'
import { framesAfter, headerBytes, openFrame, sealFrame } from '../../audit/segment.ts'
import { sessionOf } from '../support/recordings.ts'
import { until } from '../support/node.ts'
import { run } from './run.ts'
import { bytes, copied, here, modbus, prove, terminal, threeRecordings, web } from './recorded.ts'

threeRecordings()

describe('proving recordings against the log', () => {
  test('what is as it was is proven, each by name, without any key of an auditor', async () => {
    const ran = await prove(here.place.directory)
    expect(ran.code).toBe(0)
    for (const { id } of [terminal, web, modbus]) expect(ran.out).toContain(`proven: ${id}`)
  })

  test.for<[string, (path: string) => void, RegExp]>([
    [
      'the first part is gone',
      (path) => rmSync(join(path, '001-000001.age')),
      /part\.missing 001-000001/,
    ],
    ['the last part is gone', (path) => rmSync(join(path, last(path))), /part\.missing/],
    [
      'a part is cut short',
      (path) => writeFileSync(join(path, '001-000001.age'), 'x'),
      /part\.changed 001-000001/,
    ],
    [
      'two parts changed places',
      (path) => {
        const [one, two] = ['001-000001.age', '001-000002.age'].map((name) =>
          readFileSync(join(path, name)),
        )
        writeFileSync(join(path, '001-000001.age'), two ?? '')
        writeFileSync(join(path, '001-000002.age'), one ?? '')
      },
      /part\.changed 001-000001[\s\S]*part\.changed 001-000002/,
    ],
    [
      'a part too many',
      (path) => writeFileSync(join(path, '001-000099.age'), 'x'),
      /part\.extra 001-000099/,
    ],
    ['all of it is gone', (path) => rmSync(path, { recursive: true }), /part\.missing 001-000001/],
    ['the manifest lies', (path) => writeFileSync(join(path, 'manifest.ndjson'), '{}'), /^$/],
  ])('%s', async ([name, harm, finds]) => {
    const copy = copied()
    harm(join(copy, terminal.id))
    const ran = await prove(copy, terminal.id)
    if (name === 'the manifest lies') expect(ran.code).toBe(0)
    else expect([ran.code, ran.out]).toEqual([1, expect.stringMatching(finds)])
  })

  const last = (path: string) =>
    readdirSync(path)
      .filter((name) => name.endsWith('.age'))
      .toSorted()
      .at(-1) ?? ''

  test('what stands behind the last checkpoint proves nothing', async () => {
    const id = `s_${'7'.repeat(26)}`
    const copy = copied()
    mkdirSync(join(copy, id))
    const forged = Buffer.from('forged')
    writeFileSync(join(copy, id, '001-000001.age'), forged)
    const part = { track: 1, part: 1, bytes: 6, sha256: sha256(forged), t0: 0, t1: 0, torn: false }
    const events = [
      { code: 'recording.part', facts: part },
      { code: 'recording.end', facts: { parts: 1, root: rootOf([part]) } },
    ]
    const log = mkdtempSync(join(here.place.home, 'log-'))
    cpSync(here.place.logDirectory, log, { recursive: true })
    const bodies = events.map(({ code, facts }) => ({
      metadata: { event_code: code, correlation_uid: id },
      unmapped: { sallyport: facts },
    }))
    forge(log, bodies)
    const args = ['--from', copy, '--log', log, '--key', here.place.keys]
    const ran = await run(here.place.home, 'recording', 'verify', id, ...args)
    expect([ran.code, ran.out]).toEqual([1, expect.stringMatching(/part\.extra 001-000001/)])
  })

  /** Frames with a good checksum behind what was signed, as whoever holds the directory can write them. */
  function forge(log: string, bodies: readonly unknown[]): void {
    const name = readdirSync(join(log, 'seg')).toSorted().at(-1) ?? ''
    const path = join(log, 'seg', name)
    const file = readFileSync(path)
    const frames = [...framesAfter(file, 0)]
    const last = frames.at(-1)
    if (last === undefined) throw new Error('the log is empty')
    const made = bodies.map((body, at) => {
      const bytes = Buffer.from(JSON.stringify(body))
      const frame = Buffer.alloc(headerBytes + bytes.length)
      frame.set(bytes, headerBytes)
      openFrame(frame, 0, bytes.length)
      sealFrame(frame, 0, last.idx + 1 + at, last.idx + 1)
      return frame
    })
    writeFileSync(path, Buffer.concat([file.subarray(0, last.end), ...made]))
  }

  describe('of which the log has the start of the session', () => {
    const start = (session: string, recording: string) =>
      here.place.log.append({
        code: 'session.start',
        message: 'session opened',
        status: 'success',
        actor: { uid: 'i|vera' },
        device: 'press-07',
        process: 'spawn',
        grant: terminal.grant,
        session,
        data: { kind: 'spawn', recording },
      } as never)
    const end = (session: string) =>
      here.place.log.append({
        code: 'session.end',
        message: 'session ended',
        status: 'success',
        reason: 'client_done',
        session,
        data: {},
      } as never)

    test('a recording that nothing else speaks of is missed; of a flow there is none', async () => {
      const [missing, flow] = [sessionOf('spawn').id, sessionOf('ssh').id]
      for (const [id, format] of [
        [missing, 'asciicast'],
        [flow, 'flow'],
      ] as const) {
        await start(id, format)
        await end(id)
      }
      await here.place.log.checkpoint()
      const ran = await prove(here.place.directory)
      expect(ran.code).toBe(1)
      expect(ran.out).toMatch(new RegExp(`VIOLATED: ${missing}\n +end[.]missing`))
      expect(ran.out).not.toContain(flow)
    })

    test('one that goes on is said to, with parts that are not signed yet, and not convicted', async () => {
      const session = sessionOf('spawn')
      await start(session.id, 'asciicast')
      const recording = await here.place
        .open({ limits: { partBytes: 100 } })
        .admit(session, () => {})
      const tap = recording.tap(null)
      for (let at = 0; at < 10; at++) tap.data('out', bytes(`line ${at}`.repeat(5)))
      await until('a part is logged', () =>
        here.place
          .events()
          .some(({ code, text }) => code === 'recording.part' && text.includes(session.id)),
      )
      await here.place.log.checkpoint()
      const copy = copied()
      writeFileSync(join(copy, session.id, '001-000099.age'), 'written since')
      const ran = await prove(copy, session.id)
      expect([ran.code, ran.out]).toEqual([0, expect.stringContaining(`goes on: ${session.id}`)])
      rmSync(join(copy, session.id, '001-000001.age'))
      expect((await prove(copy, session.id)).out).toContain('part.missing 001-000001')
      tap.end()
      await recording.end('client_done')
      await end(session.id)
      await here.place.log.checkpoint()
      expect((await prove(here.place.directory, session.id)).out).toContain(`proven: ${session.id}`)
    })
  })

  test('each octet of a part counts: one in 50 flipped, every one found', async () => {
    const copy = copied()
    const path = join(copy, web.id, '001-000001.age')
    const file = readFileSync(path)
    const missed: number[] = []
    for (let at = 0; at < file.length; at += 50) {
      const changed = Buffer.from(file)
      changed[at] = (changed[at] ?? 0) ^ 0x10
      writeFileSync(path, changed)
      if ((await prove(copy, web.id)).code !== 1) missed.push(at)
    }
    expect(missed).toEqual([])
  })
})
