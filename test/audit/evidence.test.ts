import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { buildEvidence, readCatalogue } from '#audit'
import { packEntry, zipOf, type Packed } from '../../audit/evidence/zip.ts'
import { readZip, verifyPackage } from '../../audit/evidence/verify.mjs'
import { keys, origin, shared, temporary, vkeys } from './fixture.ts'
import { generateKeyPairSync, hash } from 'node:crypto'
import { fileOf, rootOf } from '../../audit/recording/parts.ts'
import { begin, minute, Month, ordinary } from './month.ts'

const catalogue = readCatalogue()

function packageOf(directory: string, from: number, to: number): Buffer {
  return buildEvidence({ directory, vkeys, from, to, catalogue, device: 'press-07' }).bytes
}

const directory = shared()
const month = ordinary(directory)
const [from, to] = [begin, month.time]
const zip = packageOf(directory, from, to)

/** What the foreign verifier says: Python and openssl, sharing no line with ours. Its exit code and its words. */
function foreign(
  bytes: Uint8Array,
  keys: readonly string[] = vkeys,
): { exit: number; out: string } {
  const at = temporary()
  writeFileSync(join(at, 'p.zip'), bytes)
  writeFileSync(join(at, 'keys'), `${keys.join('\n')}\n`)
  const args = [python, join(at, 'p.zip'), ...(keys.length > 0 ? ['--key', join(at, 'keys')] : [])]
  const { status, stdout, stderr } = spawnSync('python3', args, { encoding: 'utf8' })
  return { exit: status ?? -1, out: `${stdout}${stderr}` }
}
const python = new URL('../../audit/evidence/verify.py', import.meta.url).pathname
const hasPython = spawnSync('python3', ['-c', 'import zipfile']).status === 0
const hasOpenssl = spawnSync('openssl', ['version']).status === 0

/** The package with one entry changed and every hash about it mended: what a forger would do. */
function forged(change: Readonly<Record<string, (text: string) => string>>): Buffer {
  const entries = [...readZip(zip).values()].map((entry): Packed => {
    const edit = change[entry.name]
    return edit === undefined ? entry : packEntry(entry.name, edit(entry.bytes.toString()))
  })
  return sealed(entries)
}
function sealed(entries: readonly Packed[]): Buffer {
  const manifest = JSON.parse(
    Buffer.from(entries.find(({ name }) => name === 'manifest.json')?.bytes ?? []).toString(),
  ) as { entries: unknown[] }
  const rest = entries.filter(({ name }) => !name.startsWith('manifest.'))
  const sorted = rest.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  manifest.entries = sorted.map(({ name, bytes, packed }) => ({
    name,
    size: bytes.length,
    sha256: sha256(bytes),
    packed_sha256: sha256(packed),
  }))
  const text = `${JSON.stringify(manifest, null, 1)}\n`
  return zipOf([
    ...rest,
    packEntry('manifest.json', text),
    packEntry('manifest.sha256', `${sha256(Buffer.from(text))}  manifest.json\n`),
  ])
}
const lines = (text: string): string[] => text.split('\n').slice(0, -1)

