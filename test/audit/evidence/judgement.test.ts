/** What both verifiers make of a log that is as it was signed: silence, grants that do not cover, recordings. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readZip, verifyPackage } from '../../../audit/evidence/verify.mjs'
import { fileOf, rootOf } from '../../../audit/recording/parts.ts'
import { shared, temporary, vkeys } from '../fixture.ts'
import { begin, minute, Month, olga } from '../month.ts'
import { foreign, hasForeign, packageOf } from './fixture.ts'

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
  test.for([
    ['forward', 3 * 60 * minute],
    ['back', -30 * minute],
  ] as const)('a clock that was set %s is listed, and is no silence', ([, by]) => {
    const at = temporary()
    const one = new Month(at)
    one.every = 30
    one.open()
    one.pass(40)
    one.time += by + minute
    one.beat(undefined, minute)
    one.pass(by < 0 ? 60 : 3)
    one.one.sign(one.time)
    one.one.close()
    const bytes = packageOf(at, begin, one.time)
    const { exit, lines } = verifyPackage(bytes, vkeys)
    expect(lines[0]).toBe('PROVEN: complete with listed recoveries')
    expect(lines.join('\n')).toMatch(
      /^listed: the clock was set, or the machine stood still, and heartbeats went on, from/m,
    )
    expect(exit).toBe(0)
    if (hasForeign) expect(foreign(bytes)).toMatchObject({ exit: 0 })
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
    {
      name: 'after the time from the grant’s first use, inside its window',
      act: (one: Month) => {
        one.grant('g_2', 1, olga, { seconds: 60 })
        one.use('g_2')
        one.pass(2)
        one.start('s_1', 'g_2')
      },
      says: /outside the time of its grant/,
      foreign: /outside its time/,
    },
    {
      name: 'the second under a grant for one',
      act: (one: Month) => {
        one.grant('g_2', 1, olga, { uses: 1 })
        one.start('s_0', 'g_2')
        one.pass(1)
        one.end('s_0')
        one.start('s_1', 'g_2')
      },
      says: /s_1: its grant was for 1 sessions/,
      foreign: /more sessions than it was for/,
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
    if (!hasForeign) return
    const other = foreign(bytes)
    expect(other.out).toMatch(alsoSays)
    expect(other.exit).toBe(1)
  })
})

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

test('a session that began while its grant was extended is no exception when the extension is taken back', () => {
  const at = temporary()
  const one = new Month(at)
  const lasts = (seconds: number): void => {
    one.write({
      code: 'grant.extend',
      message: 'grant lasts so long',
      status: 'success',
      device: 'press-07',
      grant: 'g_1',
      data: { not_after: Math.floor(begin / 1000) + 8 * 3_600, max_seconds: seconds },
    })
  }
  const session = (id: string): void => {
    one.start(id, 'g_1')
    one.pass(1)
    one.end(id)
  }
  one.open()
  one.grant('g_1', 1, olga, { seconds: 60 })
  one.use('g_1')
  lasts(600)
  one.pass(3)
  session('s_1')
  lasts(60)
  one.pass(1)
  const good = verifyPackage(packageOf(at, begin, one.time), vkeys)
  expect(good.exit).toBe(0)
  session('s_2')
  one.pass(1)
  one.one.close()
  const bytes = packageOf(at, begin, one.time)
  const { exit, lines } = verifyPackage(bytes, vkeys)
  const outside = lines.filter((line) => line.startsWith('EXCEPTION'))
  expect(outside).toEqual([expect.stringMatching(/s_2: it began outside the time/)])
  expect(exit).toBe(1)
  if (!hasForeign) return
  const { out } = foreign(bytes)
  expect(out.match(/outside its time/g)).toHaveLength(1)
  expect(out).toMatch(/session s_2: outside its time/)
})

test('a lock is told of with each device that it shuts out of, and sessions of another time are not', () => {
  const at = temporary()
  const one = new Month(at)
  one.open()
  one.grant('g_1')
  one.start('s_1', 'g_1')
  one.pass(2)
  one.end('s_1')
  one.pass(2)
  const from = one.time
  const lock = (scope: string, target: string, code: 'session.lock' | 'session.unlock'): number =>
    one.write({
      code,
      message: `locked: ${scope} ${target}`,
      status: 'success',
      actor: olga,
      data: { scope, target },
    })
  lock('company', 'Pumpworks', 'session.lock')
  lock('device', 'press-07', 'session.lock')
  lock('process', 'press-07/plc', 'session.unlock')
  lock('device', 'press-0', 'session.lock')
  lock('process', 'press-070/plc', 'session.unlock')
  one.pass(2)
  one.one.close()
  const bytes = packageOf(at, from, one.time)
  const html = readZip(bytes).get('report.html')?.bytes.toString() ?? ''
  const told = html.split('Refused, cut, locked or revoked')[1]?.split('</section>')[0]
  expect(told?.match(/locked: [^<]*/g)).toEqual([
    'locked: company Pumpworks',
    'locked: device press-07',
    'locked: process press-07/plc',
  ])
  const { lines } = verifyPackage(bytes, vkeys, 'press-07')
  expect(lines).toContain('refused: 0; cut, locked or revoked: 3')
  expect(lines).toContain('who did: 0 sessions')
  if (hasForeign) expect(foreign(bytes).out).not.toContain('(s_1)')
})

