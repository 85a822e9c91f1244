/** The agent's parts that need no network: config, clock, lease, reconnecting, what is seen the same. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AgentError, agentCodes, configFrom, readConfig, readToken } from '#agent'
import type { Clock, Monotonic } from '#tunnel'
import { DeviceClock } from '../../agent-tunnel/agent/clock.ts'
import { parseConfig, printConfig } from '../../agent-tunnel/agent/config.ts'
import { mayFollow, readAlternative } from '../../agent-tunnel/agent/elsewhere.ts'
import { writeDurably } from '../../agent-tunnel/agent/files.ts'
import { Identity } from '../../agent-tunnel/agent/identity.ts'
import { readRecord } from '../../agent-tunnel/agent/json.ts'
import { patienceAfter } from '../../agent-tunnel/agent/patience.ts'
import { openLease, startLease } from '../../agent-tunnel/agent/lease.ts'
import {
  FIRST_BACKOFF_MS,
  LONGEST_BACKOFF_MS,
  LONGEST_RETRY_AFTER_MS,
  STABLE_MS,
  after,
  fresh,
} from '../../agent-tunnel/agent/reconnect.ts'
import type { Standing } from '../../agent-tunnel/agent/reconnect.ts'
import { MAX_OTHERS, combine, sameFacts, unseen } from '../../agent-tunnel/agent/scope/observed.ts'
import type { ProcessFacts } from '../../agent-tunnel/agent/scope/observed.ts'
import { rounds } from '../support/patience.ts'
import { Directory } from './device.ts'

/** A clock that is moved by hand. */
class HandClock implements Clock {
  #now = 0
  #timers: { at: number; wake: () => void }[] = []
  now(): Monotonic {
    return this.#now as Monotonic
  }
  after(ms: number, wake: () => void): () => void {
    const timer = { at: this.#now + ms, wake }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer)
    }
  }
  pass(ms: number): void {
    const until = this.#now + ms
    for (const _ of rounds('every wait moves the clock')) {
      const [next] = this.#timers.filter(({ at }) => at <= until).toSorted((a, b) => a.at - b.at)
      if (next === undefined) break
      this.#timers = this.#timers.filter((one) => one !== next)
      this.#now = Math.max(this.#now, next.at)
      next.wake()
    }
    this.#now = until
  }
  get waiting(): number {
    return this.#timers.length
  }
}

const PIN = 'ab'.repeat(32)
const good = {
  v: 1,
  gateway: 'https://gw.example:8443',
  other_gateways: ['10.0.0.2:8443', '[2001:db8::2]:443', 'gw.other.example:8443'],
  home_after_s: 900,
  device: 'press-07',
  tenant: 'main.sallyport.internal',
  ca_sha256: PIN,
  targets: {
    plc: { tcp: '127.0.0.1:1502' },
    press: { lan: '10.0.0.5:502' },
    six: { tcp: '[::1]:80' },
  },
  key_exchange: 'hybrid',
  carrier: 'websocket',
  proxy: 'socks5://egress.example:1080',
  proxy_auth_file: '/etc/sallyport/proxy-auth',
  keepalive_max_s: 240,
  drain_s: 60,
  accept_deadline_ms: 2000,
  consent_wait_s: 60,
  log_conflict: 'report',
}

test.for([
  ['lost while nothing was tried', { code: 'peer.lost', survivedMs: 20_000, triedMs: 0 }, 240_000],
  ['lost after a plain silence', { code: 'peer.silent', survivedMs: 0, triedMs: 22_000 }, 240_000],
  [
    'lost after a longer silence than ever',
    { code: 'peer.silent', survivedMs: 96_000, triedMs: 118_000 },
    96_000,
  ],
  [
    'lost in the first stretched one',
    { code: 'carrier.failed', survivedMs: 20_000, triedMs: 26_000 },
    25_000,
  ],
  [
    'ended by the gateway',
    { code: 'tunnel.replaced', survivedMs: 96_000, triedMs: 118_000 },
    240_000,
  ],
] as const)('patience after a tunnel %s', ([, ended, next]) => {
  expect(patienceAfter(240_000, ended)).toBe(next)
})

