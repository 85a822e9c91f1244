import { createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Offer, Tunnel, TunnelStream } from '#tunnel'
import { Pace } from '../../cli/pace.ts'
import { openForward, type Forward, type News } from '../../cli/forward.ts'
import { holdPort } from '../../cli/local-port.ts'
import { until } from '../support/patience.ts'
import { freePort } from '../support/port.ts'
import { startFakeGateway, type FakeGateway } from './fake-gateway.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await startFakeGateway()
})
afterAll(async () => gateway[Symbol.asyncDispose]())

const secret = randomBytes(32).toString('base64url')
let news: News[] = []
beforeEach(() => {
  news = []
})

interface Open extends AsyncDisposable {
  readonly forward: Forward
  readonly tunnel: Tunnel
  readonly exporter: Buffer
  readonly port: number
}

async function open(
  remaining = 60_000,
  more: Partial<Parameters<typeof openForward>[0]> = {},
): Promise<Open> {
  const accepted = gateway.tunnel()
  const forward = await openForward({
    gateway: { host: 'localhost', port: gateway.port },
    anchor: gateway.anchor,
    session: { id: `s_${'0'.repeat(26)}`, secret, remaining_ms: remaining },
    listen: await holdPort({ host: '127.0.0.1', port: 0 }),
    instance: 'test',
    news: (one) => news.push(one),
    ...more,
  })
  const { tunnel, socket } = await accepted
  const exporter = socket.exportKeyingMaterial(32, 'EXPORTER-sallyport-session', Buffer.alloc(0))
  const listening = news.find((one) => one.event === 'listening')
  return {
    forward,
    tunnel,
    exporter,
    port: listening?.event === 'listening' ? listening.port : 0,
    [Symbol.asyncDispose]: async () => forward.close(),
  }
}

async function offered(tunnel: Tunnel): Promise<Offer> {
  const { promise, resolve } = Promise.withResolvers<Offer>()
  tunnel.onOpen = resolve
  return promise
}

