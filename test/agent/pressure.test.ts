/** Kernel memory that stalled connections hold: they give way, longest first, and nobody who moves does. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { driveTunnel, memoryPair } from '#tunnel'
import type { CloseReason, TunnelStream } from '#tunnel'
import { Forwarder } from '../../agent-tunnel/agent/forward.ts'
import type { ForwardOptions } from '../../agent-tunnel/agent/forward.ts'
import { Pressure } from '../../agent-tunnel/agent/pressure.ts'
import { HandClock } from '../support/clock.ts'

/** A machine so small that a single connection counts. */
const ample = { pages: 1000, short: false }
const short = { pages: 1600, short: true }

/** Connections as the watch sees them, and what it ended. */
function site(count: number) {
  const clock = new HandClock()
  const kernel = { memory: ample }
  const pressure = new Pressure(clock, () => kernel.memory)
  const ended: number[] = []
  const connections = Array.from({ length: count }, (_, at) => {
    const state = { bytesOut: 0, paused: false, bytesWritten: 0, writableLength: 0 }
    const leave = pressure.watch({
      stream: state,
      target: Object.assign(state, { isPaused: () => state.paused }),
      end: () => {
        ended.push(at)
        leave()
      },
    })
    return state
  })
  const seconds = (many: number, each: () => void = () => {}) => {
    for (let second = 0; second < many; second++) {
      each()
      clock.pass(1000)
    }
  }
  return { clock, kernel, connections, ended, seconds }
}

test('a reader that takes nothing gives way, one that is slow, idle or paused for a moment does not', () => {
  const { kernel, connections, ended, seconds } = site(4)
  const [stalled, slow, , brief] = connections
  kernel.memory = short
  for (const one of [stalled, slow]) if (one !== undefined) one.paused = true
  seconds(20, () => {
    if (slow !== undefined) slow.bytesOut += 1
    if (brief !== undefined) brief.paused = !brief.paused
  })
  expect(ended).toEqual([0])
})

test('a target that takes nothing gives way too', () => {
  const { kernel, connections, ended, seconds } = site(2)
  kernel.memory = short
  for (const one of connections)
    Object.assign(one, { bytesWritten: 65_536, writableLength: 65_536 })
  const [, moving] = connections
  seconds(20, () => {
    if (moving !== undefined) moving.bytesWritten += 4096
  })
  expect(ended).toEqual([0])
})

test('while the kernel has memory nobody gives way, however long it stands still', () => {
  const { connections, ended, seconds } = site(3)
  for (const one of connections) one.paused = true
  seconds(3600)
  expect(ended).toEqual([])
})

test('an eighth a second, longest first, until the kernel is at ease', () => {
  const { kernel, connections, ended, seconds } = site(64)
  seconds(1)
  // The last to come has stalled first.
  for (const one of connections.toReversed()) {
    one.paused = true
    seconds(1)
  }
  seconds(5)
  kernel.memory = short
  seconds(1)
  expect(ended).toEqual([63, 62, 61, 60, 59, 58, 57, 56])
  seconds(1)
  expect(ended).toHaveLength(15)
  kernel.memory = ample
  seconds(10)
  expect(ended).toHaveLength(15)
})

test('memory that others fill costs a stalled reader nothing: its end would give nothing back', () => {
  const { kernel, connections, ended, seconds } = site(3)
  kernel.memory = { pages: 400_000, short: true }
  for (const one of connections) one.paused = true
  seconds(60)
  expect(ended).toEqual([])
})

test('nothing is looked at once the last connection has gone', () => {
  const { clock, connections, kernel, seconds } = site(1)
  kernel.memory = short
  for (const one of connections) one.paused = true
  seconds(10)
  expect(clock.waiting).toBe(0)
})

/** A sight of the target that never changes. */
const sighting = { observed: { phase: 'accepted', exe: '/usr/bin/plc', pid: 7 }, sights: [] }

/** Writes to whoever connects for as long as it takes. */
async function flooding(): Promise<number> {
  const chunk = Buffer.alloc(64 * 1024)
  const server = createServer((socket) => {
    const pump = () => {
      while (socket.write(chunk));
    }
    socket.on('error', () => socket.destroy())
    socket.on('drain', pump)
    pump()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  return (server.address() as AddressInfo).port
}

test('through an agent: the stalled stream ends with agent.memory, the one beside it goes on', async () => {
  const port = await flooding()
  const [one, two] = memoryPair()
  const [agent, gateway] = await Promise.all([
    driveTunnel(one, { role: 'agent', side: 'dialler', instance: 'a', epoch: 1 }),
    driveTunnel(two, { role: 'gateway', side: 'acceptor', instance: 'g', epoch: 1 }),
  ])
  onTestFinished(() => agent.close('test.over'))
  const clock = new HandClock()
  const forwarder = new Forwarder({
    targets: new Map([['plc', { kind: 'tcp', endpoint: { address: '127.0.0.1', port } }]]),
    scope: {
      observeAccepted: async () => ({ ok: true, sighting }),
      recheck: async () => ({ state: 'same' }),
    },
    clock,
    acceptDeadlineMs: 1000,
    log: () => {},
    ownerChanged: () => {},
    tcpMemory: () => short,
  } as unknown as ForwardOptions)
  agent.onOpen = (offer) => void forwarder.serve(offer)
  const open = async (): Promise<TunnelStream> => {
    const ask = { v: 1, session: `s_${'0'.repeat(26)}`, process: 'plc', remaining_ms: 600_000 }
    const stream = await gateway.open('tcp', Buffer.from(JSON.stringify(ask)))
    stream.signal(Buffer.from('{"t":"proceed"}'))
    return stream
  }
  const [stalled, moving] = [await open(), await open()]
  const held = Promise.withResolvers<void>()
  const closed = new Promise<CloseReason>((resolve) => (stalled.onClose = resolve))
  stalled.onData = () => stalled.bytesIn >= 256 * 1024 && held.resolve()
  let arrived = Promise.withResolvers<void>()
  moving.onData = (chunk) => {
    moving.consumed(chunk.length)
    arrived.resolve()
  }
  const lost = { code: '' }
  moving.onClose = ({ code }) => (lost.code = code)
  await held.promise
  for (let second = 0; second < 10; second++) {
    arrived = Promise.withResolvers()
    await arrived.promise
    clock.pass(1000)
  }
  expect(await closed).toMatchObject({ code: 'agent.memory' })
  arrived = Promise.withResolvers()
  await arrived.promise
  expect(lost.code).toBe('')
})
