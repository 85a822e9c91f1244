/** `sallyport recording` with a copy and no network, and at a gateway; what a recorded terminal may do to the auditor’s own. */
import { spawnSync } from 'node:child_process'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { openSealed, parseIdentities, readRecording, Sealer, parseRecipient } from '#audit'
import { RESTORE, Screen } from '../../cli/screen.ts'
import { startFakeGateway, type FakeGateway } from './fake-gateway.ts'
import { run } from './run.ts'
import { copied, here, modbus, opened, terminal, threeRecordings, web } from './recorded.ts'

threeRecordings()

describe('with a copy', () => {
  test('a terminal is replayed in order, fast, and nothing of it makes the auditor’s own terminal act', async () => {
    const ran = await run(
      here.place.home,
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
    const ran = await run(here.place.home, 'recording', 'replay', ...opened(web.id))
    expect(ran.out).toMatch(/GET +\/start\?page= +200 +20 +0 +9/)
  })

  test('packets have no picture, but a file', async () => {
    const ran = await run(here.place.home, 'recording', 'replay', ...opened(modbus.id))
    expect(ran.code).toBe(2)
    expect(ran.err).toContain('recording export')
    const out = join(here.place.home, 'out.pcapng')
    const made = await run(
      here.place.home,
      'recording',
      'export',
      ...opened(modbus.id, here.place.identities.bert),
      '--out',
      out,
    )
    expect(made.code).toBe(0)
    expect(readFileSync(out).readUInt32LE(0)).toBe(0x0a0d0d0a)
    expect(statSync(out).mode & 0o077).toBe(0)
    const again = await run(
      here.place.home,
      'recording',
      'export',
      ...opened(modbus.id),
      '--out',
      out,
    )
    expect(again.code).toBe(2)
  })

  test('another key opens nothing, and whose would is said', async () => {
    const key = join(here.place.home, 'mallory.key')
    expect((await run(here.place.home, 'audit', 'auditor', 'keygen', '--out', key)).code).toBe(0)
    const ran = await run(here.place.home, 'recording', 'replay', ...opened(terminal.id, key))
    expect(ran.code).toBe(1)
    expect(ran.err).toContain('recording.identity')
    expect(ran.err).toContain(here.place.anna.recipient.text)
    const none = await run(
      here.place.home,
      'recording',
      'replay',
      ...opened(terminal.id, here.place.keys),
    )
    expect(none.code).toBe(2)
  })

  test('a part that was changed is not played', async () => {
    const copy = copied()
    const path = join(copy, terminal.id, '001-000002.age')
    const file = readFileSync(path)
    file[file.length - 20] = (file.at(-20) ?? 0) ^ 1
    writeFileSync(path, file)
    const flags = [terminal.id, '--from', copy, '--identity', here.place.identities.anna]
    const ran = await run(here.place.home, 'recording', 'replay', ...flags)
    expect(ran).toMatchObject({ code: 1, out: '' })
    expect(ran.err).toContain('001-000002.age')
  })

  test('one is shown, and a session that has none is said to have none', async () => {
    const ran = await run(
      here.place.home,
      'recording',
      'show',
      terminal.id,
      '--from',
      here.place.directory,
    )
    expect(ran.out).toContain('press-07/spawn')
    expect(ran.out).toContain(here.place.bert.recipient.text)
    const none = await run(
      here.place.home,
      'recording',
      'show',
      `s_${'9'.repeat(26)}`,
      '--from',
      here.place.directory,
    )
    expect(none.code).toBe(1)
    expect(
      (await run(here.place.home, 'recording', 'show', '../x', '--from', here.place.directory))
        .code,
    ).toBe(2)
  })
})

describe('a list of parts that somebody cut', () => {
  const replayed = (copy: string) =>
    run(
      here.place.home,
      'recording',
      'replay',
      terminal.id,
      '--from',
      copy,
      '--identity',
      here.place.identities.anna,
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
    const count = readFileSync(join(here.place.directory, terminal.id, 'manifest.ndjson'), 'utf8')
      .trim()
      .split('\n').length
    const final = await replayed(torn(count - 2))
    expect(final.code).toBe(0)
    expect(final.err).toContain('only the log proves that')
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
        ? { body: auditor(here.place.anna.recipient.text, 'active') }
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
      here.place.identities.anna,
    )
    expect(ran).toMatchObject({ code: 0, err: '' })
    expect(JSON.stringify(gateway.calls)).not.toContain('AGE-SECRET')
    expect(gateway.calls.at(-1)?.path).toBe('/api/v1/auditors/anna/confirm')
  })

  test('a key that is elsewhere is added in three: test, answer, confirmation', async () => {
    takesAuditors()
    const file = join(here.place.home, 'anna.test')
    const key = here.place.anna.recipient.text
    const add = ['audit', 'auditor', 'add', 'anna', '--recipient', key]
    expect((await run(gateway.home, ...add)).code).toBe(2)
    expect((await run(gateway.home, ...add, '--test', file)).code).toBe(0)
    const wrong = await run(
      here.place.home,
      'audit',
      'auditor',
      'answer',
      file,
      '--identity',
      here.place.identities.bert,
    )
    expect(wrong.code).toBe(1)
    const answer = await run(
      here.place.home,
      'audit',
      'auditor',
      'answer',
      file,
      '--identity',
      here.place.identities.anna,
    )
    expect(answer.out.trim()).toBe(secret)
    expect((await run(gateway.home, 'audit', 'auditor', 'confirm', 'anna', secret)).code).toBe(0)
  })

  test('a pair is made into a new file that is its owner’s alone', async () => {
    const file = join(here.place.home, 'new.key')
    const made = await run(here.place.home, '--json', 'audit', 'auditor', 'keygen', '--out', file)
    const { recipient } = JSON.parse(made.out) as { recipient: string }
    expect(parseIdentities(readFileSync(file, 'utf8'))[0]?.recipient.text).toBe(recipient)
    expect(statSync(file).mode & 0o077).toBe(0)
    expect(made.out).not.toContain('SECRET')
    expect((await run(here.place.home, 'audit', 'auditor', 'keygen', '--out', file)).code).toBe(2)
  })

  test('what was exported is told to it before the file is there', async () => {
    const stored = await readRecording(here.place.directory, web.id)
    if (stored === undefined) throw new Error('no recording')
    const { facts, parts, end } = stored
    const path = `/api/v1/recordings/${web.id}`
    gateway.answer(`GET ${path}`, { body: { ...facts, parts, bytes: 1, end } })
    const sealed = readFileSync(join(here.place.directory, web.id, '001-000001.age'))
    gateway.answer(`GET ${path}/parts/1/1`, { bytes: sealed, body: null })
    gateway.answer(`POST ${path}/views`, { status: 403, body: null })
    const out = join(here.place.home, 'web.ndjson')
    const flags = [web.id, '--identity', here.place.identities.anna, '--out', out]
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
    const part = join(here.place.directory, modbus.id, '001-000001.age')
    const ran = spawnSync('age', ['-d', '-i', here.place.identities.bert, part])
    expect(ran.stderr.toString()).toBe('')
    expect(
      Buffer.compare(
        ran.stdout,
        Buffer.from(openSealed(readFileSync(part), [here.place.anna]).plain),
      ),
    ).toBe(0)
  },
)