test.for([
  ['gw2.plant.example:8443', { host: 'gw2.plant.example', port: 8443 }],
  ['10.0.0.2:443', { host: '10.0.0.2', port: 443 }],
  ['[2001:db8::2]:8443', { host: '2001:db8::2', port: 8443 }],
  ['gw2', undefined],
  ['gw2:0', undefined],
  ['gw2:65536', undefined],
  ['2001:db8::2:8443', undefined],
  ['[gw2]:8443', undefined],
  ['-gw:8443', undefined],
  ['gw 2:8443', undefined],
  ['https://gw2:8443', undefined],
  ['a:b@gw2:8443', undefined],
] as const)('another address: %s', ([text, read]) => {
  expect(readAlternative(text)).toEqual(read)
})

test.for([
  ['its own host at another port', 'gw1.plant.example:9000', true],
  ['its own host in capitals', 'GW1.Plant.Example:8443', true],
  ['a name beside it, at its port', 'gw2.plant.example:8443', true],
  ['a name beside it, at 443', 'gw2.plant.example:443', true],
  ['a name beside it, at a port that is nobody’s', 'gw2.plant.example:22', false],
  ['a name below it', 'a.gw1.plant.example:8443', false],
  ['a name above it', 'plant.example:8443', false],
  ['another domain that ends alike', 'gw2.xplant.example:8443', false],
  ['an address that is listed', '10.0.0.2:8443', true],
  ['its other ports', '10.0.0.2:22', false],
  ['an address beside it', '10.0.0.3:8443', false],
  ['this machine', '127.0.0.1:8443', false],
] as const)('where a gateway may send us: %s', ([, text, allowed]) => {
  const configured = {
    gateway: { host: 'gw1.plant.example', port: 8443 },
    others: [{ host: '10.0.0.2', port: 8443 }],
  }
  const read = readAlternative(text)
  expect(read !== undefined && mayFollow(read, configured)).toBe(allowed)
})

test('a gateway directly below the top, or an address, has no names beside it', () => {
  for (const host of ['gw.example', '10.0.0.1'])
    for (const other of ['other.example', '10.0.0.3', '11.0.0.1'])
      expect(
        mayFollow({ host: other, port: 443 }, { gateway: { host, port: 443 }, others: [] }),
      ).toBe(false)
})

