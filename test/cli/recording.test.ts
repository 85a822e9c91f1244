/** `sallyport recording` and `audit auditor`: an auditor with a copy and no network, and one at a gateway. */
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { openSealed, parseIdentities, readRecording, rootOf, Sealer, parseRecipient } from '#audit'
import { sha256 } from '../../audit/recording/parts.ts'
import { framesAfter, headerBytes, openFrame, sealFrame } from '../../audit/segment.ts'
import { RESTORE, Screen } from '../../cli/screen.ts'
import { makePlace, sessionOf, type Place } from '../support/recordings.ts'
import { until } from '../support/node.ts'
import { startFakeGateway, type FakeGateway } from './fake-gateway.ts'
import { run } from './run.ts'

let place: Place
const terminal = sessionOf('spawn')
const web = sessionOf('http')
const modbus = sessionOf('tcp')
const bytes = (text: string) => new TextEncoder().encode(text)

beforeAll(async () => {
  place = await makePlace()
  const recordings = place.open({ limits: { partBytes: 100 } })
  const shell = await recordings.admit(terminal, () => {})
  const tap = shell.tap(null)
  for (let at = 0; at < 10; at++) {
    tap.data('out', bytes(`line ${at} \u001b]52;c;ZXZpbA==\u0007\u001b[6n\r\n`))
    place.now += 60_000
  }
  tap.end()
  await shell.end('client_done')
  const pages = await recordings.admit(web, () => {})
  pages.web({
    at: place.now,
    endedAt: place.now + 20,
    method: 'GET',
    host: 'hmi',
    target: '/start?page=2',
    ip: null,
    user: 'i|vera',
    status: 200,
    requestType: undefined,
    responseType: undefined,
    bytesIn: 0,
    bytesOut: 9,
    upgraded: undefined,
    decision: 'd_1',
    code: undefined,
  })
  await pages.end('client_done')
  const plain = await recordings.admit(modbus, () => {})
  plain.tap('192.0.2.7').data('in', bytes('hello'))
  await plain.end('client_done')
  await place.log.checkpoint()
})
afterAll(async () => place[Symbol.asyncDispose]())

const opened = (id: string, identity = place.identities.anna) => [
  id,
  '--from',
  place.directory,
  '--identity',
  identity,
]
const prove = (from: string, ...more: string[]) =>
  run(
    place.home,
    'recording',
    'verify',
    ...more,
    '--from',
    from,
    '--log',
    place.logDirectory,
    '--key',
    place.keys,
  )

describe('with a copy', () => {
  test('a terminal is replayed in order, fast, and nothing of it makes the auditor’s own terminal act', async () => {
    const ran = await run(
      place.home,
      'recording',
      'replay',
      ...opened(terminal.id),
      '--speed',
      '1000',
      '--idle',
      '1',
    )
    expect(ran).toMatchObject({ code: 0, err: '' })
    const lines = Array.from({ length: 10 }, (_, at) => `line ${at} \r\n`)
    expect(ran.out).toBe(lines.join(''))
  })

  test('a web session is replayed as a list', async () => {
    const ran = await run(place.home, 'recording', 'replay', ...opened(web.id))
    expect(ran.out).toMatch(/GET +\/start\?page= +200 +20 +0 +9/)
  })

  test('packets have no picture, but a file', async () => {
    const ran = await run(place.home, 'recording', 'replay', ...opened(modbus.id))
    expect(ran.code).toBe(2)
    expect(ran.err).toContain('recording export')
    const out = join(place.home, 'out.pcapng')
    const made = await run(
      place.home,
      'recording',
      'export',
      ...opened(modbus.id, place.identities.bert),
      '--out',
      out,
    )
    expect(made.code).toBe(0)
    expect(readFileSync(out).readUInt32LE(0)).toBe(0x0a0d0d0a)
    expect(statSync(out).mode & 0o077).toBe(0)
    const again = await run(place.home, 'recording', 'export', ...opened(modbus.id), '--out', out)
    expect(again.code).toBe(2)
  })

  test('another key opens nothing, and whose would is said', async () => {
    const key = join(place.home, 'mallory.key')
    expect((await run(place.home, 'audit', 'auditor', 'keygen', '--out', key)).code).toBe(0)
    const ran = await run(place.home, 'recording', 'replay', ...opened(terminal.id, key))
    expect(ran.code).toBe(1)
    expect(ran.err).toContain('recording.identity')
    expect(ran.err).toContain(place.anna.recipient.text)
    const none = await run(place.home, 'recording', 'replay', ...opened(terminal.id, place.keys))
    expect(none.code).toBe(2)
  })

  test('a part that was changed is not played', async () => {
    const copy = copied()
    const path = join(copy, terminal.id, '001-000002.age')
    const file = readFileSync(path)
    file[file.length - 20] = (file.at(-20) ?? 0) ^ 1
    writeFileSync(path, file)
    const flags = [terminal.id, '--from', copy, '--identity', place.identities.anna]
    const ran = await run(place.home, 'recording', 'replay', ...flags)
    expect(ran).toMatchObject({ code: 1, out: '' })
    expect(ran.err).toContain('001-000002.age')
  })

  test('one is shown, and a session that has none is said to have none', async () => {
    const ran = await run(place.home, 'recording', 'show', terminal.id, '--from', place.directory)
    expect(ran.out).toContain('press-07/spawn')
    expect(ran.out).toContain(place.bert.recipient.text)
    const none = await run(
      place.home,
      'recording',
      'show',
      `s_${'9'.repeat(26)}`,
      '--from',
      place.directory,
    )
    expect(none.code).toBe(1)
    expect(
      (await run(place.home, 'recording', 'show', '../x', '--from', place.directory)).code,
    ).toBe(2)
  })
})

