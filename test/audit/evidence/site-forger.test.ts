/** A dishonest operator of a site: one gateway's log made to speak for another's, and packages that hold nothing untrue and mislead. */
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { buildSiteEvidence } from '#audit'
import { readZip, verifyPackage } from '../../../audit/evidence/verify.mjs'
import { packEntry, type Packed } from '../../../audit/evidence/zip.ts'
import { keysOf } from '../epoch-fixture.ts'
import { shared, temporary } from '../fixture.ts'
import { begin, minute, Month } from '../month.ts'
import { catalogue, foreign, hasForeign } from './fixture.ts'
import { close, rebuilt, until } from './site-fixture.ts'

const one = keysOf(1, 'sallyport.test/audit/gw1')
const two = keysOf(1, 'sallyport.test/audit/gw2')
const vkeys = [...one.vkeys, ...two.vkeys]
const asked = { vkeys, from: begin, to: begin + 20 * minute - 1, catalogue }

type Act = (month: Month) => void
/** A log of each gateway, and what else stands in it. */
function site(directory: string, at1: Act, at2: Act = () => undefined): Buffer {
  const [gw1, gw2] = [join(directory, 'gw1'), join(directory, 'gw2')]
  const of = [
    [new Month(gw1, undefined, one), at1],
    [new Month(gw2, undefined, two), at2],
  ] as const
  for (const [month, act] of of) {
    month.open()
    act(month)
    close(month, begin + 20 * minute)
  }
  return buildSiteEvidence({ ...asked, directories: [gw1, gw2] }).bytes
}

/** What both programs say of it; where the other cannot run, ours alone. */
function verified(bytes: Buffer, keys = vkeys): { exit: number; text: string } {
  const { exit, lines } = verifyPackage(bytes, keys)
  const text = lines.join('\n')
  const other = hasForeign ? foreign(bytes, keys) : { exit, out: '' }
  expect(other.exit, `${text}\n---\n${other.out}`).toBe(exit)
  return { exit, text: `${text}\n${other.out}` }
}

const session = (month: Month, id: string, grant: string, at: number): void => {
  until(month, begin + at * minute).start(id, grant)
  until(month, begin + (at + 1) * minute).end(id)
}

describe('one gateway', () => {
  test('does not hide a session of another by one of that name', () => {
    const bad: Act = (month) => session(month, 's_1', 'g_none', 5)
    const good: Act = (month) => {
      until(month, begin + 6 * minute).grant('g_2')
      session(month, 's_1', 'g_2', 8)
    }
    const { exit, text } = verified(site(temporary(), bad, good))
    expect(text).toMatch(/EXCEPTION: event \d+ of gw1: session s_1: its grant was never requested/)
    expect(text).toContain('(s_1, through gw1)')
    expect(text).toContain('(s_1, through gw2)')
    expect(exit).toBe(1)
  })

  test('does not put a request of its own in place of another’s', () => {
    const short: Act = (month) => {
      until(month, begin + 2 * minute).grant('g_1', 2)
      session(month, 's_1', 'g_1', 5)
    }
    const again: Act = (month) => until(month, begin + 3 * minute).grant('g_1', 0)
    const { exit, text } = verified(site(temporary(), short, again))
    expect(text).toContain('session s_1: its grant had 1 of 2 approvals')
    expect(text).toMatch(/EXCEPTION: event \d+ of gw2: the grant g_1 was requested at gw1 too/)
    expect(exit).toBe(1)
  })

  test('does not soften the end of a grant at another by an end of its own', () => {
    const used: Act = (month) => {
      until(month, begin + 2 * minute).grant('g_1')
      until(month, begin + 5 * minute).endGrant('g_1', 'revoke')
      month.time += 4_000
      month.start('s_1', 'g_1')
      until(month, begin + 6 * minute).end('s_1')
    }
    const before: Act = (month) =>
      until(month, begin + 5 * minute - 1_000).endGrant('g_1', 'expire')
    const { exit, text } = verified(site(temporary(), used, before))
    expect(text).toContain('session s_1: its grant had ended (revoke)')
    expect(exit).toBe(1)
  })
})

describe('a package made anew by who has no key', () => {
  const zip = site(shared(), (month) => {
    until(month, begin + 2 * minute).grant('g_1')
    session(month, 's_1', 'g_1', 5)
  })
  const entries = [...readZip(zip).values()]
  const again = { ...asked, nodes: ['gw1', 'gw2'] }

  test('holds, where nothing is wrong with it', () => {
    expect(verified(rebuilt(entries, again)).exit).toBe(0)
  })

  test('is not complete of a time that ends before it begins', () => {
    const { exit, text } = verified(rebuilt(entries, { ...again, from: again.to, to: again.from }))
    expect(text).toContain('its time ends before it begins')
    expect(exit).toBe(1)
  })

  test.each([
    'REPORT.HTML',
    'report.html.',
    'Nodes/gw1/log/checkpoints',
    'nodes\\gw1\\report.html',
    '../report.html',
    '/report.html',
    'C:report.html',
    'addendum.txt',
    'controls/addendum.txt',
    'log/keys/checkpoints',
  ])('has no file %s', (name) => {
    const { exit, text } = verified(rebuilt(entries, again, [packEntry(name, 'all is well')]))
    expect(text).toMatch(/VIOLATED at /)
    expect(exit).toBe(1)
  })

  test.each(['gw\uff11', 'GW1', '..', 'gw1 ', 'a/gw3', ''])('names no gateway %j', (name) => {
    const nodes = ['gw1', 'gw2', name].toSorted()
    const { exit, text } = verified(rebuilt(entries, { ...again, nodes }))
    expect(text).toContain('it does not name the gateways of the site')
    expect(exit).toBe(1)
  })

  test('has no bytes behind what is packed, and no more than it says', () => {
    const packedAs = (make: (entry: Packed) => Buffer) =>
      rebuilt(
        entries.map((entry) =>
          entry.name === 'catalogue.json' ? { ...entry, packed: make(entry) } : entry,
        ),
        again,
      )
    const behind = packedAs(({ bytes }) => Buffer.concat([deflateRawSync(bytes), Buffer.of(7)]))
    const more = packedAs(({ bytes }) => deflateRawSync(Buffer.concat([bytes, Buffer.of(32)])))
    for (const forged of [behind, more]) {
      const { exit, text } = verified(forged)
      expect(text).toContain('VIOLATED at catalogue.json')
      expect(exit).toBe(1)
    }
  })

  test('is signed by nobody where its note does not hold, whichever keys the reader has', () => {
    const sign = { signWith: [one.ed25519, one.mlDsa44], now: begin }
    const directory = temporary()
    site(directory, () => undefined)
    const directories = [join(directory, 'gw1'), join(directory, 'gw2')]
    const signed = buildSiteEvidence({ ...asked, ...sign, directories }).bytes
    const note = readZip(signed).get('manifest.note')
    if (note === undefined) throw new Error('it is not signed')
    const forged = rebuilt(entries, again, [note])
    expect(verified(forged).exit).toBe(1)
    expect(verified(forged, [...one.vkeys]).exit).toBe(1)
  })
})