describe('agent.json', () => {
  test('what is read prints the same', () => {
    const config = parseConfig(JSON.stringify(good), '/data')
    expect(JSON.parse(printConfig(config))).toEqual(good)
    expect(config.targets.get('plc')).toEqual({
      kind: 'tcp',
      endpoint: { address: '127.0.0.1', port: 1502 },
      consent: false,
    })
  })

  test('what may be left out has its default; an IPv6 gateway keeps its brackets in the file only', () => {
    const config = parseConfig(
      JSON.stringify({ v: 1, gateway: 'https://[::1]:9', device: 'a', ca_sha256: PIN }),
      '/d',
    )
    expect(config).toMatchObject({
      gateway: { host: '::1', port: 9 },
      tenant: 'main.sallyport.internal',
      keyExchange: 'hybrid',
      acceptDeadlineMs: 2000,
    })
    expect(printConfig(config)).toContain('"https://[::1]:9"')
  })

  test.for([
    ['not JSON', '{"v": 1,\n "gateway": }', /agent\.json: not JSON.*"gateway": }/s],
    ['not an object', '[]', /agent\.json: an object/],
    ['another version', { v: 2 }, /agent\.json: v:/],
    ['a key nobody knows', { tagrets: {} }, /agent\.json: tagrets: unknown/],
    [
      'a gateway elsewhere that is none',
      { other_gateways: ['gw2'] },
      /other_gateways\.0: .*host:port/,
    ],
    ['http', { gateway: 'http://gw.example' }, /gateway: .*https/],
    ['a password in the URL', { gateway: 'https://u:p@gw.example' }, /gateway: .*password/],
    ['a path in the URL', { gateway: 'https://gw.example/est' }, /gateway: only host and port/],
    ['no URL', { gateway: 'gw.example' }, /gateway: a URL/],
    ['a device with capitals', { device: 'Press' }, /device: /],
    ['two hyphens', { device: 'a--b' }, /device: /],
    ['forty-one characters', { device: 'a'.repeat(41) }, /device: /],
    ['a tenant without a dot', { tenant: 'main' }, /tenant: /],
    ['a short pin', { ca_sha256: 'ab' }, /ca_sha256: .*64 hex/],
    ['targets in a list', { targets: [] }, /targets: an object/],
    [
      'a target name with a space',
      { targets: { 'p l c': { tcp: '127.0.0.1:1' } } },
      /targets\.p l c: /,
    ],
    ['a target that is a text', { targets: { plc: '127.0.0.1:1' } }, /targets\.plc: an object/],
    [
      'two kinds',
      { targets: { plc: { tcp: '127.0.0.1:1', lan: '10.0.0.1:1' } } },
      /targets\.plc: exactly one/,
    ],
    ['an unknown kind', { targets: { plc: { sctp: '127.0.0.1:1' } } }, /targets\.plc: exactly one/],
    [
      'a loopback address beside this machine, by UDP',
      { targets: { plc: { lan_udp: '127.0.0.1:1' } } },
      /targets\.plc\.lan_udp: a loopback address/,
    ],
    [
      'a name instead of an address',
      { targets: { plc: { tcp: 'localhost:1502' } } },
      /targets\.plc\.tcp: an IP address \(not a name\)/,
    ],
    ['no port', { targets: { plc: { tcp: '127.0.0.1' } } }, /targets\.plc\.tcp: "address:port"/],
    ['port 0', { targets: { plc: { tcp: '127.0.0.1:0' } } }, /targets\.plc\.tcp: /],
    ['port 70000', { targets: { plc: { tcp: '127.0.0.1:70000' } } }, /targets\.plc\.tcp: /],
    [
      'the wildcard',
      { targets: { plc: { tcp: '0.0.0.0:1502' } } },
      /targets\.plc\.tcp: .*wildcard/,
    ],
    [
      'loopback as lan',
      { targets: { plc: { lan: '127.0.0.9:1502' } } },
      /targets\.plc\.lan: .*owner is observed/,
    ],
    [
      'mapped loopback as lan',
      { targets: { plc: { lan: '[::ffff:127.0.0.1]:1502' } } },
      /targets\.plc\.lan: /,
    ],
    ['a key exchange nobody knows', { key_exchange: 'rot13' }, /key_exchange: /],
    ['a deadline of a year', { accept_deadline_ms: 1e10 }, /accept_deadline_ms: /],
    ['home after a second', { home_after_s: 1 }, /home_after_s: /],
    ['a conflict to be ignored', { log_conflict: 'ignore' }, /log_conflict: /],
  ] as const)('%s is named with its place', ([, change, message]) => {
    const text = typeof change === 'string' ? change : JSON.stringify({ ...good, ...change })
    expect(() => parseConfig(text, '/data')).toThrow(message)
    expect(() => parseConfig(text, '/data')).toThrow(
      expect.objectContaining({ code: 'config.invalid' }) as Error,
    )
  })

  test('options of a command line are checked the same way', () => {
    const setup = { gateway: 'https://gw.example:8443', device: 'press-07', rootSha256: PIN }
    expect(
      configFrom(
        { ...setup, targets: ['plc=tcp:127.0.0.1:1502', 'six=lan:[2001:db8::1]:502'] },
        '/d',
      ).targets.size,
    ).toBe(2)
    expect(() => configFrom({ ...setup, targets: ['plc'] }, '/d')).toThrow(/--target: plc/)
    expect(() =>
      configFrom({ ...setup, targets: ['a=tcp:127.0.0.1:1', 'a=tcp:127.0.0.1:2'] }, '/d'),
    ).toThrow(/twice/)
    expect(() => configFrom({ ...setup, targets: ['a=tcp:plc.local:1'] }, '/d')).toThrow(
      /options: targets\.a\.tcp/,
    )
  })

  test('no file, no token: what to do is said', () => {
    using directory = new Directory()
    expect(() => readConfig(directory.path)).toThrow(
      expect.objectContaining({ code: 'config.missing' }) as Error,
    )
    const file = join(directory.path, 'token')
    expect(() => readToken(file, 'unused')).toThrow(
      expect.objectContaining({ code: 'token.missing' }) as Error,
    )
    writeFileSync(file, ' abc\n')
    expect(readToken(file, 'unused')).toBe('abc')
    expect(readToken(undefined, ' abc ')).toBe('abc')
    expect(() => readToken(undefined, undefined)).toThrow(/no enrolment token/)
    writeFileSync(file, 'two words')
    expect(() => readToken(file, 'unused')).toThrow(/one line/)
  })
})