test('a name that would move the cursor or turn the writing round is shown as it is, by page and programs', () => {
  const at = temporary()
  const one = new Month(at)
  one.open()
  one.grant('g_1')
  const name = 'vera\u202e\u001b[2Jtset.rodnev\nPROVEN'
  one.start('s_1', 'g_1', { person: { uid: 'https://idp.test|vera', name, party: 'vendor' } })
  one.pass(2)
  one.one.close()
  const bytes = packageOf(at, begin, one.time)
  const html = readZip(bytes).get('report.html')?.bytes.toString() ?? ''
  expect(html).toContain('vera&#60;U+202E&#62;&#60;U+001B&#62;[2J')
  const [zip, keys] = [join(at, 'p.zip'), join(at, 'keys')]
  writeFileSync(zip, bytes)
  writeFileSync(keys, `${vkeys.join('\n')}\n`)
  const program = new URL('../../../audit/evidence/verify.mjs', import.meta.url).pathname
  const { stdout, status } = spawnSync(process.execPath, [program, zip, '--key', keys], {
    encoding: 'utf8',
  })
  expect(status).toBe(0)
  for (const said of [html, stdout, ...(hasForeign ? [foreign(bytes).out] : [])]) {
    expect(said).toMatch(/vera(<|&#60;)U\+202E/)
    expect(said).not.toMatch(/[\u202e]|\x1b/)
  }
  expect(stdout).not.toMatch(/^PROVEN /m)
})

describe('until when somebody could is told from', () => {
  const told = (act: (one: Month) => void, asked = (one: Month) => [begin, one.time] as const) => {
    const at = temporary()
    const one = new Month(at)
    one.open()
    one.grant('g_1', 1, olga, { seconds: 120 })
    act(one)
    one.pass(5)
    one.one.close()
    const bytes = packageOf(at, ...asked(one))
    const html = readZip(bytes).get('report.html')?.bytes.toString() ?? ''
    return { said: verifyPackage(bytes, vkeys, 'press-07').lines.join('\n'), html }
  }
  test('the window, where nobody used it', () => {
    const { said, html } = told(() => {})
    expect(said).toContain('2026-03-10 08:00:00Z to 2026-03-10 16:00:00Z, approved by')
    expect(html).toContain('window to 2026-03-10 16:00:00, 2 min from the first use: never used')
    expect(html).toContain('<td>no</td>')
  })
  test('the first use, where somebody did', () => {
    const { said, html } = told((one) => {
      one.use('g_1')
      one.start('s_1', 'g_1')
    })
    expect(said).toContain('2026-03-10 08:00:00Z to 2026-03-10 08:02:01Z, approved by')
    expect(html).toContain('from the first use at 2026-03-10 08:00:01')
    expect(html).toContain('<td>1 session</td>')
  })
  test('a revocation, with who and where it stands', () => {
    const { said } = told((one) => {
      one.pass(1)
      one.endGrant('g_1', 'revoke')
    })
    expect(said).toContain(
      'to 2026-03-10 08:01:01Z, when it was revoked by olga@plant.test (event 5), approved by',
    )
  })
  test('its own end, though it was recorded much later', () => {
    const late = (one: Month): void => {
      one.pass(4)
      one.endGrant('g_1', 'expire', begin + 2 * minute)
    }
    const { said, html } = told(late)
    expect(said).toContain('2026-03-10 08:00:00Z to 2026-03-10 08:02:00Z, approved by')
    expect(html).toMatch(/ended by itself #\d+/)
    const after = told(late, (one) => [begin + 3 * minute, one.time])
    expect(after.said).toContain('who could reach press-07: 0 grants')
  })
})
