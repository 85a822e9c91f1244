/** Letting go of the oldest events: what is left is proven as before, and nobody else can take a beginning away. */
import {
  cpSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  buildEvidence,
  openLog,
  proveConsistency,
  proveEntry,
  pruneLog,
  readCatalogue,
  readLog,
  reconcile,
  verifyConsistency,
  verifyLog,
  verifyProof,
  type Pruned,
} from '#audit'
import { readZip, verifyPackage } from '../../audit/evidence/verify.mjs'
import { keepTiles } from '../../audit/keep.ts'
import { splitNotes } from '../../audit/checkpoint.ts'
import { walkNotes } from '../../audit/notes.ts'
import { encodeSlot } from '../../audit/ship/cursor.ts'
import { foreign, forge, hasForeign } from './evidence/fixture.ts'
import { heads, logOptions, origin, shared, stats, temporary, vkeys, writer } from './fixture.ts'
import { begin, minute, Month } from './month.ts'

/** A plant's log of six hours in many segments, and a copy of it. */
const whole = shared()
let middle = 0
beforeAll(() => {
  const month = new Month(join(whole, 'log'), 12_000)
  month.every = 20
  month.open()
  month.pass(100)
  cpSync(join(whole, 'log'), join(whole, 'early'), { recursive: true })
  month.pass(100)
  middle = month.time
  month.grant('g_1')
  month.pass(180)
  month.one.sign(month.time)
  month.one.close()
  cpSync(join(whole, 'log'), join(whole, 'archive'), { recursive: true })
})

interface Place {
  readonly log: string
  readonly archive: string
}
function copy(): Place {
  const at = temporary()
  cpSync(whole, at, { recursive: true })
  return { log: join(at, 'log'), archive: join(at, 'archive') }
}
const prune = ({ log, archive }: Place, before = middle): Promise<Pruned> =>
  pruneLog({ ...logOptions(log), archive, before })
const verify = (directory: string, held: string[] = []) =>
  verifyLog({ directory, verifierKeys: vkeys, held })
const segments = (log: string): string[] => readdirSync(join(log, 'seg')).toSorted()
const dropFirst = (log: string): void => rmSync(join(log, 'seg', segments(log)[0] ?? ''))
const notesOf = (log: string): string[] =>
  [...walkNotes(join(log, 'checkpoints.log'))].map((found) =>
    'checkpoint' in found ? found.checkpoint.note : '',
  )
const opened = (log: string): Promise<string> =>
  openLog(logOptions(log)).then(
    async (one) => {
      await one.close()
      return 'opened'
    },
    (error: unknown) => (error as { code: string }).code,
  )

