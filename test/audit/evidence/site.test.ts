/** Evidence of a site with several gateways: each log proven by itself, and what is said of all of them together. */
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { buildEvidence, buildSiteEvidence, type SiteEvidenceOptions } from '#audit'
import { readZip, verifyPackage } from '../../../audit/evidence/verify.mjs'
import { listed, packEntry, zipOf, type Packed } from '../../../audit/evidence/zip.ts'
import { keysOf } from '../epoch-fixture.ts'
import { shared, temporary } from '../fixture.ts'
import { begin, minute, Month, olga } from '../month.ts'
import { catalogue, foreign, forge, hasForeign, lines, remade } from './fixture.ts'
import { close, rebuilt as remadeOf, until } from './site-fixture.ts'

const one = keysOf(1, 'sallyport.test/audit/gw1')
const two = keysOf(1, 'sallyport.test/audit/gw2')
const twoNext = keysOf(2, 'sallyport.test/audit/gw2')
const three = keysOf(1, 'sallyport.test/audit/gw3')
const vkeys = [...one.vkeys, ...twoNext.vkeys]

/** Asked and approved at gw1, used at gw2 before and behind a change of its keys, and at gw1. */
function plant(directory: string): { readonly gw1: string; readonly gw2: string } {
  const [gw1, gw2] = [join(directory, 'gw1'), join(directory, 'gw2')]
  const first = new Month(gw1, undefined, one)
  first.open()
  until(first, begin + 10 * minute).grant('g_1')
  until(first, begin + 31 * minute).start('s_2', 'g_1')
  until(first, begin + 33 * minute).end('s_2')
  close(first, begin + 60 * minute)
  const second = new Month(join(gw2, '1'), undefined, two)
  second.open()
  until(second, begin + 15 * minute).start('s_1', 'g_1')
  until(second, begin + 20 * minute).end('s_1')
  const next = second.rotate(join(gw2, '2'), twoNext)
  until(next, begin + 40 * minute).start('s_3', 'g_1')
  until(next, begin + 45 * minute).end('s_3')
  close(next, begin + 60 * minute)
  return { gw1, gw2 }
}
const { gw1, gw2 } = plant(shared())
const asked = {
  directories: [gw2, gw1],
  vkeys,
  from: begin,
  to: begin + 60 * minute - 1,
  catalogue,
}
const make = (more: Partial<SiteEvidenceOptions> = {}) => buildSiteEvidence({ ...asked, ...more })
const zip = make().bytes

/** Both programs, where the other can run: they agree on what it is worth. */
function verified(
  bytes: Buffer,
  keys: readonly string[] = vkeys,
  nodes: readonly string[] = [],
): { exit: number; text: string; other: string } {
  const { exit, lines: said } = verifyPackage(bytes, [...keys], 'press-07', nodes)
  const flags = nodes.flatMap((node) => ['--node', node])
  const theirs = hasForeign ? foreign(bytes, keys, flags) : { exit, out: said.join('\n') }
  expect(theirs.exit, theirs.out).toBe(exit)
  return { exit, text: said.join('\n'), other: theirs.out }
}

/** Made anew by who has no key. */
const rebuilt = (of: readonly Packed[], nodes: readonly string[]): Buffer =>
  remadeOf(of, { vkeys, nodes, from: asked.from, to: asked.to })
const entries = [...readZip(zip).values()]
const text = (bytes: Buffer, name: string): string =>
  readZip(bytes).get(name)?.bytes.toString() ?? ''