describe('files', () => {
  test('a directory in the way is said, and the old content stays', () => {
    using directory = new Directory()
    const path = join(directory.path, 'file')
    writeDurably(path, 'old')
    mkdirSync(`${path}.new`)
    expect(() => writeDurably(path, 'new')).toThrow(AgentError)
    expect(readFileSync(path, 'utf8')).toBe('old')
    rmSync(`${path}.new`, { recursive: true })
    writeFileSync(`${path}.new`, 'left over', { mode: 0o666 })
    writeDurably(path, 'new', 0o600)
    expect(readFileSync(path, 'utf8')).toBe('new')
    expect(existsSync(`${path}.new`)).toBe(false)
  })

  test.for(['', 'garbage', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n'])(
    'a key that is %j is no key',
    (text) => {
      using directory = new Directory()
      const identity = new Identity(directory.path)
      writeFileSync(join(directory.path, 'identity', 'a', 'key.pem'), text, { mode: 0o600 })
      writeFileSync(join(directory.path, 'identity', 'a', 'chain.pem'), 'garbage')
      expect(identity.pairs()).toEqual([])
      expect(identity.prepare().key.asymmetricKeyType).toBe('ec')
    },
  )

  test('a key without certificate is used again; JSON that is none is nothing', () => {
    using directory = new Directory()
    const first = new Identity(directory.path).prepare()
    const again = new Identity(directory.path).prepare()
    expect(again.key.equals(first.key)).toBe(true)
    for (const text of ['', '[]', 'null', '1', '{', '\ud800'])
      expect(readRecord(Buffer.from(text))).toBeUndefined()
  })
})

describe('the clock', () => {
  test('never before what is proven, runs on while the system stands still', () => {
    const hand = new HandClock()
    const clock = new DeviceClock({ monotonic: hand, system: () => 0 })
    const start = clock.now()
    expect(start).toBeGreaterThan(Date.UTC(2026, 0, 1))
    hand.pass(60_000)
    expect(clock.now() - start).toBe(60_000)
    clock.notBefore(start + 3_600_000)
    expect(clock.now()).toBe(start + 3_600_000 + 0)
    clock.notBefore(start)
    expect(clock.now()).toBe(start + 3_600_000)
  })

  test('a gateway that told the time is believed over the system, within reason', () => {
    const hand = new HandClock()
    const clock = new DeviceClock({ monotonic: hand, system: () => Date.UTC(2040, 0, 1) })
    for (const wrong of [NaN, Infinity, -1, 0, 1.5, 1e15]) clock.told(wrong)
    expect(clock.now()).toBe(Date.UTC(2040, 0, 1))
    const told = Date.UTC(2027, 0, 1)
    clock.told(told)
    hand.pass(1000)
    expect(clock.now()).toBe(told + 1000)
    expect(clock.offMs).toBeGreaterThan(0)
  })

  test('is saved, and found again after a restart at 1970', () => {
    using directory = new Directory()
    const told = Date.UTC(2027, 0, 1)
    new DeviceClock({ monotonic: new HandClock(), dataDir: directory.path }).told(told)
    const options = { monotonic: new HandClock(), system: () => 0, dataDir: directory.path }
    expect(new DeviceClock(options).now()).toBe(told)
    writeFileSync(join(directory.path, 'clock'), 'tomorrow')
    expect(new DeviceClock(options).now()).toBeLessThan(told)
  })
})

describe('a lease', () => {
  test.for([1, 1000, 86_400_000, 90 * 86_400_000])('of %d ms ends then, once', (ms) => {
    const hand = new HandClock()
    let spent = 0
    startLease(ms, hand, () => spent++)
    hand.pass(ms - 1)
    expect(spent).toBe(0)
    hand.pass(1)
    expect(spent).toBe(1)
    hand.pass(ms)
    expect(spent).toBe(1)
  })

  test('renewed it ends later, or sooner, and once; ended it is not renewed', () => {
    const hand = new HandClock()
    let spent = 0
    const lease = openLease(1000, hand, () => spent++)
    hand.pass(999)
    lease.renew(5000)
    hand.pass(4999)
    expect(spent).toBe(0)
    lease.renew(10)
    hand.pass(10)
    expect([spent, hand.waiting]).toEqual([1, 0])
    const other = openLease(1000, hand, () => expect.unreachable())
    other.end()
    other.renew(1)
    hand.pass(10_000)
    expect(hand.waiting).toBe(0)
  })

  test('taken back it never ends, and leaves no timer', () => {
    const hand = new HandClock()
    const cancel = startLease(90 * 86_400_000, hand, () => expect.unreachable())
    hand.pass(86_400_000 * 3)
    cancel()
    expect(hand.waiting).toBe(0)
    hand.pass(1e10)
  })
})

describe('reconnecting', () => {
  const at = (ms: number) => ms as Monotonic

  test('failures double the span up to its longest; the wait is drawn from the whole span', () => {
    let standing: Standing = fresh
    const spans: number[] = []
    for (let round = 0; round < 9; round++) {
      const low = after(standing, { type: 'failed' }, at(0), () => 0)
      const high = after(standing, { type: 'failed' }, at(0), () => 1)
      expect(low.waitMs).toBe(0)
      spans.push(high.waitMs)
      standing = high.standing
    }
    expect(spans).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60].map((seconds) => seconds * 1000))
    expect(spans[0]).toBe(FIRST_BACKOFF_MS)
    expect(spans.at(-1)).toBe(LONGEST_BACKOFF_MS)
  })

  test('a tunnel that lasted makes the next failure a first one; one that did not, does not', () => {
    const tried: Standing = { failures: 5, upSince: undefined }
    const up = after(tried, { type: 'up' }, at(1000), () => 1).standing
    expect(after(up, { type: 'lost' }, at(1000 + STABLE_MS), () => 1).waitMs).toBe(FIRST_BACKOFF_MS)
    expect(after(up, { type: 'lost' }, at(1000 + STABLE_MS - 1), () => 1).waitMs).toBe(32_000)
  })

  test('GOAWAY is obeyed, on top of the jitter, within a bound; being sent away again and again slows down', () => {
    expect(after(fresh, { type: 'goaway', retryAfterMs: 5000 }, at(0), () => 0).waitMs).toBe(5000)
    expect(after(fresh, { type: 'goaway', retryAfterMs: 1e12 }, at(0), () => 0).waitMs).toBe(
      LONGEST_RETRY_AFTER_MS,
    )
    expect(after(fresh, { type: 'goaway', retryAfterMs: -5 }, at(0), () => 0).waitMs).toBe(0)
    let standing: Standing = fresh
    let waitMs = 0
    for (let round = 0; round < 8; round++) {
      standing = after(standing, { type: 'up' }, at(round), () => 1).standing
      ;({ standing, waitMs } = after(
        standing,
        { type: 'goaway', retryAfterMs: 0 },
        at(round),
        () => 1,
      ))
    }
    expect(waitMs).toBe(LONGEST_BACKOFF_MS)
  })

  test('no wait is negative or longer than both bounds together, whatever happens', () => {
    const happening = fc.oneof(
      fc.constant({ type: 'failed' } as const),
      fc.constant({ type: 'lost' } as const),
      fc.constant({ type: 'up' } as const),
      fc.record({ type: fc.constant('goaway' as const), retryAfterMs: fc.double({ noNaN: true }) }),
    )
    fc.assert(
      fc.property(
        fc.array(happening, { maxLength: 40 }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (story, random) => {
          let standing: Standing = fresh
          for (const [time, one] of story.entries()) {
            const next = after(standing, one, at(time * 10_000), () => random)
            standing = next.standing
            expect(next.waitMs).toBeGreaterThanOrEqual(0)
            expect(next.waitMs).toBeLessThanOrEqual(LONGEST_RETRY_AFTER_MS + LONGEST_BACKOFF_MS)
          }
        },
      ),
    )
  })
})