describe('a pruned log', () => {
  test('is proven, under every head that was ever signed, and goes on', async () => {
    const place = copy()
    const before = notesOf(place.log)
    const pruned = await prune(place)
    expect(pruned.first).toBeGreaterThan(50)
    expect(pruned.segments).toBeGreaterThan(2)
    expect(pruned.heads).toBeGreaterThan(5)
    const log = await openLog(logOptions(place.log))
    await log.append(stats(1))
    await log.close()
    const verdict = await verify(place.log, before)
    expect(verdict).toMatchObject({ outcome: 'proven', pruned: pruned.first, uncovered: 0 })
    expect(verdict.events).toBeGreaterThan(380)
    expect(notesOf(place.log).length).toBeLessThan(before.length)
    expect(await verify(place.archive)).toMatchObject({ outcome: 'proven' })
    const texts = [...readLog(place.log, origin)].map(({ body }) => Buffer.from(body).toString())
    expect(texts[0]).toContain(`"sequence":${pruned.first}}`)
    expect(texts.filter((text) => text.includes('"log.prune"'))).toHaveLength(1)
  })
  test('shows an event to be in it, and that it goes on from what was pruned', async () => {
    const place = copy()
    const [, old = ''] = notesOf(place.log)
    const { first } = await prune(place)
    const { proof, entry } = proveEntry(place.log, origin, { idx: first + 3 })
    expect(verifyProof(proof, entry.body, vkeys)).toBe(true)
    expect(() => proveEntry(place.log, origin, { idx: first - 1 })).toThrow(/is not in the log/)
    const [, size = '', root = ''] = old.split('\n')
    const now = (await verify(place.log)).checkpoint
    const path = proveConsistency(place.log, origin, Number(size), now?.size ?? 0)
    const of = (text: string, form: 'hex' | 'base64') => Buffer.from(text, form)
    expect(
      verifyConsistency(
        Number(size),
        now?.size ?? 0,
        path,
        of(root, 'base64'),
        of(now?.root ?? '', 'hex'),
      ),
    ).toBe(true)
  })
  test('is pruned again, from where it begins', async () => {
    const place = copy()
    const one = await prune(place, begin + 60 * minute)
    const two = await prune(place)
    expect(two.from).toBe(one.first)
    expect(two.first).toBeGreaterThan(one.first)
    expect(await prune(place)).toMatchObject({ segments: 0, held: expect.stringMatching(/later/) })
    expect(await verify(place.log)).toMatchObject({ outcome: 'proven', pruned: two.first })
  })
  test('that was killed before all of it went is whole, and goes the next time', async () => {
    const place = copy()
    const kept = temporary()
    cpSync(join(place.log, 'seg'), kept, { recursive: true })
    const { first } = await prune(place)
    const gone = readdirSync(kept)
      .filter((name) => !segments(place.log).includes(name))
      .toSorted()
    for (const name of gone.slice(1)) cpSync(join(kept, name), join(place.log, 'seg', name))
    expect(await verify(place.log)).toMatchObject({ outcome: 'proven' })
    expect(await opened(place.log)).toBe('opened')
    expect((await prune(place)).first).toBe(first)
    expect(await verify(place.log)).toMatchObject({ outcome: 'proven', pruned: first })
  })
  test('gives evidence of what is left, and does not call the rest proven', async () => {
    const place = copy()
    const { first } = await prune(place)
    const ask = (directory: string, from: number, to: number) =>
      verifyPackage(
        buildEvidence({
          directory,
          vkeys,
          from,
          to,
          catalogue: readCatalogue(),
          device: 'press-07',
        }).bytes,
        vkeys,
        'press-07',
      )
    const [from, to] = [middle + minute, middle + 100 * minute]
    const left = ask(place.log, from, to)
    expect(left.exit).toBe(0)
    expect(left.lines.join('\n')).toContain('who could reach press-07: 1 grant')
    const early = ask(place.log, begin, to)
    expect(early.exit).toBe(2)
    expect(early.lines.join('\n')).toMatch(/\(before, event \d+\)/)
    // The archive has it all.
    expect(ask(place.archive, begin, to).exit).toBe(0)
    expect(first).toBeLessThan(220)
  })
  test('begins its evidence with the first event that is left, and calls no time before it complete', async () => {
    const place = copy()
    const { first } = await prune(place)
    const [{ body = new Uint8Array() } = {}] = readLog(place.log, origin)
    const { time } = JSON.parse(Buffer.from(body).toString()) as { time: number }
    const untold = `cannot be told: the package begins at event ${first}; what came before is not in it`
    for (const [from, exit] of [
      [time - minute, 2],
      [time, 2],
      [time + 1, 0],
    ] as const) {
      const made = buildEvidence({
        directory: place.log,
        vkeys,
        from,
        to: time + 5 * minute,
        catalogue: readCatalogue(),
      })
      const verdict = verifyPackage(made.bytes, vkeys)
      expect(verdict.exit).toBe(exit)
      expect(verdict.lines.includes(untold)).toBe(exit === 2)
      expect(verdict.lines.join('\n')).toContain(`${origin}, events ${first} to `)
      expect(made.pruned).toBe(first)
      const text = (name: string) => readZip(made.bytes).get(name)?.bytes.toString()
      // No head is of just what was pruned: the next one commits to its hashes too.
      expect(Number(text('log/checkpoints')?.split('\n')[1])).toBeGreaterThan(first)
      const page = text('report.html')
      expect(page).not.toContain('nothing of this time yet')
      if (from < time) continue
      const otherHash = (edge: string) => edge.replace(/"[0-9a-f]{64}"/, `"${'a'.repeat(64)}"`)
      const forged = forge(made.bytes, { 'log/left-edge.json': otherHash })
      expect(verifyPackage(forged, vkeys).exit).toBe(1)
      if (!hasForeign) continue
      if (exit === 0) expect(foreign(forged).exit).toBe(1)
      const other = foreign(made.bytes)
      expect([other.exit, other.out.includes(untold)]).toEqual([exit, exit === 2])
    }
  })
  test('holds a SIEM to what was pruned too', async () => {
    const place = copy()
    const bodies = [...readLog(place.archive, origin)].map(({ body }) => body)
    await prune(place)
    const against = async (lines: readonly Uint8Array[]) =>
      await reconcile({
        directory: place.log,
        vkeys,
        to: bodies.length,
        lines: (async function* () {
          yield* lines
        })(),
      })
    expect(await against(bodies)).toMatchObject({ outcome: 'complete', verbatim: bodies.length })
    expect(await against(bodies.toSpliced(7, 1))).toMatchObject({
      outcome: 'violated',
      missing: [{ from: 7, to: 7 }],
    })
  })
})