describe('a package of a site', () => {
  test('is complete with keys of every log, and both programs say what went through which gateway', () => {
    const { exit, text: said, other } = verified(zip)
    expect(said).toContain('PROVEN: complete')
    expect(exit).toBe(0)
    expect(said).toContain('gateways of the site, as who made the package named them: gw1, gw2')
    expect(said).toContain(`gw1: log ${one.origin}, events 0 to`)
    expect(said).toContain('gw2: 2 epochs, joined')
    expect(said).toMatch(/who could reach press-07: 1 grant\n.*event \d+ of gw1\)/)
    const sessions = [...said.matchAll(/\((s_\d), through (gw\d)\)/g)].map((m) => [m[1], m[2]])
    expect(sessions, 'in order of time').toEqual([
      ['s_1', 'gw2'],
      ['s_2', 'gw1'],
      ['s_3', 'gw2'],
    ])
    if (hasForeign) expect(other).toMatch(/\(s_1, through gw2\)[^]*\(s_2, through gw1\)/)
  })

  test('has one table, in order of time, with the gateway of each row', () => {
    const rows = lines(text(zip, 'sessions.csv')).map((line) => line.trim().split(','))
    expect(rows[0]?.slice(0, 4)).toEqual(['node', 'epoch', 'idx', 'time'])
    expect(rows.slice(1).map(([node, epoch]) => `${node}/${epoch}`)).toEqual([
      'gw2/1',
      'gw2/1',
      'gw1/',
      'gw1/',
      'gw2/2',
      'gw2/2',
    ])
    const times = rows.slice(1).map((row) => row[3] ?? '')
    expect(times).toEqual(times.toSorted())
    const html = text(zip, 'report.html')
    expect(html).toContain('nothing else happened through the gateways named below')
    expect(html).toContain('All of them are here: gw1, gw2.')
    expect(html).toContain('<br>through gw2')
  })

  test('is proven by keys that are given twice, or of epochs beside', () => {
    expect(verified(zip, [...vkeys, ...two.vkeys, ...vkeys]).exit).toBe(0)
  })

  test('is the same whoever makes it, in whatever order the logs are given', () => {
    expect(make({ directories: [gw1, gw2] }).bytes.equals(zip)).toBe(true)
  })

  test('knows of a grant that one log alone does not', () => {
    const alone = buildEvidence({ ...asked, directory: gw2, vkeys: twoNext.vkeys })
    expect(alone.judgement.exceptions).toHaveLength(2)
    expect(alone.judgement.exceptions[0]?.what).toContain('its grant was never requested')
    expect(make().judgement.exceptions).toEqual([])
  })

  test('is written as 7, and one of a single log as 6, whose files have no gateway in them', () => {
    const alone = buildEvidence({ ...asked, directory: gw1, vkeys: one.vkeys }).bytes
    expect(JSON.parse(text(zip, 'manifest.json'))).toMatchObject({
      rendering: 7,
      nodes: ['gw1', 'gw2'],
      nodes_left_out: [],
    })
    expect(JSON.parse(text(alone, 'manifest.json')).rendering).toBe(6)
    expect(text(alone, 'sessions.csv')).toMatch(/^epoch,idx,time/)
    const later = forgeManifest(zip, (own) => ({ ...own, rendering: 8 }))
    const { exit, lines: said } = verifyPackage(later, vkeys)
    expect(exit).toBe(2)
    expect(said[0]).toContain('made by a release that writes reports otherwise (8, here 7)')
  })

  test('may be signed by the keys of one of its logs', () => {
    const signed = make({ signWith: [one.ed25519, one.mlDsa44], now: begin }).bytes
    expect(verified(signed).text).toContain('SIGNED BY THE LOG’S KEYS: manifest.note')
    expect(() => make({ signWith: [three.ed25519, three.mlDsa44], now: begin })).toThrow(
      /not those of the log/,
    )
  })
})

describe('a gateway whose log is not in it', () => {
  test('is named where who made the package named it, and nothing is complete', () => {
    const left = make({ nodes: ['gw1', 'gw3'] })
    expect(left.nodes).toEqual(['gw1', 'gw2', 'gw3'])
    expect(left.judgement.words).toBe('not provable')
    const { exit, text: said } = verified(left.bytes)
    expect(exit).toBe(2)
    expect(said).toContain('LEFT OUT: the log of gw3 is not in the package')
    const html = text(left.bytes, 'report.html')
    expect(html).toContain('<b>gw3</b><br>Its log is NOT in this package')
    expect(html).not.toContain('nothing else happened')
  })

  test('may have had the grant of a session, which is then no exception', () => {
    const left = make({ directories: [gw2], vkeys: twoNext.vkeys, nodes: ['gw1'] })
    expect(left.judgement.exceptions).toEqual([])
    const { exit, text: said } = verified(left.bytes, twoNext.vkeys)
    expect(exit).toBe(2)
    expect(said).toContain('the grant g_1 of session s_1 was requested at none of the gateways')
  })

  test('may have had the approval of a grant, which is then no exception', () => {
    const directory = temporary()
    const month = new Month(directory, undefined, three)
    month.open()
    until(month, begin + 5 * minute).grant('g_9', 1, olga, { approved: false })
    until(month, begin + 6 * minute).start('s_9', 'g_9')
    until(month, begin + 8 * minute).end('s_9')
    close(month, begin + 60 * minute)
    const of = { directories: [directory], vkeys: three.vkeys }
    const left = make({ ...of, nodes: ['gw1'] })
    expect(left.judgement.exceptions).toEqual([])
    const { exit, text: said } = verified(left.bytes, three.vkeys)
    expect(exit).toBe(2)
    expect(said).toContain('its grant had 0 of 1 approvals at the gateways that are here')
    expect(verified(make(of).bytes, three.vkeys).exit).toBe(1)
  })

  test('is named where the reader brings its keys, or names it', () => {
    const byKeys = verified(zip, [...vkeys, ...three.vkeys])
    expect(byKeys.exit).toBe(2)
    const stem = three.origin.slice(0, -1)
    expect(byKeys.text).toContain(`keys of ${stem} were given, and that log is not in the package`)
    const byName = verified(zip, vkeys, ['gw1', 'gw2', 'gw3'])
    expect(byName.exit).toBe(2)
    expect(byName.text).toContain('the log of gw3, which you named, is not in the package')
    expect(verified(zip, vkeys, ['gw1', 'gw2']).exit).toBe(0)
  })

  test('is named where a forger took it out and made everything anew', () => {
    const rest = entries.filter(({ name }) => !name.startsWith('nodes/gw2/'))
    const forged = rebuilt(rest, ['gw1'])
    expect(verified(forged, one.vkeys).exit, 'who knows of no other').toBe(0)
    const { exit, text: said } = verified(forged)
    expect(exit).toBe(2)
    expect(said).toContain('keys of sallyport.test/audit/gw2/ were given')
  })

  test('is named of a package of one log too, which its own keys prove', () => {
    const alone = buildEvidence({ ...asked, directory: gw1, vkeys: one.vkeys }).bytes
    expect(verified(alone, one.vkeys).exit).toBe(0)
    const { exit, text: said } = verified(alone)
    expect(exit).toBe(2)
    expect(said).toContain('keys of sallyport.test/audit/gw2/ were given')
    expect(said).toContain('PROVEN: log/events.ndjson')
    expect(verified(alone, one.vkeys, ['gw1', 'gw2']).exit).toBe(2)
    expect(verified(alone, twoNext.vkeys).exit, 'no key is of it').toBe(1)
  })

  test('is one that no key was given of', () => {
    const { exit, text: said } = verified(zip, one.vkeys)
    expect(exit).toBe(2)
    expect(said).toContain('no key was given of the log of gw2')
    expect(said).toContain('PROVEN: nodes/gw1/log/events.ndjson')
    expect(said).toContain('NOT PROVEN: nodes/gw2/log/2/events.ndjson')
    expect(verified(zip, []).exit).toBe(2)
  })
})