describe('a package of an ordinary time', () => {
  test('is proven, and answers who could, who did, on whose approval, doing what', () => {
    const { exit, lines: said } = verifyPackage(zip, vkeys, 'press-07')
    expect(exit).toBe(0)
    const text = said.join('\n')
    expect(text).toContain('PROVEN: complete with listed recoveries')
    expect(text).toContain('(stopped')
    expect(text).toContain('who could reach press-07: 1 grant')
    expect(text).toContain('vera@vendor.test: press-07 plc')
    expect(text).toContain('approved by olga@plant.test')
    expect(text).toContain('who did: 2 sessions')
    expect(text).toContain('2 recorded acts (s_1)')
    expect(text).toContain('refused: 1')
  })
  test('says of each file whether it is proven, made anew and compared, or neither', () => {
    const { lines: said } = verifyPackage(zip, vkeys)
    for (const line of [
      'PROVEN: log/events.ndjson',
      'PROVEN: log/checkpoints',
      'DERIVED AND RECOMPUTED: report.html',
      'DERIVED AND RECOMPUTED: sessions.csv',
      'DERIVED AND RECOMPUTED: grants.csv',
      'DERIVED AND RECOMPUTED: recordings.csv',
      'DERIVED AND RECOMPUTED: README.txt',
      'DERIVED AND RECOMPUTED: manifest.json',
      `DERIVED AND RECOMPUTED: controls/*, ${2 * catalogue.controls.length} files`,
    ])
      expect(said).toContain(line)
    for (const name of ['catalogue.json', 'verify.mjs', 'verify.py'])
      expect(said.join('\n')).toContain(`NOT PROVEN: ${name} (`)
    expect(verifyPackage(zip, []).lines).toContain('NOT PROVEN: log/events.ndjson')
  })
  test('is the same bytes when it is made again', () => {
    expect(packageOf(directory, from, to).equals(zip)).toBe(true)
  })
  test('without a key is intact and nobody’s', () => {
    expect(verifyPackage(zip, [])).toMatchObject({ exit: 2 })
    expect(verifyPackage(zip, []).lines[0]).toMatch(/ORIGIN NOT PINNED/)
  })
  test('that begins inside the log stands on the head before it', () => {
    const some = buildEvidence({
      directory,
      vkeys,
      from: begin + 12 * minute,
      to: begin + 29 * minute,
      leadMs: 3 * minute,
      catalogue,
    })
    expect(verifyPackage(some.bytes, vkeys)).toMatchObject({ exit: 0 })
    expect(some.events).toBeLessThan(40)
    expect(verifyPackage(some.bytes, vkeys).lines[0]).toBe('PROVEN: complete')
  })
  test('has every framework of the catalogue, and no page of it without the disclaimer', () => {
    const entries = [...readZip(zip).values()].filter(({ name }) => /controls\/.*json$/.test(name))
    expect(entries.length).toBe(catalogue.controls.length)
    for (const { bytes } of entries) expect(bytes.toString()).toContain('Mapping, not legal advice')
    expect(readZip(zip).get('report.html')?.bytes.toString()).toContain('Mapping, not legal advice')
  })
  test('shows text of the log as text', () => {
    const html = readZip(zip).get('report.html')?.bytes.toString() ?? ''
    expect(html).toContain('replace the &#60;worn&#62; valve block &#38; test')
    expect(html).not.toContain('<worn>')
  })
})

describe.skipIf(!hasPython || !hasOpenssl)('a verifier in Python and openssl', () => {
  test('agrees that it is proven, and says the same of its sessions', () => {
    const { exit, out } = foreign(zip)
    expect(out).toContain('PROVEN: complete with listed recoveries')
    for (const name of ['report.html', 'sessions.csv', 'catalogue.json', 'verify.mjs'])
      expect(out).toMatch(new RegExp(`^NOT PROVEN HERE: ${name}`, 'm'))
    expect(out).toMatch(/^PROVEN: log\/events.ndjson$/m)
    expect(exit).toBe(0)
  })
  test('finds a removed event and a key that is not the log’s', () => {
    const removed = forged({
      'log/events.ndjson': (text) => `${lines(text).toSpliced(20, 1).join('\n')}\n`,
      'log/leaves.txt': (text) => `${lines(text).toSpliced(20, 1).join('\n')}\n`,
    })
    expect(foreign(removed)).toMatchObject({ exit: 1 })
    const other = temporary()
    const stranger = new Month(other)
    stranger.open()
    expect(foreign(zip, [vkeys[0]?.replace(origin, 'other.test/audit/n1/1') ?? '']).exit).not.toBe(
      0,
    )
  })
})

describe.skipIf(!hasPython || !hasOpenssl)('a byte flipped for the verifier in Python', () => {
  test.for([0.02, 0.2, 0.4, 0.6, 0.8, 0.99])('at %d of the file is found', (share) => {
    const bytes = Buffer.from(zip)
    const at = Math.floor(zip.length * share)
    bytes[at] = (bytes[at] ?? 0) ^ 4
    expect(foreign(bytes)).toMatchObject({ exit: 1 })
  })
})