describe('several owners', () => {
  const facts = (change: Partial<ProcessFacts> = {}): ProcessFacts => {
    const { others: _others, ...blank } = unseen('accepted')
    return { ...blank, exe: '/plc', sha256: PIN, uid: 1, pid: 10, started_at: 100, ...change }
  }

  test('oldest first; alike ones once; differing ones beside it', () => {
    const seen = combine([
      facts({ pid: 12, started_at: 102 }),
      facts({ pid: 11 }),
      facts({ pid: 13, exe: '/sh', started_at: 101 }),
    ])
    expect(seen).toEqual({
      ...facts({ pid: 11 }),
      others: [facts({ pid: 13, exe: '/sh', started_at: 101 })],
    })
  })

  test('none, or too many to tell, is nothing: never a shortened list', () => {
    expect(combine([])).toBeUndefined()
    const many = Array.from({ length: MAX_OTHERS + 2 }, (_, at) => facts({ exe: `/x${at}` }))
    expect(combine(many)).toBeUndefined()
    expect(combine(many.slice(1))?.others).toHaveLength(MAX_OTHERS)
  })

  test.for([
    ['another process of the same program', { pid: 99 }, true],
    ['another path', { exe: '/other' }, false],
    ['another hash', { sha256: 'cd'.repeat(32) }, false],
    ['another user', { uid: 2 }, false],
    ['a user no longer seen', { uid: null }, false],
    ['another unit', { unit: 'x.service' }, false],
    ['a hash no longer seen', { sha256: null }, false],
  ] as const)('%s: the same? %s', ([, change, same]) => {
    const before = { ...facts(), others: [] }
    expect(sameFacts(before, { ...facts(change), others: [] })).toBe(same)
  })

  test('unseen is never the same as unseen; an owner who joins must be one known before', () => {
    expect(sameFacts(unseen('accepted'), unseen('accepted'))).toBe(false)
    const before = { ...facts(), others: [] }
    expect(sameFacts(before, { ...facts(), others: [facts({ exe: '/sh' })] })).toBe(false)
    expect(sameFacts({ ...facts(), others: [facts({ exe: '/sh' })] }, before)).toBe(true)
  })
})

test('docs/agent.md lists every code', () => {
  const page = readFileSync(new URL('../../docs/agent.md', import.meta.url), 'utf8')
  expect(Object.keys(agentCodes).filter((code) => !page.includes(`\`${code}\``))).toEqual([])
})

test('every code ends a command with 1, 2 or 3 and belongs to a hop', () => {
  for (const [code, row] of Object.entries(agentCodes))
    expect([code, [1, 2, 3].includes(row.exit)]).toEqual([code, true])
})