describe('a beginning that went otherwise', () => {
  const cases: [string, (place: Place) => Promise<void>, string, RegExp, string][] = [
    [
      'without a word',
      async ({ log }) => dropFirst(log),
      'violated',
      /no event says that they were pruned/,
      'log.corrupt',
    ],
    [
      'further than was said',
      async (place) => {
        await prune(place)
        dropFirst(place.log)
      },
      'violated',
      /and those before \d+ were pruned/,
      'log.corrupt',
    ],
    [
      'with the word of somebody who cannot sign',
      async ({ log }) => {
        const one = writer(log)
        one.open()
        const [text = ''] = heads(1)
        const size = Number((segments(log)[1] ?? '').slice(0, 20))
        one.write([
          text
            .replace('"event_code":"session.stats"', '"event_code":"log.prune"')
            .replace('"sallyport":{', `"sallyport":{"size":${size},`),
        ])
        one.close()
        dropFirst(log)
      },
      'violated',
      /no event says that they were pruned/,
      'log.corrupt',
    ],
    [
      'and its hashes with it',
      async (place) => {
        await prune(place)
        rmSync(join(place.log, 'tile', '0', '000'))
      },
      'not-provable',
      /hashes of the pruned events/,
      'log.corrupt',
    ],
    [
      'and one of its hashes was changed',
      async (place) => {
        await prune(place)
        const path = join(place.log, 'tile', '0', '000')
        const bytes = readFileSync(path)
        bytes[40] = (bytes[40] ?? 0) ^ 1
        writeFileSync(path, bytes)
      },
      'violated',
      /not those that the checkpoint/,
      'log.rollback',
    ],
    [
      'and half of them were cut off',
      async (place) => {
        await prune(place)
        truncateSync(join(place.log, 'tile', '0', '000'), 100)
      },
      'not-provable',
      /hashes of the pruned events/,
      'log.corrupt',
    ],
  ]
  test.for(cases)('%s', async ([, act, outcome, why, code]) => {
    const place = copy()
    await act(place)
    const verdict = await verify(place.log)
    expect([verdict.outcome, verdict.why ?? '']).toEqual([outcome, expect.stringMatching(why)])
    expect(await opened(place.log)).toBe(code)
  })
})

describe('nothing goes', () => {
  const refused = async (place: Place): Promise<string> =>
    await prune(place).then(
      () => '',
      (error: unknown) => (error as Error).message,
    )
  test('that the archive is not shown to hold', async () => {
    const place = copy()
    const before = segments(place.log)
    expect(await refused({ ...place, archive: place.log })).toMatch(/is the log itself/)
    const strange = join(temporary(), 'strange')
    cpSync(place.archive, strange, { recursive: true })
    dropFirst(strange)
    expect(await refused({ ...place, archive: strange })).toMatch(/does not hold/)
    expect(segments(place.log)).toEqual(before)
  })
  test.for<[string, (place: Place, other: string) => void]>([
    [
      'whose seg is a link to that of the log',
      ({ log }, other) => symlinkSync(join(log, 'seg'), join(other, 'seg')),
    ],
    [
      'of which one segment is a file of the log',
      ({ log, archive }, other) => {
        cpSync(join(archive, 'seg'), join(other, 'seg'), { recursive: true })
        const name = segments(log)[1] ?? ''
        rmSync(join(other, 'seg', name))
        linkSync(join(log, 'seg', name), join(other, 'seg', name))
      },
    ],
  ])('into an archive %s', async ([, make]) => {
    const place = copy()
    const before = segments(place.log)
    const other = temporary()
    for (const name of ['tile', 'checkpoint', 'checkpoints.log'])
      cpSync(join(place.archive, name), join(other, name), { recursive: true })
    make(place, other)
    expect(await verify(other)).toMatchObject({ outcome: 'proven' })
    expect(await refused({ ...place, archive: other })).toMatch(/^seg.* of the archive is the log/)
    expect(segments(place.log)).toEqual(before)
  })
  test('into an archive that became the log itself after it was shown to hold', async () => {
    const place = copy()
    const before = segments(place.log)
    const swap = (): void => {
      rmSync(join(place.archive, 'seg'), { recursive: true })
      symlinkSync(join(place.log, 'seg'), join(place.archive, 'seg'))
    }
    // The clock is first read when the event is written, after the archive was looked at.
    let swapped = false
    const now = (): number => {
      if (!swapped) swap()
      swapped = true
      return Date.now()
    }
    const asked = {
      ...logOptions(place.log, { clock: { now } }),
      archive: place.archive,
      before: middle,
    }
    await expect(pruneLog(asked)).rejects.toMatchObject({ code: 'prune.archive' })
    expect(segments(place.log)).toEqual(before)
  })
  test('where the archive is of another history', async () => {
    const archive = temporary()
    const other = new Month(archive, 12_000)
    other.time += 1
    other.open()
    other.pass(3)
    other.one.close()
    expect(await refused({ ...copy(), archive })).toMatch(/of another history/)
  })
  test('while somebody writes to the log', async () => {
    const place = copy()
    const log = await openLog(logOptions(place.log))
    expect(await refused(place)).toMatch(/written by another/)
    await log.close()
  })
  test('beyond what the time, the archive, a sink and the tiles allow, and it says which', async () => {
    const place = copy()
    expect((await prune(place, begin)).held).toMatch(/^event \d+ is of .* or later$/)
    const early = { ...place, archive: join(whole, 'early') }
    expect((await prune(early, Infinity)).held).toMatch(/^the archive holds 10\d events$/)
    const path = join(place.log, 'ship', 'siem.cur')
    mkdirSync(join(path, '..'), { recursive: true })
    writeFileSync(path, encodeSlot({ generation: 1, idx: 150 }))
    expect((await prune(place, Infinity)).held).toBe('sink siem has 150 events')
    rmSync(path)
    expect((await prune(place, Infinity)).held).toMatch(/^event \d+ stands in a tile/)
    expect(await verify(place.log)).toMatchObject({ outcome: 'proven' })
  })
})

