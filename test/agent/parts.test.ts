/** Small parts of the agent that need no network: its files, its clock, a lease, its codes. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { AgentError, agentCodes } from '#agent'
import type { Clock, Monotonic } from '#tunnel'
import { DeviceClock } from '../../agent-tunnel/agent/clock.ts'
import { writeDurably } from '../../agent-tunnel/agent/files.ts'
import { Identity } from '../../agent-tunnel/agent/identity.ts'
import { readRecord } from '../../agent-tunnel/agent/json.ts'
import { openLease, startLease } from '../../agent-tunnel/agent/lease.ts'
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

test('docs/agent.md lists every code', () => {
  const page = readFileSync(new URL('../../docs/agent.md', import.meta.url), 'utf8')
  expect(Object.keys(agentCodes).filter((code) => !page.includes(`\`${code}\``))).toEqual([])
})

test('every code ends a command with 1, 2 or 3 and belongs to a hop', () => {
  for (const [code, row] of Object.entries(agentCodes))
    expect([code, [1, 2, 3].includes(row.exit)]).toEqual([code, true])
})
