/** Several gateways of one device: the order in which they are dialled, who is asked instead, and the way home. */
import { getEventListeners, once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { AgentError, examineAgent, layIsland } from '#agent'
import type { AgentConfig } from '#agent'
import { systemClock } from '#tunnel'
import type { Clock, Monotonic } from '#tunnel'
import {
  atFirstReached,
  gatewaysOf,
  pause,
  walk,
  type Pace,
} from '../../agent-tunnel/agent/gateways.ts'
import { HandClock } from '../support/clock.ts'
import { freePort } from '../support/node.ts'
import { Identity } from '../../agent-tunnel/agent/identity.ts'
import { Directory, enrolled, running } from './device.ts'
import { FakeGateway, holds, openStream, proceed } from './gateway.ts'
import { renewOnce } from './renewing.ts'

const gw = (name: string) => ({ host: name, port: 8443 })
const settle = () => new Promise<void>((resolve) => setImmediate(resolve))

test('each address once, the own one first', () => {
  const others = [gw('b'), gw('A'), { host: 'a', port: 443 }, gw('b')]
  expect(gatewaysOf({ gateway: gw('a'), others })).toEqual([
    gw('a'),
    gw('b'),
    { host: 'a', port: 443 },
  ])
})

test('a pause leaves nothing on the signal of the agent, a thousand of them neither', async () => {
  const clock = new HandClock()
  const { signal } = new AbortController()
  for (let each = 0; each < 1000; each++) {
    const over = pause(10, clock, signal)
    clock.pass(10)
    await over
  }
  expect(getEventListeners(signal, 'abort')).toEqual([])
  expect(clock.waiting).toBe(0)
})

describe('a walk', () => {
  function walking(names: readonly string[], pace: Partial<Pace> = {}) {
    const clock = new HandClock()
    const stopping = new AbortController()
    const dials = new Map<string, PromiseWithResolvers<string>>()
    const [asked, failures]: [string[], string[]] = [[], []]
    const start = clock.now()
    const whole = { pauseFrom: 1, eachMs: 10_000, allMs: Infinity, ...pace } as const
    const done = walk(names.map(gw), whole, {
      dial: ({ host }, signal) => {
        asked.push(`${host}@${clock.now() - start}`)
        const dial = Promise.withResolvers<string>()
        signal.addEventListener('abort', () => dial.reject(new Error('given up')))
        dials.set(host, dial)
        return dial.promise
      },
      failed: (error, { host }, left) =>
        failures.push(`${host} ${error instanceof AgentError ? error.code : ''} ${left}`),
      clock,
      random: () => 0.5,
      signal: stopping.signal,
    })
    const pass = async (ms: number) => {
      clock.pass(ms)
      await settle()
    }
    return { asked, failures, done, dials, clock, pass, stop: () => stopping.abort() }
  }

  test('the first has no pause before it, the next ones have; one that says nothing has ten seconds', async () => {
    const { asked, failures, done, dials, pass } = walking(['a', 'b', 'c'])
    expect(asked).toEqual(['a@0'])
    await pass(9999)
    expect(failures).toEqual([])
    await pass(1)
    expect(failures).toEqual(['a gateway.unreachable 2'])
    await pass(500)
    expect(asked).toEqual(['a@0', 'b@10500'])
    dials.get('b')?.reject(new Error('no'))
    await settle()
    await pass(500)
    dials.get('c')?.resolve('up')
    expect(await done).toBe('up')
    expect(failures).toEqual(['a gateway.unreachable 2', 'b  1'])
  })

  test('all together have no longer than they may; nothing is left waiting', async () => {
    const pace = { pauseFrom: 0, eachMs: 5000, allMs: 6000 } as const
    const { asked, done, clock, pass } = walking(['a', 'b', 'c', 'd'], pace)
    for (let each = 0; each < 20; each++) await pass(500)
    expect(await done).toBeUndefined()
    expect(asked).toEqual(['a@500', 'b@6000'].slice(0, asked.length))
    expect(clock.waiting).toBe(0)
  })

  test('stopped in the middle it tells of no failure and asks nobody else', async () => {
    const { asked, failures, done, stop } = walking(['a', 'b'])
    stop()
    expect(await done).toBeUndefined()
    expect([asked, failures]).toEqual([['a@0'], []])
  })
})

describe('who is asked for a certificate', () => {
  const config = { gateway: gw('a'), others: [gw('b')] } as unknown as AgentConfig
  const failure = (code: ConstructorParameters<typeof AgentError>[0], serverCode?: string) =>
    new AgentError(code, code, 'next', { serverCode })
  const rows = [
    ['gateway.unreachable', undefined, ['a', 'b']],
    ['gateway.name_unknown', undefined, ['a', 'b']],
    ['gateway.tls', undefined, ['a', 'b']],
    ['gateway.untrusted', undefined, ['a', 'b']],
    ['enrol.failed', undefined, ['a', 'b']],
    // Somebody has decided: a second one is not asked for another answer.
    ['enrol.failed', 'log.unwritable', ['a']],
    ['enrol.refused', 'device.quarantined', ['a']],
    ['enrol.pending', undefined, ['a']],
    ['data.unwritable', undefined, ['a']],
  ] as const
  test.for(rows)('after %s (%s): %j', async ([code, server, asked]) => {
    const dialled: string[] = []
    const work = async ({ gateway }: AgentConfig) => {
      dialled.push(gateway.host)
      throw failure(code, server)
    }
    await expect(atFirstReached(config, work)).rejects.toMatchObject({ code })
    expect(dialled).toEqual(asked)
  })
})

describe('an agent', () => {
  const undo: (AsyncDisposable | Disposable)[] = []
  afterEach(async () => {
    for (const each of undo.splice(0).toReversed())
      if (Symbol.asyncDispose in each) await each[Symbol.asyncDispose]()
      else each[Symbol.dispose]()
  })

  /** Two gateways under one root, and a device of the first that knows the second. */
  async function two() {
    const own = await FakeGateway.start()
    const other = await FakeGateway.start({ house: own.bench.house })
    const directory = new Directory()
    undo.push(own, other, directory)
    const server = createServer((socket) => void socket.on('error', () => {}).pipe(socket))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    undo.push(server)
    const { port } = server.address() as AddressInfo
    const plain = await enrolled(own, directory, [`plc=tcp:127.0.0.1:${port}`])
    const dead = { host: '127.0.0.1', port: await freePort() }
    const others = [dead, { host: '127.0.0.1', port: other.port }]
    return { own, other, config: { ...plain, others } }
  }

  /** Real time, but what the agent looks at each second it looks at at once; counts how often. */
  class Looking implements Clock {
    looks = 0
    now(): Monotonic {
      return systemClock.now()
    }
    after(ms: number, wake: () => void): () => void {
      if (ms !== 1000) return systemClock.after(ms, wake)
      this.looks++
      return systemClock.after(5, wake)
    }
  }

  /** When it has looked so often more. */
  async function looked(clock: Looking, times: number): Promise<void> {
    const from = clock.looks
    await holds(() => expect(clock.looks - from).toBeGreaterThan(times))
  }

  test('whose gateway is gone serves at the next that takes it, and is home again in a quiet moment', async () => {
    const { own, other, config } = await two()
    const face = await own.face()
    await own.silence()
    const clock = new Looking()
    const agent = running({ ...config, homeAfterMs: 1 }, { clock })
    undo.push(agent)
    const held = await other.nextTunnel()
    const codes = agent.logged('tunnel.not_up').map(({ fields }) => fields['code'])
    expect(codes.slice(0, 2)).toEqual(['gateway.unreachable', 'gateway.unreachable'])
    const opened = await openStream(held, 'plc')
    proceed(opened)
    opened.stream.write(Buffer.from('there'))
    await holds(() => expect(opened.received.toString()).toBe('there'))
    await own.listen(face)

    // Its time has come, and a session is open.
    await looked(clock, 5)
    expect(own.tunnels).toHaveLength(0)
    opened.stream.end()
    await opened.closed
    const home = await own.nextTunnel()
    expect(home.serial).toBe(held.serial)
    expect(await held.tunnel.closed).toMatchObject({ code: 'agent.drained' })
    await looked(clock, 5)
    expect(own.tunnels).toHaveLength(1)
  })

  test('whose own gateway is not back stays where it is, and asks there again after its time', async () => {
    const { own, other, config } = await two()
    await own.silence()
    const clock = new Looking()
    const agent = running({ ...config, homeAfterMs: 1 }, { clock })
    undo.push(agent)
    const held = await other.nextTunnel()
    const before = agent.logged('tunnel.not_up').length
    await holds(() => expect(agent.logged('tunnel.not_up').length).toBeGreaterThan(before + 2))
    const opened = await openStream(held, 'plc')
    proceed(opened)
    opened.stream.write(Buffer.from('still'))
    await holds(() => expect(opened.received.toString()).toBe('still'))
    expect(other.tunnels).toHaveLength(1)
  })

  test('that was sent away from its own does not come back before its time', async () => {
    const { own, other, config } = await two()
    const clock = new Looking()
    const agent = running({ ...config, homeAfterMs: 3_600_000 }, { clock })
    undo.push(agent)
    const held = await own.nextTunnel()
    held.tunnel.goaway('node.draining', 0, [`127.0.0.1:${other.port}`])
    await other.nextTunnel()
    await looked(clock, 5)
    expect(own.tunnels).toHaveLength(1)
  })

  test('doctor says of each whether it would be there', async () => {
    const { other, config } = await two()
    const stranger = await FakeGateway.start()
    undo.push(stranger)
    const others = [...config.others, { host: '127.0.0.1', port: stranger.port }]
    writeFileSync(
      join(config.dataDir, 'agent.json'),
      JSON.stringify({
        ...(JSON.parse(readFileSync(join(config.dataDir, 'agent.json'), 'utf8')) as object),
        other_gateways: others.map(({ host, port }) => `${host}:${port}`),
      }),
    )
    const findings = await examineAgent(config.dataDir, new AbortController().signal)
    const said = findings.filter(({ hop }) => hop.startsWith('gateway '))
    expect(said.map(({ hop, verdict, code }) => [hop, verdict, code])).toEqual([
      [`gateway 127.0.0.1:${config.others[0]?.port}`, 'broken', 'gateway.unreachable'],
      [`gateway 127.0.0.1:${other.port}`, 'ok', undefined],
      [`gateway 127.0.0.1:${stranger.port}`, 'broken', 'gateway.untrusted'],
    ])
    expect(other.tunnels).toEqual([])
    layIsland(config.dataDir, undefined, new Date().toISOString())
    const alone = await examineAgent(config.dataDir, new AbortController().signal)
    expect(alone.filter(({ hop }) => hop.startsWith('gateway '))).toEqual([])
  })

  test('what one refuses is not refused for the next: it is shown the newest, and nothing is renewed that is fresh', async () => {
    const { own, other, config } = await two()
    const [old] = new Identity(config.dataDir).pairs()
    // A minute later: another notBefore, or the pairs could not be told apart.
    own.bench.now += 60_000
    const newest = await renewOnce(config.dataDir, () => own.bench.now)
    const serial = newest.leaf.serialNumber.toLowerCase()
    own.refuses = () => 'device.quarantined'
    other.refuses = (shown) => (shown === serial ? undefined : 'peer.expired')
    const asked = own.asked.length
    await using agent = running(
      { ...config, others: config.others.slice(1) },
      { system: () => own.bench.now },
    )
    const held = await other.nextTunnel()
    expect([held.serial, serial === old?.leaf.serialNumber.toLowerCase()]).toEqual([serial, false])
    expect(agent.logged('tunnel.not_up').map(({ fields }) => fields['server_code'])).toEqual([
      'device.quarantined',
    ])
    expect([own.asked.length, other.asked]).toEqual([asked, []])
  })

  test('the older of two certificates has ended for a gateway: that asks for no renewal of the newest', async () => {
    const { own, config } = await two()
    own.bench.now += 60_000
    const newest = await renewOnce(config.dataDir, () => own.bench.now)
    const serial = newest.leaf.serialNumber.toLowerCase()
    const shown: string[] = []
    own.refuses = (one) => {
      shown.push(one)
      if (shown.length > 4) return undefined
      return one === serial ? 'device.quarantined' : 'peer.expired'
    }
    const asked = own.asked.length
    await using agent = running({ ...config, others: [] }, { system: () => own.bench.now })
    await own.nextTunnel()
    expect(shown.slice(0, 2).map((one) => one === serial)).toEqual([true, false])
    expect(agent.logged('certificate.renewed')).toEqual([])
    expect(own.asked).toHaveLength(asked)
  })

  test('none of them there: one round is one failure, and the first that is back has it', async () => {
    const { own, other, config } = await two()
    const face = await other.face()
    await own.silence()
    await other.silence()
    const agent = running(config)
    undo.push(agent)
    await holds(() => expect(agent.logged('tunnel.not_up').length).toBeGreaterThan(5))
    await other.listen(face)
    await other.nextTunnel()
  })
})