test('what keeps an older policy from coming back stays until there is a newer one of it', async () => {
  const at = temporary()
  const place = { log: join(at, 'log'), archive: join(at, 'archive') }
  const month = new Month(place.log, 2_000)
  month.every = 20
  const activate = (): number =>
    month.write({
      code: 'policy.activate',
      message: 'policy r1 activated',
      status: 'success',
      data: { revision: 'r1', high_water: 1, high_water_sha256: 'a'.repeat(64) },
    })
  month.open()
  const mark = activate()
  month.pass(260)
  cpSync(place.log, place.archive, { recursive: true })
  expect(await prune(place, Infinity)).toMatchObject({
    segments: 0,
    held: expect.stringContaining(`event ${mark} is the newest that keeps an older policy`),
  })
  activate()
  month.pass(1)
  month.one.close()
  cpSync(place.log, place.archive, { recursive: true })
  expect((await prune(place, Infinity)).segments).toBeGreaterThan(10)
})

test.for<[string, (tile: string) => void]>([
  ['is not there', (tile) => rmSync(tile)],
  ['is cut short', (tile) => truncateSync(tile, 100)],
  [
    'says otherwise',
    (tile) =>
      writeFileSync(
        tile,
        readFileSync(tile).map((byte) => byte ^ 1),
      ),
  ],
])('a tile of hashes that %s is made of the events once more before they go', ([, damage]) => {
  const { log } = copy()
  const tile = join(log, 'tile', '0', '000')
  const right = readFileSync(tile)
  damage(tile)
  keepTiles(log, origin, 0, 100)
  expect(readFileSync(tile).equals(right)).toBe(true)
})

test('hashes of what was pruned before are kept as they are, and are missed where they are not there', async () => {
  const place = copy()
  const { first } = await prune(place)
  const tile = join(place.log, 'tile', '0', '000')
  const before = readFileSync(tile)
  keepTiles(place.log, origin, first, 256)
  expect(readFileSync(tile).equals(before)).toBe(true)
  rmSync(tile)
  expect(() => keepTiles(place.log, origin, first, 256)).toThrow(/hashes of the pruned events/)
})

test('notes are read a piece at a time, and are the same', () => {
  const directory = temporary()
  mkdirSync(directory, { recursive: true })
  const path = join(directory, 'checkpoints.log')
  const some = readFileSync(join(whole, 'log', 'checkpoints.log'))
  const one = Buffer.concat(Array.from({ length: 6 }, () => some))
  writeFileSync(path, one)
  const pieces = [...walkNotes(path)]
  expect(one.length).toBeGreaterThan(256 * 1024)
  expect(pieces).toEqual([...splitNotes(one)])
  writeFileSync(path, one.subarray(0, -7))
  expect([...walkNotes(path)]).toEqual([...splitNotes(one.subarray(0, -7))])
})

test('notes that end before they did, because thinned ones took their place, end the reading', () => {
  const path = join(whole, 'log', 'checkpoints.log')
  const { size } = statSync(path)
  const read = [...walkNotes(path, size + 1_000)]
  expect(read).toEqual([...walkNotes(path), { offset: size, what: 'cut short' }])
})