describe('a byte', () => {
  test('flipped anywhere in the file is found', () => {
    const unfound: number[] = []
    const step = Math.max(1, Math.floor(zip.length / 400))
    for (let at = 0; at < zip.length; at += step) {
      const bytes = Buffer.from(zip)
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8))
      if (verifyPackage(bytes, vkeys).exit !== 1) unfound.push(at)
    }
    expect(unfound).toEqual([])
  })
  test('more at the end, or one fewer, is found', () => {
    expect(verifyPackage(Buffer.concat([zip, Buffer.of(0)]), vkeys).exit).toBe(1)
    expect(verifyPackage(zip.subarray(0, -1), vkeys).exit).toBe(1)
  })
})

describe('a forger who mends every hash of the package', () => {
  const rows: { name: string; change: Record<string, (text: string) => string>; says: RegExp }[] = [
    {
      name: 'removes an event',
      change: {
        'log/events.ndjson': (text) => `${lines(text).toSpliced(20, 1).join('\n')}\n`,
        'log/leaves.txt': (text) => `${lines(text).toSpliced(20, 1).join('\n')}\n`,
      },
      says: /event 2\d|not the events/,
    },
    {
      name: 'removes the last event',
      change: {
        'log/events.ndjson': (text) => `${lines(text).slice(0, -1).join('\n')}\n`,
        'log/leaves.txt': (text) => `${lines(text).slice(0, -1).join('\n')}\n`,
      },
      says: /events are not/,
    },
    {
      name: 'changes an event and leaves its leaf',
      change: { 'log/events.ndjson': (text) => text.replace('olga@plant.test', 'otto@plant.test') },
      says: /event 12: its leaf hash/,
    },
    {
      name: 'repeats an event',
      change: {
        'log/events.ndjson': (text) =>
          `${lines(text)
            .toSpliced(9, 0, lines(text)[9] ?? '')
            .join('\n')}\n`,
        'log/leaves.txt': (text) =>
          `${lines(text)
            .toSpliced(9, 0, lines(text)[9] ?? '')
            .join('\n')}\n`,
      },
      says: /not the events/,
    },
    {
      name: 'changes a signed head',
      change: { 'log/checkpoints': (text) => text.replace(/\n11\n/, '\n12\n') },
      says: /signature/,
    },
    {
      name: 'says a better verdict',
      change: {
        'manifest.json': (text) => text.replace('complete with listed recoveries', 'complete'),
      },
      says: /the events say/,
    },
    {
      name: 'edits the report that people read',
      change: { 'report.html': (text) => text.replaceAll('olga@plant.test', 'otto@plant.test') },
      says: /VIOLATED at report.html/,
    },
    {
      name: 'takes a session out of sessions.csv',
      change: { 'sessions.csv': (text) => `${text.split('\r\n').toSpliced(2, 1).join('\r\n')}` },
      says: /VIOLATED at sessions.csv/,
    },
    {
      name: 'puts an approver into grants.csv',
      change: { 'grants.csv': (text) => text.replaceAll('olga', 'otto') },
      says: /VIOLATED at grants.csv/,
    },
    {
      name: 'edits what a clause is answered with',
      change: {
        'controls/cip-005-r2.4.csv': (text) => text.replace('vera', 'otto'),
      },
      says: /VIOLATED at controls/,
    },
    {
      name: 'edits the README',
      change: { 'README.txt': (text) => `${text}All of it is true.\n` },
      says: /VIOLATED at README.txt/,
    },
    {
      name: 'takes back what the manifest cannot show',
      change: { 'manifest.json': (text) => text.replace('access around Sallyport', 'nothing') },
      says: /VIOLATED at manifest.json/,
    },
    {
      name: 'asks for a longer time than was shown',
      change: {
        'manifest.json': (text) => text.replace('"from": "2026-03-10', '"from": "2026-03-01'),
      },
      says: /the events say/,
    },
  ]
  test.for(rows)('and $name is found', ({ change, says }) => {
    const { exit, lines: said } = verifyPackage(forged(change), vkeys)
    expect(said.join('\n')).toMatch(says)
    expect(exit).toBe(1)
  })
  test('and takes away a clause keeps its files in vain', () => {
    const forgery = forged({
      'catalogue.json': (text) =>
        `${JSON.stringify((JSON.parse(text) as unknown[]).slice(1), null, 1)}\n`,
    })
    expect(verifyPackage(forgery, vkeys)).toMatchObject({ exit: 1 })
  })
  test('and says that another release wrote the report gets no PROVEN for it', () => {
    const forgery = forged({
      'report.html': (text) => text.replaceAll('olga', 'otto'),
      'manifest.json': (text) => text.replace('"rendering": 2', '"rendering": 3'),
    })
    const { exit, lines: said } = verifyPackage(forgery, vkeys)
    expect(exit).toBe(2)
    expect(said).toContain('NOT PROVEN: report.html')
  })
  test('and adds a file is found', () => {
    const entries = [...readZip(zip).values(), packEntry('more.txt', 'x')]
    expect(verifyPackage(zipOf(entries), vkeys)).toMatchObject({ exit: 1 })
  })
})

