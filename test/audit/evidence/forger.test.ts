/** Evidence that somebody changed: found, and the place named, by both verifiers. */
import { describe, expect, test, vi } from 'vitest'
import { readZip, verifyPackage } from '../../../audit/evidence/verify.mjs'
import { packEntry, zipOf } from '../../../audit/evidence/zip.ts'
import { origin, shared, temporary, vkeys } from '../fixture.ts'
import { begin, Month, ordinary } from '../month.ts'
import { foreign, forge, hasForeign, lines, packageOf } from './fixture.ts'

const directory = shared()
const month = ordinary(directory)
const zip = packageOf(directory, begin, month.time)
const forged = (change: Parameters<typeof forge>[1]): Buffer => forge(zip, change)

/** What is left of the heads without the last `count`, and how many events they are over. */
function upToHead(bytes: Buffer, count: number): { size: number; heads: string } {
  const all = (readZip(bytes).get('log/checkpoints')?.bytes.toString() ?? '').split(
    /\n\n(?=sallyport)/,
  )
  const left = all.slice(0, all.length - count)
  return { size: Number(left.at(-1)?.split('\n')[1]), heads: `${left.join('\n\n')}\n\n` }
}

describe.skipIf(!hasForeign)('a verifier in Python and openssl', () => {
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

describe.skipIf(!hasForeign)('where it is run', () => {
  test('a key file of an editor that marks its encoding is read', () => {
    expect(foreign(zip, [`\ufeff${vkeys[0]}\r`, ...vkeys.slice(1)]).exit).toBe(0)
  })
  test('a screen that cannot write a name is not taken for a violation', () => {
    vi.stubEnv('PYTHONIOENCODING', 'ascii')
    try {
      const { exit, out } = foreign(zip, vkeys, ['--node', 'gw\u00e9'])
      expect(out).not.toContain('VIOLATED')
      expect(exit).toBe(2)
    } finally {
      vi.unstubAllEnvs()
    }
  })
})

describe.skipIf(!hasForeign)('a byte flipped for the verifier in Python', () => {
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
      // Half a minute of the time asked for: heartbeats a minute apart say nothing of it.
      name: 'removes the last minute, with the heads over it',
      change: (() => {
        const { size, heads } = upToHead(zip, 1)
        const cut = (text: string): string => `${lines(text).slice(0, size).join('\n')}\n`
        return {
          'log/checkpoints': () => heads,
          'log/events.ndjson': cut,
          'log/leaves.txt': cut,
        }
      })(),
      says: /the events say not provable/,
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
      'manifest.json': (text) => text.replace(/"rendering": \d+/, '"rendering": 99'),
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
