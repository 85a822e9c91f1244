/** The local UDP port of a session: a stream for each program that sends, given back when it is silent. */
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Offer, Tunnel, TunnelStream } from '#tunnel'
import { TunnelRefused } from '#tunnel'
import { DatagramPort } from '../../cli/datagrams.ts'
import { openForward, type News } from '../../cli/forward.ts'
import { holdPort } from '../../cli/local-port.ts'
import { HandClock } from '../support/clock.ts'
import { holds } from '../support/patience.ts'
import { startFakeGateway, type FakeGateway } from './fake-gateway.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await startFakeGateway()
})
afterAll(async () => gateway[Symbol.asyncDispose]())

let news: News[] = []
beforeEach(() => {
  news = []
})

interface Tool extends AsyncDisposable {
  readonly socket: Socket
  readonly heard: string[]
  say(text: string): void
}

async function tool(port: number): Promise<Tool> {
  const socket = createSocket('udp4')
  socket.connect(port, '127.0.0.1')
  await once(socket, 'connect')
  const heard: string[] = []
  socket.on('message', (datagram) => heard.push(datagram.toString()))
  socket.on('error', () => {})
  return {
    socket,
    heard,
    say: (text) => socket.send(text),
    [Symbol.asyncDispose]: async () => void socket.close(),
  }
}

function answering(tunnel: Tunnel): { offers: Offer[]; streams: TunnelStream[] } {
  const seen = { offers: [] as Offer[], streams: [] as TunnelStream[] }
  tunnel.onOpen = (offer) => {
    seen.offers.push(offer)
    const stream = offer.accept(Buffer.from('{"v":1}'))
    seen.streams.push(stream)
    stream.onSignal = () => {}
    stream.onEnd = () => stream.end()
    stream.onData = (chunk) => {
      stream.write(Buffer.from(`[${Buffer.from(chunk).toString()}]`))
      stream.consumed(chunk.length)
    }
  }
  return seen
}

test('each program has a stream of its own; what was sent before it was there is not lost', async () => {
  const accepted = gateway.tunnel()
  const forward = await openForward({
    gateway: { host: 'localhost', port: gateway.port },
    anchor: gateway.anchor,
    session: { id: `s_${'0'.repeat(26)}`, secret: 'A'.repeat(43), remaining_ms: 60_000 },
    kind: 'udp',
    listen: await holdPort({ host: '127.0.0.1', port: 0 }),
    instance: 'test',
    news: (one) => news.push(one),
  })
  const { tunnel } = await accepted
  const listening = news.find((one) => one.event === 'listening')
  const port = listening?.event === 'listening' ? listening.port : 0
  const seen = answering(tunnel)
  await using one = await tool(port)
  await using two = await tool(port)
  for (const text of ['a', 'bb', '']) one.say(text)
  two.say('other')
  await holds(() => expect(one.heard).toEqual(['[a]', '[bb]', '[]']))
  await holds(() => expect(two.heard).toEqual(['[other]']))
  expect(seen.offers.map(({ kind }) => kind)).toEqual(['udp', 'udp'])
  seen.streams[0]!.reset('policy.denied', 'no longer')
  await holds(() =>
    expect(news.find((item) => item.event === 'closed')).toMatchObject({
      reason: { code: 'policy.denied', message: 'no longer' },
    }),
  )
  one.say('again')
  await holds(() => expect(one.heard.at(-1)).toBe('[again]'))
  expect(seen.offers).toHaveLength(3)
  await forward.close()
})

/** A port over streams that are made here, on a clock that is moved by hand. */
async function local(open: () => Promise<TunnelStream>) {
  const clock = new HandClock()
  const refused: unknown[] = []
  const closed: string[] = []
  const held = await holdPort({ host: '127.0.0.1', port: 0, transport: 'udp' })
  const socket = held.serveUdp()
  const port = new DatagramPort(socket, {
    open,
    opened: () => {},
    refused: (_from, error) => refused.push(error),
    closed: (from) => closed.push(from),
    clock,
  })
  return { clock, refused, closed, port, number: socket.address().port }
}

function silent(written: string[], ends: { count: number }): TunnelStream {
  const stream = {
    write: (chunk: Uint8Array) => written.push(Buffer.from(chunk).toString()) > 0,
    end: () => {
      ends.count++
      stream.onClose?.({ code: 'done', message: '', fault: 'local' })
    },
    reset: () => {},
    consumed: () => {},
    onClose: undefined as TunnelStream['onClose'],
  }
  return stream as unknown as TunnelStream
}

test('a stream is given back after a minute of silence, and not a moment before', async () => {
  const written: string[] = []
  const ends = { count: 0 }
  const at = await local(async () => silent(written, ends))
  await using one = await tool(at.number)
  one.say('first')
  await holds(() => expect(written).toEqual(['first']))
  at.clock.pass(59_000)
  one.say('second')
  await holds(() => expect(written).toHaveLength(2))
  at.clock.pass(59_999)
  expect(ends.count).toBe(0)
  at.clock.pass(1)
  expect([ends.count, at.closed.length]).toEqual([1, 1])
  at.port.close()
})

test('a refusal is asked for once a second, not with each datagram', async () => {
  let asked = 0
  const at = await local(async () => {
    asked++
    throw new TunnelRefused('policy.denied', 'no')
  })
  await using one = await tool(at.number)
  await using stranger = await tool(at.number)
  for (let each = 0; each < 50; each++) one.say('please')
  stranger.say('me too')
  await holds(() => expect(at.refused).toHaveLength(2))
  expect(asked).toBe(2)
  at.clock.pass(1000)
  one.say('now?')
  await holds(() => expect(asked).toBe(3))
  at.port.close()
})

test('no more than 64 programs at once are served, and what waits for them is bounded', async () => {
  let asked = 0
  const { promise: never } = Promise.withResolvers<TunnelStream>()
  const at = await local(() => {
    asked++
    return never
  })
  const tools = await Promise.all(Array.from({ length: 70 }, () => tool(at.number)))
  for (const one of tools) one.say('x')
  await holds(() => expect(asked).toBe(64))
  for (let each = 0; each < 100; each++) tools[0]!.say('y'.repeat(1000))
  for (const one of tools) await one[Symbol.asyncDispose]()
  expect(asked).toBe(64)
  at.port.close()
})