describe('what is not provable is not called proven', () => {
  const judge = (act: (month: Month) => void): { exit: number; text: string } => {
    const at = temporary()
    const one = new Month(at)
    one.open()
    one.pass(3)
    act(one)
    one.pass(3)
    one.one.close()
    const result = verifyPackage(packageOf(at, begin, one.time), vkeys)
    return { exit: result.exit, text: result.lines.join('\n') }
  }
  test('a heartbeat gap is named', () => {
    const { exit, text } = judge((one) => {
      one.time += 3 * minute
    })
    expect(text).toMatch(
      /GAP: no heartbeat from 2026-03-10 08:03:00Z to 2026-03-10 08:07:00Z \(silent, event 4\)/,
    )
    expect(exit).toBe(2)
  })
  test('a crash is listed, and does not spoil the rest', () => {
    const { exit, text } = judge((one) => {
      one.time += 5 * minute
      one.open()
    })
    expect(text).toMatch(/PROVEN: complete with listed recoveries/)
    expect(text).toMatch(/crashed/)
    expect(exit).toBe(0)
  })
  test('a time before the log began, and after it ended', () => {
    const at = temporary()
    const one = new Month(at)
    one.open()
    one.pass(3)
    const { exit, lines: said } = verifyPackage(
      packageOf(at, begin - 60 * minute, one.time + 60 * minute),
      vkeys,
    )
    expect(said.join('\n')).toMatch(/\(before/)
    expect(said.join('\n')).toMatch(/\(after/)
    expect(exit).toBe(2)
  })
  test('a heartbeat that knows a session the log does not is a violation', () => {
    const { exit, text } = judge((one) => {
      one.time += minute
      one.beat([
        {
          session: 's_9',
          grant: 'g_9',
          device: 'press-07',
          process: 'plc',
          party: 'vendor',
          kind: 'ira',
          startIdx: 2,
        },
      ])
    })
    expect(text).toMatch(/commits to other active sessions/)
    expect(exit).toBe(1)
  })
  test.for([
    {
      name: 'a grant approved by who asked for it',
      act: (one: Month) =>
        one.grant('g_1', 1, {
          uid: 'https://idp.test|vera',
          name: 'vera@vendor.test',
          party: 'vendor',
        }),
      says: /approved by who requested it/,
    },
    {
      name: 'a grant nobody approved',
      act: (one: Month) => one.grant('g_1', 2),
      says: /1 of 2 approvals/,
    },
    { name: 'no grant at all', act: () => undefined, says: /never requested/ },
  ])('a session under $name is an exception', ({ act, says }) => {
    const { text, exit } = judge((one) => {
      act(one)
      one.pass(1)
      one.start('s_1', 'g_1')
      one.pass(1)
      one.end('s_1')
    })
    expect(text).toMatch(says)
    expect(exit).toBe(1)
  })
})

describe('a session that its grant does not cover is found by both verifiers', () => {
  const otto = { uid: 'https://idp.test|otto', name: 'otto@vendor.test', party: 'vendor' } as const
  const ended = (how: 'reject' | 'revoke' | 'expire' | 'burn') => (one: Month) => {
    one.endGrant('g_1', how)
    one.start('s_1', 'g_1')
  }
  test.for([
    {
      name: 'to a process the grant does not name',
      act: (one: Month) => one.start('s_1', 'g_1', { process: 'hmi' }),
      says: /its grant is not for the process hmi/,
      foreign: /another process/,
    },
    {
      name: 'by another person than the grant’s holder',
      act: (one: Month) => one.start('s_1', 'g_1', { person: otto }),
      says: /vera@vendor.test’s, and otto@vendor.test used it/,
      foreign: /another person/,
    },
    ...(['reject', 'revoke', 'expire', 'burn'] as const).map((how) => ({
      name: `after ${how}`,
      act: ended(how),
      says: new RegExp(`its grant had ended \\(${how}\\)`),
      foreign: /its grant had ended/,
    })),
  ])('$name', ({ act, says, foreign: alsoSays }) => {
    const at = temporary()
    const one = new Month(at)
    one.open()
    one.grant('g_1')
    one.pass(1)
    act(one)
    one.pass(1)
    one.end('s_1')
    one.pass(1)
    one.one.close()
    const bytes = packageOf(at, begin, one.time)
    const { exit, lines: said } = verifyPackage(bytes, vkeys)
    expect(said.filter((line) => line.startsWith('EXCEPTION')).join('\n')).toMatch(says)
    expect(exit).toBe(1)
    if (!hasPython || !hasOpenssl) return
    const other = foreign(bytes)
    expect(other.out).toMatch(alsoSays)
    expect(other.exit).toBe(1)
  })
})

function sha256(bytes: Uint8Array): string {
  return hash('sha256', bytes)
}

describe('a session that had to be recorded', () => {
  const parts = [1, 2, 3].map((part) => ({
    track: 1,
    part,
    bytes: 100,
    sha256: String(part).repeat(64),
    t0: 1,
    t1: 2,
    torn: false,
  }))
  const facts = {
    session: 's_1',
    device: 'press-07',
    process: 'plc',
    grant: 'g_1',
    status: 'success',
  } as const
  interface Told {
    readonly logged?: typeof parts
    readonly end?: { parts: number; root: string } | null
    readonly named?: string
  }
  /** A log in which this is what was said of the recording. */
  function told({ logged = parts, end = { parts: 3, root: rootOf(parts) }, named }: Told) {
    const at = shared()
    const one = new Month(at)
    one.open()
    one.pass(2)
    one.grant('g_1')
    one.pass(2)
    one.start('s_1', 'g_1', {
      recording: { recording: 'pcapng', recipients: ['age1anna', 'age1bert'] },
    })
    one.pass(2)
    for (const { torn: _, ...data } of logged)
      one.write({
        ...facts,
        code: 'recording.part',
        message: 'a part',
        data: { ...data, file: fileOf(data) },
      })
    if (end !== null) one.write({ ...facts, code: 'recording.end', message: 'the end', data: end })
    one.end('s_1', named ?? (end === null ? undefined : end.root))
    one.write({
      ...facts,
      code: 'recording.view',
      message: 'the recording was opened: replay',
      actor: { uid: 'i|aude', name: 'aude@plant.test' },
      data: { ranges: [{ track: 1, from_ms: 0, to_ms: 5 }] },
    })
    one.pass(2)
    const made = packageOf(at, begin, one.time)
    const csv = readZip(made).get('recordings.csv')?.bytes.toString() ?? ''
    return { ...verifyPackage(made, vkeys), csv }
  }

  test('and was, is no exception; its hashes, who can open it and who did are in recordings.csv', () => {
    const { exit, csv } = told({})
    expect(exit).toBe(0)
    for (const { sha256: digest } of parts) expect(csv).toContain(digest)
    for (const said of ['age1anna', 'age1bert', 'aude@plant.test', rootOf(parts)])
      expect(csv).toContain(said)
  })

  test.for<[string, Told, RegExp]>([
    ['without an end', { end: null }, /its recording has no end/],
    ['with a part that was not logged', { logged: parts.toSpliced(1, 1) }, /stands where 2 is due/],
    ['without its last part', { logged: parts.slice(0, 2) }, /not what its end says/],
    ['with another root', { end: { parts: 3, root: 'f'.repeat(64) } }, /not what its end says/],
    [
      'with the root of another in its own end',
      { named: 'e'.repeat(64) },
      /names the root of another/,
    ],
    [
      'with two hashes for one part',
      { logged: [...parts, { ...(parts[2] as (typeof parts)[number]), sha256: 'f'.repeat(64) }] },
      /stands where 4 is due/,
    ],
  ])('%s is an exception that names it', ([, what, finds]) => {
    const { exit, lines: said } = told(what)
    expect(exit).toBe(1)
    expect(said.join('\n')).toMatch(finds)
  })

  test('says the same part twice after a crash, and is no exception', () => {
    expect(told({ logged: [...parts, parts[2] as (typeof parts)[number]] })).toMatchObject({
      exit: 0,
    })
  })
})

describe('a signed package', () => {
  const signWith = [keys.ed25519, keys.mlDsa44]
  const asked = { directory, vkeys, from, to, catalogue, device: 'press-07' }
  const signed = buildEvidence({ ...asked, signWith, now: to }).bytes
  const entriesOf = (bytes: Buffer): Packed[] => [...readZip(bytes).values()]

  test('says who made it, and is otherwise the same bytes', () => {
    const said = verifyPackage(signed, vkeys)
    expect(said.exit).toBe(0)
    expect(said.lines).toContain('SIGNED BY THE LOG\u2019S KEYS: manifest.note')
    expect(verifyPackage(zip, vkeys).lines.join('\n')).toContain('NOT SIGNED as a package')
    expect(zipOf(entriesOf(signed).filter(({ name }) => name !== 'manifest.note'))).toEqual(zip)
    // Nobody who brings no key is told that it is signed.
    expect(verifyPackage(signed, []).lines.join('\n')).not.toContain('SIGNED BY')
  })

  test.skipIf(!hasPython || !hasOpenssl)('says so to a stranger’s program too', () => {
    expect(foreign(signed)).toMatchObject({
      exit: 0,
      out: expect.stringContaining('SIGNED BY') as string,
    })
    expect(foreign(zip).out).toContain('NOT SIGNED')
  })

  const other = buildEvidence({ ...asked, to: to - 60_000, signWith, now: to }).bytes
  const noteOf = (bytes: Buffer): Packed | undefined =>
    entriesOf(bytes).find(({ name }) => name === 'manifest.note')
  const rows: { name: string; note: (text: string) => string }[] = [
    {
      name: 'of another package',
      note: () => Buffer.from(noteOf(other)?.bytes ?? []).toString(),
    },
    {
      name: 'with one character changed',
      note: (text) => text.replace('/evidence\n1', '/evidence\n2'),
    },
    {
      name: 'with one of its signatures gone',
      note: (text) => `${text.split('\n').slice(0, -2).join('\n')}\n`,
    },
    {
      name: 'that is a head of the log itself',
      note: () =>
        `${entriesOf(signed)[0]?.bytes.toString().split('\n\n').slice(0, 2).join('\n\n')}\n`,
    },
  ]
  test.for(rows)('a signature $name is a violation', ({ note }) => {
    const changed = zipOf(
      entriesOf(signed).map((entry) =>
        entry.name === 'manifest.note'
          ? packEntry(entry.name, note(Buffer.from(entry.bytes).toString()))
          : entry,
      ),
    )
    const said = verifyPackage(changed, vkeys)
    expect(said.exit).toBe(1)
    expect(said.lines[0]).toBe('VIOLATED at manifest.note')
    if (hasPython && hasOpenssl) expect(foreign(changed).exit).toBe(1)
  })

  test('is not made with other keys, or with half of them', () => {
    const stranger = generateKeyPairSync('ed25519').privateKey
    for (const some of [[keys.ed25519], [keys.ed25519, stranger], [...signWith, stranger]])
      expect(() => buildEvidence({ ...asked, signWith: some, now: to })).toThrow(
        /not those of the log/,
      )
  })
})