async function connected(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** All bytes until the other end says FIN; rejects on a reset. */
async function readAll(socket: Socket): Promise<string> {
  const chunks: Buffer[] = []
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.on('end', () => resolve(Buffer.concat(chunks).toString()))
  socket.on('error', reject)
  return promise
}

const seen = async <E extends News['event']>(event: E): Promise<Extract<News, { event: E }>> => {
  for (;;) {
    const found = news.find((one) => one.event === event)
    if (found !== undefined) return found as Extract<News, { event: E }>
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

test('each connection proves the session on this very TLS connection', async () => {
  await using one = await open()
  const offer = offered(one.tunnel)
  await connected(one.port)
  const { kind, metadata } = await offer
  expect(kind).toBe('tcp')
  const proof = createHmac('sha256', Buffer.from(secret, 'base64url'))
    .update(one.exporter)
    .digest('base64url')
  expect(JSON.parse(Buffer.from(metadata).toString())).toEqual({
    v: 1,
    session: `s_${'0'.repeat(26)}`,
    proof,
  })
})

test('a tool that connects before the people at the device have answered waits for them, and is told of once', async () => {
  const pauses: (() => void)[] = []
  const pause = () => new Promise<void>((resolve) => void pauses.push(resolve))
  await using one = await open(60_000, { pause })
  const asked = '{"code":"owner.asked","msg":"nobody has answered yet"}'
  one.tunnel.onOpen = (offer) => offer.refuse('policy.denied', asked)
  const [first, second] = [await connected(one.port), await connected(one.port)]
  await until('both wait', () => pauses.length === 2)
  const answer = offered(one.tunnel)
  pauses[0]?.()
  const stream = (await answer).accept(Buffer.from('{"v":1}'))
  stream.write(Buffer.from('in'))
  stream.end()
  // Whichever of the two it is: the other one's time has not come.
  expect(await Promise.race([readAll(first), readAll(second)])).toBe('in')
  expect(news.filter(({ event }) => event === 'awaited')).toHaveLength(1)
  expect(news.filter(({ event }) => event === 'refused')).toEqual([])
  for (const socket of [first, second]) socket.destroy()
})

test('an end of speech is passed on, and the answer after it still arrives', async () => {
  await using one = await open()
  const offer = offered(one.tunnel)
  const socket = await connected(one.port)
  const stream = (await offer).accept(Buffer.from('{"v":1}'))
  let heard = ''
  stream.onData = (chunk) => {
    heard += Buffer.from(chunk).toString()
    stream.consumed(chunk.length)
  }
  stream.onEnd = () => {
    stream.write(Buffer.from(`heard ${heard}`))
    stream.end()
  }
  socket.end('question')
  expect(await readAll(socket)).toBe('heard question')
  expect(await seen('closed')).toMatchObject({ reason: { code: 'done' }, sent: 8, received: 14 })
})

test('what the tool says before the gateway has decided is kept, not lost', async () => {
  await using one = await open()
  const offer = offered(one.tunnel)
  const socket = await connected(one.port)
  socket.end('early')
  await new Promise((resolve) => setTimeout(resolve, 50))
  const stream = (await offer).accept(Buffer.from('{"v":1}'))
  const { promise, resolve } = Promise.withResolvers<string>()
  stream.onData = (chunk) => {
    resolve(Buffer.from(chunk).toString())
    stream.consumed(chunk.length)
  }
  expect(await promise).toBe('early')
})

test('a tool that does not read holds the device back', async () => {
  await using one = await open()
  const offer = offered(one.tunnel)
  const socket = await connected(one.port)
  socket.pause()
  const stream = (await offer).accept(Buffer.from('{"v":1}'))
  const piece = Buffer.alloc(64 * 1024)
  const total = 64 * 1024 * 1024
  let sent = 0
  const pump = (): void => {
    while (sent < total) {
      sent += piece.length
      if (!stream.write(piece)) return
    }
    stream.end()
  }
  stream.onDrain = pump
  pump()
  await new Promise((resolve) => setTimeout(resolve, 500))
  const stalled = sent
  expect(stalled).toBeLessThan(32 * 1024 * 1024)
  let received = 0
  socket.on('data', (chunk: Buffer) => (received += chunk.length))
  socket.resume()
  await once(socket, 'end')
  expect(received).toBe(total)
  expect(sent).toBe(total)
})

test('a refused connection is reset, and told with code, sentence, next step and id', async () => {
  await using one = await open()
  const offer = offered(one.tunnel)
  const socket = await connected(one.port)
  const closed = new Promise<boolean>((resolve) => socket.once('close', resolve))
  const message = {
    code: 'process.mismatch',
    msg: 'not the approved process',
    remedy: 'attest',
    decision_id: 'd_1',
  }
  ;(await offer).refuse('process.mismatch', JSON.stringify(message))
  expect(await closed).toBe(true)
  expect(await seen('refused')).toMatchObject({
    reason: {
      code: 'process.mismatch',
      message: 'not the approved process',
      next: 'attest',
      id: 'd_1',
    },
  })
})

test('a tool that leaves takes its stream with it', async () => {
  await using one = await open()
  const offer = offered(one.tunnel)
  const socket = await connected(one.port)
  const stream = (await offer).accept(Buffer.from('{"v":1}'))
  const gone = new Promise((resolve) => {
    stream.onClose = resolve
  })
  socket.resetAndDestroy()
  expect(await gone).toMatchObject({ code: 'client.gone' })
})

test('an announced end is the reason of everything that follows', async () => {
  await using one = await open()
  const offer = offered(one.tunnel)
  const socket = await connected(one.port)
  const closed = new Promise<boolean>((resolve) => socket.once('close', resolve))
  const stream: TunnelStream = (await offer).accept(Buffer.from('{"v":1}'))
  stream.signal(Buffer.from('{"t":"countdown","remaining_ms":3000}'))
  const told = { t: 'ending', code: 'grant.revoked', msg: 'work order withdrawn' }
  const more = { next_step: 'Call the plant.', decision_id: 'd_7' }
  stream.signal(Buffer.from(JSON.stringify({ ...told, ...more })))
  expect(await seen('ending')).toMatchObject({ reason: { code: 'grant.revoked' } })
  stream.reset('grant.revoked')
  one.tunnel.close('grant.revoked')
  expect(await one.forward.ended).toMatchObject({
    code: 'grant.revoked',
    message: 'work order withdrawn',
    next: 'Call the plant.',
    id: 'd_7',
  })
  expect(one.forward.announced()).toBe(true)
  expect(await closed).toBe(true)
  expect(await seen('countdown')).toMatchObject({ remaining_ms: 3000 })
  await expect(connected(one.port)).rejects.toThrow(/ECONNREFUSED/)
})

test('an end that is told elsewhere ends here too, streams and all', async () => {
  await using one = await open()
  const offer = offered(one.tunnel)
  const socket = await connected(one.port)
  const closed = new Promise<boolean>((resolve) => socket.once('close', resolve))
  ;(await offer).accept(Buffer.from('{"v":1}'))
  one.forward.end({ code: 'killed', message: 'the gateway has ended the session' })
  one.forward.end({ code: 'second', message: 'too late' })
  expect(await one.forward.ended).toMatchObject({ code: 'killed' })
  expect(await closed).toBe(true)
  expect(news.filter(({ event }) => event === 'ending')).toHaveLength(1)
})

test('a session whose time is over ends, though the gateway says nothing', async () => {
  await using one = await open(100)
  expect(await one.forward.ended).toMatchObject({ code: 'window_end' })
})

test('signals that are not what they should be change nothing', async () => {
  await using one = await open()
  const offer = offered(one.tunnel)
  await connected(one.port)
  const stream = (await offer).accept(Buffer.from('{"v":1}'))
  for (const text of [
    '',
    'null',
    '[]',
    '{"t":"ending"',
    '{"t":"countdown","remaining_ms":"3"}',
    '\u0000\u00ff',
  ])
    stream.signal(Buffer.from(text))
  stream.signal(Buffer.from('{"t":"countdown","remaining_ms":7}'))
  expect(await seen('countdown')).toMatchObject({ remaining_ms: 7 })
  expect(one.forward.announced()).toBe(false)
})

test('a lost connection is an end with its own code', async () => {
  const accepted = gateway.tunnel()
  const forward = await openForward({
    gateway: { host: 'localhost', port: gateway.port },
    anchor: gateway.anchor,
    session: { id: `s_${'0'.repeat(26)}`, secret, remaining_ms: 60_000 },
    listen: await holdPort({ host: '127.0.0.1', port: 0 }),
    instance: 'test',
    news: () => {},
  })
  const { socket } = await accepted
  socket.destroy()
  expect((await forward.ended).code).toMatch(/^(peer\.lost|carrier\.failed)$/)
})

test.for([
  ['another root', () => ({ anchor: OTHER_ROOT }), 'gateway.untrusted'],
  ['nobody there', () => ({ gateway: { host: '127.0.0.1', port: 1 } }), 'gateway.unreachable'],
] as const)('%s is told apart', async ([, change, code]) => {
  const held = await holdPort({ host: '127.0.0.1', port: 0 })
  const options = {
    gateway: { host: 'localhost', port: gateway.port },
    anchor: gateway.anchor,
    session: { id: `s_${'0'.repeat(26)}`, secret, remaining_ms: 60_000 },
    listen: held,
    instance: 'test',
    news: () => {},
  }
  await expect(openForward({ ...options, ...change() })).rejects.toMatchObject({
    code,
    exit: 'unreachable',
  })
  held.close()
})

test('no more than 64 wait for the session, and nobody is left hanging where none comes', async () => {
  const port = await freePort()
  const held = await holdPort({ host: '127.0.0.1', port, transport: 'tcp' })
  const closed = { count: 0 }
  for (let each = 0; each < 70; each++) {
    const one = await connected(port)
    one
      .on('end', () => one.end())
      .on('close', () => closed.count++)
      .resume()
  }
  await until('those beyond 64 are closed', () => closed.count === 6)
  held.close()
  await until('and the others with the port', () => closed.count === 70)
})

const { makeRoot } = await import('../demo/certificates.ts')
const OTHER_ROOT = (await makeRoot('another root')).certificate.toString('pem')

test('a thousand connections at once wait their turn; what is beyond is refused at once', () => {
  const pace = new Pace()
  const waits = Array.from({ length: 1200 }, () => pace.next(5000))
  expect(waits.slice(0, 100)).toEqual(Array.from({ length: 100 }, () => 0))
  expect(waits.slice(100, 104)).toEqual([20, 40, 60, 80])
  expect(waits.lastIndexOf(1024 * 20)).toBe(1123)
  expect(waits[1124]).toBeUndefined()
  // Waiting is over, then half the allowance is back.
  expect(pace.next(5000 + 1024 * 20 + 1000)).toBe(0)
  expect(Array.from({ length: 60 }, () => pace.next(26_480)).filter((ms) => ms === 0)).toHaveLength(
    49,
  )
})

test('a gateway that finds the opening too fast is asked again, and the tool notices nothing', async () => {
  await using one = await open()
  let asked = 0
  one.tunnel.onOpen = (offer) => {
    if (++asked === 1) return offer.refuse('tunnel.pace', 'try again in a second')
    const stream = offer.accept(Buffer.from('{"v":1}'))
    stream.write(Buffer.from('welcome'))
    stream.end()
  }
  const socket = await connected(one.port)
  expect(await readAll(socket)).toBe('welcome')
  expect(asked).toBe(2)
})
