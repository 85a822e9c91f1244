/** Evidence of a time in which the log's keys were replaced: one package, each epoch and every joint proven by both programs. */
import { cpSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { buildEvidence } from '#audit'
import { readZip, verifyPackage } from '../../../audit/evidence/verify.mjs'
import { packEntry, type Packed } from '../../../audit/evidence/zip.ts'
import { first, keysOf, second, third, writeEpoch } from '../epoch-fixture.ts'
import { shared, temporary } from '../fixture.ts'
import { begin, minute, Month } from '../month.ts'
import { catalogue, foreign, forge, hasForeign, lines, remade } from './fixture.ts'

const all = [first, second, third] as const
const directory = shared()
const at = (epoch: number): string => join(directory, String(epoch))

/** Three epochs: a grant of the first is used in the second, one of the second in the third. */
function rotatedTwice(): { readonly rotations: readonly number[]; readonly end: number } {
  const one = new Month(at(1), undefined, first)
  one.every = 4
  one.open()
  one.pass(4)
  one.grant('g_1')
  one.pass(4)
  one.start('s_1', 'g_1')
  one.pass(4)
  one.end('s_1')
  one.pass(1)
  const two = one.rotate(at(2), second)
  const once = two.time
  two.pass(3)
  two.start('s_2', 'g_1')
  two.pass(3)
  two.end('s_2')
  two.grant('g_2')
  two.pass(2)
  const three = two.rotate(at(3), third)
  const twice = three.time
  three.pass(3)
  three.start('s_3', 'g_2')
  three.pass(3)
  three.end('s_3')
  three.pass(2)
  three.one.sign(three.time)
  three.one.close()
  return { rotations: [once, twice], end: three.time }
}
const { rotations, end } = rotatedTwice()
const [once = 0, twice = 0] = rotations

interface Asked {
  readonly from?: number
  readonly to?: number
  readonly leadMs?: number
  readonly log?: string
  readonly vkeys?: readonly string[]
}
const packageOf = ({ from = begin, to = end, log = directory, ...asked }: Asked = {}): Buffer =>
  buildEvidence({ vkeys: third.vkeys, ...asked, from, to, directory: log, catalogue }).bytes
const zip = packageOf()
const names = (bytes: Buffer): string[] => [...readZip(bytes).keys()]
const textOf = (bytes: Buffer, name: string): string =>
  readZip(bytes).get(name)?.bytes.toString() ?? ''

describe('a package of a time with two rotations', () => {
  test.for(all)(
    'is proven with the keys of $origin alone, and says which epochs are in it',
    (keys) => {
      const { exit, lines: said } = verifyPackage(zip, [...keys.vkeys], 'press-07')
      expect(said[0]).toBe('PROVEN: complete')
      expect(exit).toBe(0)
      for (const { origin } of all)
        expect(said.join('\n')).toMatch(
          new RegExp(`^log ${origin}, events 0 to \\d+, \\d+ signed heads$`, 'm'),
        )
      expect(said.join('\n')).toContain('3 epochs, joined: the last event of each names the keys')
      for (const epoch of [1, 2, 3]) expect(said).toContain(`PROVEN: log/${epoch}/events.ndjson`)
    },
  )
  test('answers who could and who did over all of them, and where each event stands', () => {
    const text = verifyPackage(zip, [...first.vkeys], 'press-07').lines.join('\n')
    expect(text).toContain('who could reach press-07: 2 grants')
    expect(text).toContain('who did: 3 sessions')
    expect(text).toMatch(/approved by olga@plant.test \(g_1, event \d+ of epoch 1\)/)
    expect(text).toMatch(/approved by olga@plant.test \(g_2, event \d+ of epoch 2\)/)
    const html = textOf(zip, 'report.html')
    for (const { origin } of all) expect(html).toContain(`<dt>Log</dt><dd>${origin}`)
    expect(html).toContain('Its keys were replaced 2 times')
    expect(textOf(zip, 'sessions.csv')).toMatch(/^2,\d+,.*session\.start/m)
    expect(JSON.parse(textOf(zip, 'manifest.json'))).toMatchObject({
      epochs: all.map(({ origin }) => ({ origin })),
      keys_named_by: [],
    })
  })
  test('is the same bytes whichever epoch’s keys it was made with', () => {
    for (const { vkeys } of all) expect(packageOf({ vkeys }).equals(zip)).toBe(true)
  })
  test.skipIf(!hasForeign)('is proven by a stranger’s program too', () => {
    const { exit, out } = foreign(zip, first.vkeys)
    expect(out).toContain('PROVEN: complete\n')
    expect(out).toContain('3 epochs, joined')
    expect(out).toContain(`log ${second.origin}, events 0 to`)
    expect(exit).toBe(0)
  })
  test('is intact and nobody’s without a key, and violated with one of another log', () => {
    expect(verifyPackage(zip, [])).toMatchObject({ exit: 2 })
    const other = third.vkeys[0]?.replace('sallyport.test', 'other.test') ?? ''
    expect(verifyPackage(zip, [other])).toMatchObject({ exit: 1 })
    // Of an epoch that is here, made by somebody else.
    expect(verifyPackage(zip, [...keysOf(2).vkeys])).toMatchObject({ exit: 1 })
  })
})

describe('a time that lies in one epoch', () => {
  // The grants of the others are of the epoch before, which the time asked for leaves out.
  const rows = [
    { name: 'the first', asked: { to: begin + 8 * minute }, links: [second, third], grant: null },
    {
      name: 'the second',
      asked: { from: once + minute, to: once + 4 * minute, leadMs: 0 },
      links: [first, third],
      grant: 'g_1',
    },
    {
      name: 'the last',
      asked: { from: twice + 2 * minute, leadMs: 0 },
      links: [first, second],
      grant: 'g_2',
    },
  ]
  test.for(rows)('$name: is proven with the keys of any', ({ asked, links, grant }) => {
    const some = packageOf(asked)
    expect(names(some)).toContain('log/events.ndjson')
    for (const { vkeys } of all) {
      const { exit, lines: said } = verifyPackage(some, [...vkeys])
      expect(exit).toBe(grant === null ? 0 : 2)
      const untold = said.filter((line) => line.startsWith('cannot be told'))
      expect(untold.length).toBe(grant === null ? 0 : 1)
      // What of an epoch is not shown to its end is held against what the next one has of it all the same.
      const inPart = said.filter((line) => line.includes('has ended and is shown up to before'))
      expect(inPart.length).toBe(links.includes(third) ? 1 : 0)
      if (links.includes(third)) expect(said).toContain('PROVEN: log/consistency.json')
      if (grant !== null) expect(untold[0]).toContain(`the grant ${grant} of session`)
      expect(said).toContain('PROVEN: log/events.ndjson')
      expect(said).toContain(
        `for the keys alone, a few events each of ${links.map(({ origin }) => origin).join(', ')}`,
      )
    }
    if (hasForeign) expect(foreign(some, first.vkeys).out).toContain('PROVEN: log/events.ndjson')
  })
  test('right behind a rotation begins with the end of the epoch before', () => {
    const some = packageOf({ from: once, to: once + 2 * minute, leadMs: 0 })
    expect(names(some)).toContain('log/1/events.ndjson')
    const { lines: said } = verifyPackage(some, [...second.vkeys])
    expect(said).toContain('PROVEN: log/1/events.ndjson')
    expect(said.join('\n')).not.toMatch(/cannot be told: the (package|log)/)
  })
  test('is signed by keys of the epoch that the log is in now', () => {
    const { bytes } = buildEvidence({
      directory,
      vkeys: third.vkeys,
      from: begin,
      to: begin + 8 * minute,
      catalogue,
      signWith: [third.ed25519, third.mlDsa44],
      now: end,
    })
    const signed = 'SIGNED BY THE LOG\u2019S KEYS: manifest.note'
    expect(verifyPackage(bytes, [...third.vkeys]).lines).toContain(signed)
    // From the first nothing leads to the third: that stands in the end of the second, which is not in it.
    expect(verifyPackage(bytes, [...first.vkeys])).toMatchObject({ exit: 0 })
    expect(verifyPackage(bytes, [...first.vkeys]).lines.join('\n')).not.toContain('SIGNED BY')
  })
})

describe('an epoch that is not here', () => {
  const without = (epoch: number): string => {
    const copy = temporary()
    cpSync(directory, copy, { recursive: true })
    rmSync(join(copy, String(epoch)), { recursive: true })
    return copy
  }
  const said = (bytes: Buffer): { exit: number; text: string } => {
    const { exit, lines: all } = verifyPackage(bytes, [...third.vkeys, ...second.vkeys])
    return { exit, text: all.join('\n') }
  }
  test('the first: what came before is not provable, and the log it goes on from is named', () => {
    const { exit, text } = said(packageOf({ log: without(1) }))
    expect(text).toContain(`cannot be told: the log goes on from ${first.origin}`)
    expect(text).toContain('cannot be told: the grant g_1 of session s_2 was requested before')
    expect(text).not.toContain('EXCEPTION')
    expect(exit).toBe(2)
  })
  test('the last: the log goes on as one that is not here', () => {
    const { exit, text } = said(packageOf({ log: without(3), vkeys: second.vkeys }))
    expect(text).toContain(`cannot be told: the log goes on as ${third.origin}`)
    expect(exit).toBe(2)
  })
  test('one between two: the package is of what is behind it', () => {
    const { exit, text } = said(packageOf({ log: without(2) }))
    expect(text).toContain(`cannot be told: the log goes on from ${second.origin}`)
    expect(exit).toBe(2)
  })
  test('one that was given alone is proven as far as it goes, and no further', () => {
    const { exit, text } = said(packageOf({ log: at(2), vkeys: second.vkeys }))
    expect(text).toContain(`it goes on from ${first.origin}, which is not in the package`)
    expect(text).toContain(`it goes on as ${third.origin}, which is not in the package`)
    expect(exit).toBe(2)
  })
})

/** An epoch as it stands in a package of its own. */
function entriesOf(log: string, vkeys: readonly string[]): Packed[] {
  const made = buildEvidence({ directory: log, vkeys, from: 0, to: 4e12, catalogue }).bytes
  return [...readZip(made).values()].filter(({ name }) => name.startsWith('log/'))
}
const renamed = (entries: readonly Packed[], folder: string): Packed[] =>
  entries.map(({ name, bytes }) => packEntry(name.replace('log/', folder), bytes))
/** The package with other files in place of those in a folder. */
const replaced = (bytes: Buffer, folder: string, by: readonly Packed[]): Buffer => {
  let left = by
  return remade(bytes, (entry) => {
    if (!entry.name.startsWith(folder)) return [entry]
    const some = left
    left = []
    return some
  })
}

describe('a forger who mends every hash of the package', () => {
  const keysFrom = (...some: readonly { readonly vkeys: readonly string[] }[]): string[] =>
    some.flatMap(({ vkeys }) => vkeys)
  /** Up to the head before its last one. */
  const cut = (() => {
    const heads = textOf(zip, 'log/1/checkpoints').split(/\n\n(?=sallyport)/)
    const size = Number(heads.at(-2)?.split('\n')[1])
    const head = (text: string): string => `${lines(text).slice(0, size).join('\n')}\n`
    return {
      size,
      change: {
        'log/1/checkpoints': () => `${heads.slice(0, -1).join('\n\n')}\n\n`,
        'log/1/events.ndjson': head,
        'log/1/leaves.txt': head,
      },
    }
  })()
  /** The middle epoch for its keys alone, up to its first head. */
  const middleCut = (words?: string): Buffer => {
    const notes = textOf(zip, 'log/2/checkpoints').split(/\n\n(?=sallyport)/)
    const size = Number(notes[0]?.split('\n')[1])
    const head = (text: string): string => `${lines(text).slice(0, size).join('\n')}\n`
    const change: Record<string, (text: string) => string> = {
      checkpoints: () => `${notes[0]}\n\n`,
      'events.ndjson': head,
      'leaves.txt': head,
      'left-edge.json': (text) => text,
    }
    return remade(
      zip,
      ({ name, bytes }) => {
        const edit = /^log\/2\/(.*)$/.exec(name)?.[1] ?? ''
        const text = change[edit]?.(Buffer.from(bytes).toString())
        return [text === undefined ? packEntry(name, bytes) : packEntry(`log/keys/2/${edit}`, text)]
      },
      words,
    )
  }
  const rows: {
    name: string
    forged: () => Buffer
    keys: string[]
    says: RegExp
    /** What the other program says, where it says it otherwise. */
    foreignSays?: RegExp
  }[] = [
    ...['complete', 'complete with listed recoveries', 'not provable'].map((words) => ({
      name: `shows of the middle epoch its keys alone and calls it ${words}`,
      forged: () => middleCut(words),
      keys: keysFrom(...all),
      says: /VIOLATED at log\/2\/\n.*this epoch is left out/,
      foreignSays: /VIOLATED at log\/2\/: this epoch is left out/,
    })),
    {
      name: 'leaves an epoch between two out',
      forged: () => replaced(zip, 'log/2/', []),
      keys: keysFrom(...all),
      says: /VIOLATED at log\/2\//,
      foreignSays: /VIOLATED at log\/3\/: the epoch before it is left out/,
    },
    {
      name: 'leaves the first epoch out',
      forged: () => replaced(zip, 'log/1/', []),
      keys: keysFrom(third),
      says: /it says complete, the events say not provable/,
      foreignSays: /VIOLATED at manifest.json: it says complete, not not provable/,
    },
    {
      name: 'leaves the last epoch out',
      forged: () => replaced(zip, 'log/3/', []),
      keys: keysFrom(first),
      says: /it says complete, the events say not provable/,
      foreignSays: /VIOLATED at manifest.json: it says complete, not not provable/,
    },
    {
      name: 'has an epoch in it for its keys alone',
      forged: () =>
        remade(zip, ({ name, bytes }) => [packEntry(name.replace('log/3/', 'log/keys/3/'), bytes)]),
      keys: keysFrom(third),
      says: /it says complete, the events say not provable/,
      foreignSays: /VIOLATED at manifest.json: it says complete, not not provable/,
    },
    {
      name: 'cuts the end of an older epoch off, under a head that its own keys signed',
      forged: () => forge(zip, cut.change),
      keys: keysFrom(third),
      says: /VIOLATED at log\/1\/events.ndjson, event \d+\n.*of the \d+ events that sallyport.test\/audit\/n1\/1 ended with, as sallyport.test\/audit\/n1\/2 holds it, \d+ are here/,
      foreignSays:
        /VIOLATED at log\/2\/events.ndjson: sallyport.test\/audit\/n1\/1 was not ended for/,
    },
    {
      name: 'takes an event of an older epoch out',
      forged: () =>
        forge(zip, {
          'log/1/events.ndjson': (text) => `${lines(text).toSpliced(5, 1).join('\n')}\n`,
          'log/1/leaves.txt': (text) => `${lines(text).toSpliced(5, 1).join('\n')}\n`,
        }),
      keys: keysFrom(third),
      says: /VIOLATED at log\/1\/events.ndjson, event/,
    },
    {
      name: 'puts two epochs in each other’s place',
      forged: () =>
        remade(zip, ({ name, bytes }) => [
          packEntry(
            name.replace(/^log\/([12])\//, (_, epoch) => `log/${3 - Number(epoch)}/`),
            bytes,
          ),
        ]),
      keys: keysFrom(third),
      says: /VIOLATED at log\/1\/checkpoints(\n.*)?: they are of sallyport.test\/audit\/n1\/2/,
    },
    {
      name: 'puts a file beside an epoch’s',
      forged: () =>
        remade(zip, (entry) => [
          entry,
          ...(entry.name === 'log/1/leaves.txt' ? [packEntry('log/1/more', 'x')] : []),
        ]),
      keys: keysFrom(third),
      says: /VIOLATED at log\/1\/more/,
    },
  ]
  test.for(rows)('and $name is found', ({ forged, keys, says, foreignSays = says }) => {
    const bytes = forged()
    const { exit, lines: said } = verifyPackage(bytes, keys)
    expect(said.join('\n')).toMatch(says)
    expect(exit).toBe(1)
    if (!hasForeign) return
    const other = foreign(bytes, keys)
    expect(other.out).toMatch(foreignSays)
    expect(other.exit).toBe(1)
  })

  test('and puts an epoch of their own behind one that was ended for another is found, by whatever key', () => {
    const own = keysOf(2)
    const forged = temporary()
    const opening = {
      predecessor: first.origin,
      keys: first.vkeys,
      note:
        textOf(zip, 'log/1/checkpoints')
          .split(/\n\n(?=sallyport)/)
          .at(-1)
          ?.slice(0, -1) ?? '',
    }
    writeEpoch(forged, own, { opening })
    const bytes = replaced(
      replaced(zip, 'log/3/', []),
      'log/2/',
      renamed(entriesOf(forged, own.vkeys), 'log/2/'),
    )
    for (const keys of [first.vkeys, second.vkeys, own.vkeys, [...first.vkeys, ...own.vkeys]]) {
      const { exit, lines: said } = verifyPackage(bytes, [...keys])
      expect(said[0]).toMatch(/^VIOLATED at log\/(1\/events|2\/checkpoints)/)
      expect(exit).toBe(1)
    }
    if (hasForeign) expect(foreign(bytes, first.vkeys).exit).toBe(1)
  })

  test('and writes an earlier epoch anew is found by who has the keys of the next', () => {
    const own = keysOf(1)
    const forged = temporary()
    writeEpoch(forged, own, { closing: { successor: second.origin, keys: second.vkeys } })
    const bytes = replaced(zip, 'log/1/', renamed(entriesOf(forged, own.vkeys), 'log/1/'))
    const { exit, lines: said } = verifyPackage(bytes, [...second.vkeys])
    expect(said[0]).toMatch(/^VIOLATED at log\/1\/checkpoints/)
    expect(exit).toBe(1)
  })

  test('and shows an epoch of their own beside one that is real and says nothing of it is not believed', () => {
    // The first two are theirs; of the third, whose keys the reader has, a part that does not say what came before.
    const [own, next] = [keysOf(1), keysOf(2)]
    const [mine, after] = [temporary(), temporary()]
    writeEpoch(mine, own)
    writeEpoch(after, next, {
      opening: {
        predecessor: own.origin,
        keys: own.vkeys,
        note: 'sallyport.test/audit/n1/1\n9\nAAAA\n',
      },
    })
    const middle = buildEvidence({
      directory: at(3),
      vkeys: third.vkeys,
      from: end - 3 * minute,
      to: end,
      leadMs: 0,
      catalogue,
    }).bytes
    const real = [...readZip(middle).values()].filter(({ name }) => name.startsWith('log/'))
    const bytes = remade(packageOf({ log: mine, vkeys: own.vkeys, from: 0, to: 4e12 }), (entry) =>
      entry.name === 'log/checkpoints'
        ? [
            entry,
            ...renamed(entriesOf(after, next.vkeys), 'log/keys/2/'),
            ...renamed(real, 'log/keys/3/'),
          ]
        : [entry],
    )
    const { exit, lines: said } = verifyPackage(bytes, [...third.vkeys])
    expect(exit).not.toBe(0)
    expect(said).not.toContain('PROVEN: log/events.ndjson')
    if (hasForeign) {
      const other = foreign(bytes, third.vkeys)
      expect(other.exit).not.toBe(0)
      expect(other.out).not.toMatch(/^PROVEN: log\/events.ndjson/m)
    }
  })

  test('a byte flipped anywhere is found', () => {
    const unfound: number[] = []
    const step = Math.floor(zip.length / 60)
    for (let place = 0; place < zip.length; place += step) {
      const bytes = Buffer.from(zip)
      bytes[place] = (bytes[place] ?? 0) ^ (1 << (place % 8))
      if (verifyPackage(bytes, [...third.vkeys]).exit !== 1) unfound.push(place)
    }
    expect(unfound).toEqual([])
  })
})
