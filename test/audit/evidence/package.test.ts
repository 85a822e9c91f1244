/** An evidence package of an ordinary time: what it says, to whom, and who made it. */
import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { buildEvidence } from '#audit'
import { readZip, verifyPackage } from '../../../audit/evidence/verify.mjs'
import { packEntry, zipOf, type Packed } from '../../../audit/evidence/zip.ts'
import { keys, shared, temporary, vkeys } from '../fixture.ts'
import { begin, minute, Month, ordinary } from '../month.ts'
import { catalogue, foreign, hasForeign, packageOf } from './fixture.ts'

const directory = shared()
const month = ordinary(directory)
const [from, to] = [begin, month.time]
const zip = packageOf(directory, from, to)

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
  test('counts every web request, also those that one event tells of together', () => {
    const at = temporary()
    const web = new Month(at)
    web.open()
    web.grant('g_1')
    web.pass(1)
    web.start('s_1', 'g_1')
    for (const count of [undefined, 2, undefined, 1])
      web.write({
        code: 'http.request',
        message: 'GET forwarded',
        status: 'success',
        session: 's_1',
        device: 'press-07',
        data: {
          method: 'GET',
          path: '/page',
          host: 'hmi',
          ...(count === undefined ? {} : { count }),
        },
      })
    web.pass(1)
    web.end('s_1')
    web.pass(1)
    web.one.close()
    const bytes = packageOf(at, begin, web.time)
    expect(verifyPackage(bytes, vkeys).lines.join('\n')).toContain('5 recorded acts (s_1)')
    const html = readZip(bytes).get('report.html')?.bytes.toString() ?? ''
    expect(html).toContain('GET /page (2 times more)<br>')
    expect(html).toContain('GET /page (once more)')
    expect(html).toContain(
      'Of web requests within one second that are alike and only read the first is',
    )
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

  test.skipIf(!hasForeign)('says so to a stranger’s program too', () => {
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
    if (hasForeign) expect(foreign(changed).exit).toBe(1)
  })

  test('is not made with other keys, or with half of them', () => {
    const stranger = generateKeyPairSync('ed25519').privateKey
    for (const some of [[keys.ed25519], [keys.ed25519, stranger], [...signWith, stranger]])
      expect(() => buildEvidence({ ...asked, signWith: some, now: to })).toThrow(
        /not those of the log/,
      )
  })
})