describe('a list of parts that somebody cut', () => {
  const replayed = (copy: string) =>
    run(
      place.home,
      'recording',
      'replay',
      terminal.id,
      '--from',
      copy,
      '--identity',
      place.identities.anna,
      '--speed',
      '1000',
      '--idle',
      '0',
    )
  /** The manifest's lines, parsed, after `change`. */
  function edit(copy: string, change: (lines: Record<string, unknown>[]) => unknown[]): void {
    const path = join(copy, terminal.id, 'manifest.ndjson')
    const lines = readFileSync(path, 'utf8').trim().split('\n')
    const parsed = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
    const changed = change(parsed).map((line) => `${JSON.stringify(line)}\n`)
    writeFileSync(path, changed.join(''))
  }

  test('by its last part is not played: its end says how many there are', async () => {
    const copy = copied()
    edit(copy, (lines) => lines.toSpliced(-2, 1))
    const ran = await replayed(copy)
    expect(ran).toMatchObject({ code: 1, out: '' })
    expect(ran.err).toContain('recording.sealed')
  })

  test('by its end is said to have none', async () => {
    const copy = copied()
    edit(copy, (lines) => lines.slice(0, -2))
    const ran = await replayed(copy)
    expect(ran.code).toBe(0)
    expect(ran.err).toContain('has no end')
  })

  test('that calls a part torn in the middle is not believed, and at its end is said', async () => {
    const torn = (at: number) => {
      const copy = copied()
      edit(copy, (lines) =>
        lines.map((line, line_at) => (line_at === at ? { ...line, torn: true } : line)),
      )
      return copy
    }
    const middle = await replayed(torn(1))
    expect(middle).toMatchObject({ code: 1, out: '' })
    expect(middle.err).toContain('called torn')
    const count = readFileSync(join(place.directory, terminal.id, 'manifest.ndjson'), 'utf8')
      .trim()
      .split('\n').length
    const final = await replayed(torn(count - 2))
    expect(final.code).toBe(0)
    expect(final.err).toContain('only the log proves that')
  })
})

function copied(): string {
  const copy = mkdtempSync(join(place.home, 'copy-'))
  cpSync(place.directory, copy, { recursive: true })
  return copy
}