describe('tampering across logs', () => {
  const refused = (forged: Buffer, place: string, what = ''): void => {
    const { exit, text: said, other } = verified(forged)
    expect(exit).toBe(1)
    expect(said).toContain(`VIOLATED at ${place}`)
    expect(said).toContain(what)
    if (hasForeign) expect(other).toContain(`VIOLATED at ${place}`)
  }
  const [from, to] = ['nodes/gw1/log/', 'nodes/gw2/log/2/']
  const leaf = lines(text(zip, `${from}events.ndjson`)).findIndex((line) => line.includes('"s_2"'))

  test('a leaf moved from one log to another is missing in the one', () => {
    const event = lines(text(zip, `${from}events.ndjson`))[leaf] ?? ''
    const hash = lines(text(zip, `${from}leaves.txt`))[leaf] ?? ''
    const without = (own: string): string => `${lines(own).toSpliced(leaf, 1).join('\n')}\n`
    const withIt = (line: string) => (own: string) => `${line}\n${own}`
    refused(
      forge(zip, {
        [`${from}events.ndjson`]: without,
        [`${from}leaves.txt`]: without,
        [`${to}events.ndjson`]: withIt(event),
        [`${to}leaves.txt`]: withIt(hash),
      }),
      `${from}events.ndjson`,
    )
  })

  test('a leaf copied from one log into another is too many there', () => {
    const add = (name: string) => (own: string) =>
      `${own}${lines(text(zip, `${from}${name}`))[leaf] ?? ''}\n`
    refused(
      forge(zip, {
        [`${to}events.ndjson`]: add('events.ndjson'),
        [`${to}leaves.txt`]: add('leaves.txt'),
      }),
      `${to}events.ndjson`,
    )
  })

  test('a log under the name of another gateway, or a second time, is named', () => {
    const again = (name: string): Buffer =>
      remade(zip, (entry) => {
        if (entry.name === 'manifest.json') return [entry]
        if (!entry.name.startsWith('nodes/gw1/')) return [entry]
        return [entry, { ...entry, name: entry.name.replace('gw1', name) }]
      })
    const named = (bytes: Buffer): Buffer =>
      forgeManifest(bytes, (own) => ({ ...own, nodes: ['gw1', 'gw2', 'gw9'] }))
    refused(named(again('gw9')), 'nodes/gw9/', `it holds the log ${one.origin}`)
    refused(again('gw9'), 'manifest.json', 'it does not name the gateways')
  })

  test('two logs put in each other’s place are named', () => {
    const swapped = remade(zip, (entry) => [
      {
        ...entry,
        name: entry.name.replace(/^nodes\/gw([12])\//, (_all, n) => `nodes/gw${3 - Number(n)}/`),
      },
    ])
    refused(swapped, 'nodes/gw1/', 'it holds the log')
  })

  test('one log cut short is told by its gateway, and the others stay proven', () => {
    const notes = text(zip, `${to}checkpoints`).match(/[^]*?\n\n[^]*?\n\n/g) ?? []
    const kept = notes.slice(0, 3)
    const size = Number(kept.at(-1)?.split('\n')[1])
    const cut = (own: string): string => `${lines(own).slice(0, size).join('\n')}\n`
    const edits: Readonly<Record<string, (own: string) => string>> = {
      [`${to}checkpoints`]: () => kept.join(''),
      [`${to}events.ndjson`]: cut,
      [`${to}leaves.txt`]: cut,
    }
    const shorter = entries.map((entry) => {
      const edit = edits[entry.name]
      return edit === undefined ? entry : packEntry(entry.name, edit(entry.bytes.toString()))
    })
    const { exit, text: said } = verified(rebuilt(shorter, ['gw1', 'gw2']))
    expect(exit).toBe(2)
    expect(said).toContain('the last event of gw2 in the package is of')
    expect(said).not.toContain('the last event of gw1')
    // Whoever does not make the rest anew is found out by the rest.
    refused(forge(zip, edits), 'manifest.json', 'it says complete')
  })
})

/** The manifest edited, with its hash mended. */
function forgeManifest(
  bytes: Buffer,
  edit: (own: Record<string, unknown>) => Record<string, unknown>,
): Buffer {
  const own = JSON.parse(text(bytes, 'manifest.json')) as Record<string, unknown>
  const manifest = packEntry('manifest.json', `${JSON.stringify(edit(own), null, 1)}\n`)
  const sum = packEntry('manifest.sha256', `${listed(manifest).sha256}  manifest.json\n`)
  const rest = [...readZip(bytes).values()].filter(({ name }) => !name.startsWith('manifest.'))
  return zipOf([...rest, manifest, sum])
}

describe('clocks of two gateways', () => {
  /** A session at gw2 this many ms behind the approval at gw1. */
  function apart(behind: number, act: (first: Month) => void = () => undefined): Buffer {
    const directory = temporary()
    const [a, b] = [join(directory, 'a'), join(directory, 'b')]
    const first = new Month(a, undefined, one)
    first.open()
    until(first, begin + 5 * minute).grant('g_1')
    act(first)
    const approved = first.time
    close(first, begin + 20 * minute)
    const second = new Month(b, undefined, two)
    second.open()
    until(second, approved + behind).start('s_1', 'g_1')
    until(second, begin + 10 * minute).end('s_1')
    close(second, begin + 20 * minute)
    const to = begin + 20 * minute - 1
    return make({ directories: [a, b], vkeys: [...one.vkeys, ...two.vkeys], to }).bytes
  }
  const keys = [...one.vkeys, ...two.vkeys]

  test.each([
    ['3 s before it is let in by it', -3_000, 0],
    ['behind it is let in by it', 1_000, 0],
    ['more than 5 s before it is an exception', -6_500, 1],
  ])('a session %s', (_name, behind, exit) => {
    const found = verified(apart(behind), keys)
    expect(found.exit).toBe(exit)
    if (exit === 1)
      expect(found.text).toMatch(/EXCEPTION: event \d+ of gw2: session s_1: its grant/)
  })

  test('a grant that was revoked at one gateway lets in at no other', () => {
    const revoke = (first: Month): void => first.endGrant('g_1', 'revoke')
    expect(verified(apart(2_000, revoke), keys).exit, 'within what clocks may differ').toBe(0)
    const found = verified(apart(30_000, revoke), keys)
    expect(found.exit).toBe(1)
    expect(found.text).toContain('its grant had ended (revoke)')
  })
})

test('two logs of one gateway, or of two sites, make no package, nor does a name that is no gateway’s', () => {
  expect(() => make({ nodes: ['../gw3'] })).toThrow(/no gateway has the name/)
  expect(() => make({ directories: [gw1, gw2, gw1] })).toThrow(/two of the logs are of gw1/)
  const other = keysOf(1, 'elsewhere.test/audit/gw3')
  const directory = temporary()
  const month = new Month(directory, undefined, other)
  month.open()
  close(month, begin + 60 * minute)
  const both = { directories: [gw1, directory], vkeys: [...one.vkeys, ...other.vkeys] }
  expect(() => make(both)).toThrow(/is not of the site/)
})

test('a log that has nothing of that time is named by its folder', () => {
  const directory = temporary()
  const month = new Month(directory, undefined, three)
  month.time = begin + 200 * minute
  month.open()
  close(month, begin + 210 * minute)
  const more = { directories: [gw1, directory], vkeys: [...one.vkeys, ...three.vkeys] }
  expect(() => make(more)).toThrow(`${directory}: the log has no event of that time`)
})