describe('proving recordings against the log', () => {
  test('what is as it was is proven, each by name, without any key of an auditor', async () => {
    const ran = await prove(place.directory)
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
    const log = mkdtempSync(join(place.home, 'log-'))
    cpSync(place.logDirectory, log, { recursive: true })
    const bodies = events.map(({ code, facts }) => ({
      metadata: { event_code: code, correlation_uid: id },
      unmapped: { sallyport: facts },
    }))
    forge(log, bodies)
    const args = ['--from', copy, '--log', log, '--key', place.keys]
    const ran = await run(place.home, 'recording', 'verify', id, ...args)
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
      place.log.append({
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
      place.log.append({
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
      await place.log.checkpoint()
      const ran = await prove(place.directory)
      expect(ran.code).toBe(1)
      expect(ran.out).toMatch(new RegExp(`VIOLATED: ${missing}\n +end[.]missing`))
      expect(ran.out).not.toContain(flow)
    })

    test('one that goes on is said to, with parts that are not signed yet, and not convicted', async () => {
      const session = sessionOf('spawn')
      await start(session.id, 'asciicast')
      const recording = await place.open({ limits: { partBytes: 100 } }).admit(session, () => {})
      const tap = recording.tap(null)
      for (let at = 0; at < 10; at++) tap.data('out', bytes(`line ${at}`.repeat(5)))
      await until('a part is logged', () =>
        place
          .events()
          .some(({ code, text }) => code === 'recording.part' && text.includes(session.id)),
      )
      await place.log.checkpoint()
      const copy = copied()
      writeFileSync(join(copy, session.id, '001-000099.age'), 'written since')
      const ran = await prove(copy, session.id)
      expect([ran.code, ran.out]).toEqual([0, expect.stringContaining(`goes on: ${session.id}`)])
      rmSync(join(copy, session.id, '001-000001.age'))
      expect((await prove(copy, session.id)).out).toContain('part.missing 001-000001')
      tap.end()
      await recording.end('client_done')
      await end(session.id)
      await place.log.checkpoint()
      expect((await prove(place.directory, session.id)).out).toContain(`proven: ${session.id}`)
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

describe('at a gateway', () => {
  let gateway: FakeGateway
  beforeAll(async () => {
    gateway = await startFakeGateway()
  })
  afterAll(async () => gateway[Symbol.asyncDispose]())
  let secret = ''
  beforeEach(() => {
    secret = ''
  })

  const auditor = (recipient: string, state: string) => ({
    name: 'anna',
    recipient,
    state,
    added_at: 1_750_000_000,
    by: 'i|root',
  })
  function takesAuditors(): void {
    gateway.answer('POST /api/v1/auditors', ({ body }) => {
      const { recipient } = body as { recipient: string }
      secret = `secret of ${recipient}`
      const sealer = new Sealer([parseRecipient(recipient)], [], (n) => new Uint8Array(n).fill(7))
      const sealed = Buffer.concat([sealer.header, sealer.push(Buffer.from(secret)), sealer.end()])
      return {
        status: 201,
        body: { auditor: auditor(recipient, 'unconfirmed'), test: sealed.toString('base64') },
      }
    })
    gateway.answer('POST /api/v1/auditors/anna/confirm', ({ body }) =>
      (body as { secret: string }).secret === secret
        ? { body: auditor(place.anna.recipient.text, 'active') }
        : { status: 403, body: null },
    )
  }

  test('a key is added in one step where it is at hand, and never sent', async () => {
    takesAuditors()
    const ran = await run(
      gateway.home,
      'audit',
      'auditor',
      'add',
      'anna',
      '--identity',
      place.identities.anna,
    )
    expect(ran).toMatchObject({ code: 0, err: '' })
    expect(JSON.stringify(gateway.calls)).not.toContain('AGE-SECRET')
    expect(gateway.calls.at(-1)?.path).toBe('/api/v1/auditors/anna/confirm')
  })

  test('a key that is elsewhere is added in three: test, answer, confirmation', async () => {
    takesAuditors()
    const file = join(place.home, 'anna.test')
    const key = place.anna.recipient.text
    const add = ['audit', 'auditor', 'add', 'anna', '--recipient', key]
    expect((await run(gateway.home, ...add)).code).toBe(2)
    expect((await run(gateway.home, ...add, '--test', file)).code).toBe(0)
    const wrong = await run(
      place.home,
      'audit',
      'auditor',
      'answer',
      file,
      '--identity',
      place.identities.bert,
    )
    expect(wrong.code).toBe(1)
    const answer = await run(
      place.home,
      'audit',
      'auditor',
      'answer',
      file,
      '--identity',
      place.identities.anna,
    )
    expect(answer.out.trim()).toBe(secret)
    expect((await run(gateway.home, 'audit', 'auditor', 'confirm', 'anna', secret)).code).toBe(0)
  })

  test('a pair is made into a new file that is its owner’s alone', async () => {
    const file = join(place.home, 'new.key')
    const made = await run(place.home, '--json', 'audit', 'auditor', 'keygen', '--out', file)
    const { recipient } = JSON.parse(made.out) as { recipient: string }
    expect(parseIdentities(readFileSync(file, 'utf8'))[0]?.recipient.text).toBe(recipient)
    expect(statSync(file).mode & 0o077).toBe(0)
    expect(made.out).not.toContain('SECRET')
    expect((await run(place.home, 'audit', 'auditor', 'keygen', '--out', file)).code).toBe(2)
  })

  test('what was exported is told to it before the file is there', async () => {
    const stored = await readRecording(place.directory, web.id)
    if (stored === undefined) throw new Error('no recording')
    const { facts, parts, end } = stored
    const path = `/api/v1/recordings/${web.id}`
    gateway.answer(`GET ${path}`, { body: { ...facts, parts, bytes: 1, end } })
    const sealed = readFileSync(join(place.directory, web.id, '001-000001.age'))
    gateway.answer(`GET ${path}/parts/1/1`, { bytes: sealed, body: null })
    gateway.answer(`POST ${path}/views`, { status: 403, body: null })
    const out = join(place.home, 'web.ndjson')
    const flags = [web.id, '--identity', place.identities.anna, '--out', out]
    const refused = await run(gateway.home, 'recording', 'export', ...flags)
    expect(refused.code).toBe(3)
    expect(() => readFileSync(out)).toThrow(/ENOENT/)
    gateway.answer(`POST ${path}/views`, ({ body }) => ({ body }))
    expect((await run(gateway.home, 'recording', 'export', ...flags)).code).toBe(0)
    expect(gateway.calls.at(-1)?.body).toMatchObject({ how: 'export', ranges: [{ track: 1 }] })
    expect(readFileSync(out, 'utf8')).toContain('"query_string":"page="')
  })
})

describe('a recorded terminal on another', () => {
  const show = (...pieces: string[]) => {
    const screen = new Screen()
    return pieces.map((piece) => screen.show(piece)).join('')
  }
  test.for<[string, string, string]>([
    ['text', 'plain äöü 🙂\r\n\t', 'plain äöü 🙂\r\n\t'],
    ['colours', '\u001b[1;38;5;196mred\u001b[0m', '\u001b[1;38;5;196mred\u001b[0m'],
    [
      'the cursor',
      '\u001b[2J\u001b[10;5H\u001b[K\u001b7\u001b8',
      '\u001b[2J\u001b[10;5H\u001b[K\u001b7\u001b8',
    ],
    ['the other screen', '\u001b[?1049h\u001b[?25l', '\u001b[?1049h\u001b[?25l'],
    ['a title', 'a\u001b]0;evil\u0007b', 'ab'],
    ['a title that ends with ST', 'a\u001b]0;evil\u001b\\b', 'ab'],
    ['the clipboard', 'a\u001b]52;c;ZXZpbA==\u0007b', 'ab'],
    ['a hyperlink', '\u001b]8;;http://evil\u0007x\u001b]8;;\u0007', 'x'],
    ['where the cursor is', 'a\u001b[6nb', 'ab'],
    ['what the terminal is', 'a\u001b[c\u001b[>c\u001b[=cb', 'ab'],
    ['a string of DCS', 'a\u001bP$qm\u001b\\b', 'ab'],
    ['an answer to ENQ', 'a\u0005b', 'ab'],
    ['held output', 'a\u0013b', 'ab'],
    ['the mouse', 'a\u001b[?1000;1006hb', 'ab'],
    ['the mouse among what is allowed', 'a\u001b[?25;1000hb', 'ab'],
    ['pasting in brackets', 'a\u001b[?2004hb', 'ab'],
    ['the window', 'a\u001b[8;1;1tb', 'ab'],
    ['C1 controls', 'a\u009b6n\u009d0;x\u0007b', 'a6n0;x\u0007b'],
    ['a private sequence', 'a\u001b[>4;2mb', 'ab'],
    ['an intermediate', 'a\u001b[1 qb', 'ab'],
    ['an unfinished sequence before text', 'a\u001b[12\u001b[1mb', 'a\u001b[1mb'],
    ['a sequence without end', `a\u001b[${'1'.repeat(5_000)}`, 'a'],
  ])('%s', ([, given, shown]) => {
    const out = show(given)
    expect(out.startsWith(shown.slice(0, 40))).toBe(true)
    if (given.length < 1_000) expect(out).toBe(shown)
    // However it was cut into pieces.
    expect(show(...Array.from(given))).toBe(out)
  })
  test('what puts it back leaves colours, screen and cursor as they were', () => {
    expect(RESTORE).toContain('\u001b[?25h')
    expect(RESTORE).toContain('\u001b[?1049l')
    for (const left of ['(B', ')B', '[?1l', '[?5l', '[?6l', '[?7h', '[4l', '[20l', '>'])
      expect(RESTORE).toContain(`\u001b${left}`)
    expect(show('\u001b[20h')).toBe('')
  })
})

test.skipIf(spawnSync('age', ['--version']).status !== 0)(
  'age opens a part by itself (Debian package age)',
  () => {
    const part = join(place.directory, modbus.id, '001-000001.age')
    const ran = spawnSync('age', ['-d', '-i', place.identities.bert, part])
    expect(ran.stderr.toString()).toBe('')
    expect(
      Buffer.compare(ran.stdout, Buffer.from(openSealed(readFileSync(part), [place.anna]).plain)),
    ).toBe(0)
  },
)
