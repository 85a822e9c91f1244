/** The one port against everything that is not its protocol: it answers precisely or closes, and goes on serving. */
import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { driveTunnel, memoryPair, type Goaway } from '#tunnel'
import {
  dial,
  grantFor,
  openSession,
  send,
  soon,
  startNode,
  until,
  type TestNode,
} from '../../support/node.ts'
import { attach, Client, expecting, PLC, seen } from '../../support/tunnels.ts'
import { makeCertificates } from '../identity/house.ts'

let node: TestNode

beforeAll(async () => {
  node = await startNode()
  await node.device('press-07', { plc: expecting() })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
})
afterEach(async () => {
  // Whatever was done to the port, it serves the next one, and nothing was left behind.
  expect((await send(node, { method: 'GET', path: '/api/v1/info' })).status).toBe(200)
  expect(await node.health()).toMatchObject({ devices: 0, sessions: 0 })
})

const TUNNEL = { ALPNProtocols: ['sallyport/1'] }

async function tcp(): Promise<Socket> {
  const socket = connectTcp(node.port, '127.0.0.1')
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  return socket
}
async function tunnelSocket(options: ConnectionOptions = TUNNEL): Promise<TLSSocket> {
  const socket = await dial(node, options)
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  return socket
}
/** Everything that comes until the other side closes. */
async function rest(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  const closed = new Promise((resolve) => socket.once('close', resolve))
  await soon('the gateway closes', closed)
  return Buffer.concat(chunks)
}
function frame(type: number, stream: number, payload: Uint8Array, length = payload.length): Buffer {
  const head = Buffer.from([type, length >> 16, length >> 8, length, 0, 0, 0, 0])
  head.writeUInt32BE(stream, 4)
  return Buffer.concat([head, payload])
}

/** The HELLO of a real client, as bytes. */
async function helloBytes(role: 'agent' | 'client' | 'gateway' = 'client'): Promise<Buffer> {
  const [near, far] = memoryPair()
  const options = { role, side: 'dialler', instance: 'x', epoch: 1 } as const
  driveTunnel(near, options).catch(() => {})
  const [bytes] = (await once(far, 'data')) as [Buffer]
  far.destroy()
  near.destroy()
  return bytes
}

describe('before TLS', () => {
  test.for([
    { name: 'HTTP without TLS', bytes: Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n') },
    { name: 'SSH', bytes: Buffer.from('SSH-2.0-OpenSSH_9.6\r\n') },
    {
      name: 'noise',
      bytes: Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * 131) & 255)),
    },
    { name: 'zeros', bytes: Buffer.alloc(100_000) },
    {
      name: 'a TLS record of no known type',
      bytes: Buffer.from([0x63, 3, 1, 0, 5, 1, 2, 3, 4, 5]),
    },
    {
      name: 'a ClientHello that is too long',
      bytes: Buffer.from([22, 3, 1, 0xff, 0xff, ...Array<number>(65_535).fill(1)]),
    },
  ])('$name', async ({ bytes }) => {
    const socket = await tcp()
    const over = rest(socket)
    socket.write(bytes)
    const reply = await over
    // An alert at most, never a banner.
    expect(reply.length).toBeLessThan(64)
    expect(reply.toString('latin1')).not.toMatch(/HTTP|sallyport/i)
  })

  test('half a ClientHello, and then nothing: it waits, and others do not', async () => {
    const socket = await tcp()
    socket.write(Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 0xfc]))
    expect((await send(node, { method: 'GET', path: '/api/v1/info' })).status).toBe(200)
  })

  test('a thousand connections that say nothing', async () => {
    const sockets = await Promise.all(Array.from({ length: 1000 }, () => tcp()))
    expect((await send(node, { method: 'GET', path: '/api/v1/info' })).status).toBe(200)
    for (const socket of sockets) socket.destroy()
  })
})

describe('TLS', () => {
  test('of a version before 1.2', async () => {
    await expect(dial(node, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1' })).rejects.toThrow()
  })

  test.for(['h2', 'sallyport/2', 'sallyport', 'x'.repeat(255)])(
    'with an ALPN that is not spoken here: %s',
    async (name) => {
      await expect(dial(node, { ALPNProtocols: [name] })).rejects.toThrow(
        /alpn|application protocol/i,
      )
    },
  )

  test('without ALPN it is HTTP', async () => {
    const socket = await tunnelSocket({})
    const over = rest(socket)
    socket.write('GET /api/v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
    expect((await over).toString()).toMatch(/^HTTP\/1\.1 200 /)
  })

  test('a client certificate that nobody asked for is no reason to refuse, nor to believe', async () => {
    // Self-signed by a stranger: an EST caller must be told by EST, not by a broken handshake.
    const { cert, key } = await makeCertificates()
    const answer = await send(node, { method: 'GET', path: '/api/v1/info', key, cert })
    expect(answer.status).toBe(200)
    const renewal = await send(node, {
      method: 'POST',
      path: '/.well-known/est/simplereenroll',
      headers: { 'content-type': 'application/pkcs10' },
      body: 'AAAA',
      key,
      cert,
    })
    expect(renewal.status).toBeGreaterThanOrEqual(400)
    expect(renewal.status).toBeLessThan(500)
  })
})

describe('in place of a tunnel', () => {
  test.for([
    { name: 'HTTP', bytes: Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n') },
    { name: 'TLS again', bytes: Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]) },
    { name: 'a frame that is not HELLO', bytes: frame(0x0b, 0, Buffer.alloc(8)) },
    { name: 'a HELLO on a stream', bytes: frame(0x01, 1, Buffer.alloc(64)) },
    { name: 'an empty HELLO', bytes: frame(0x01, 0, Buffer.alloc(0)) },
    { name: 'a HELLO of 1 MiB', bytes: frame(0x01, 0, Buffer.alloc(1_048_576)) },
    {
      name: 'noise',
      bytes: Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * 131) & 255)),
    },
  ])('$name', async ({ bytes }) => {
    const socket = await tunnelSocket()
    const over = rest(socket)
    socket.write(bytes)
    await over
  })

  test('a HELLO that never ends', async () => {
    const socket = await tunnelSocket()
    const over = rest(socket)
    // Announces 1,000 octets and sends one every 50 ms: only the time for it can end this.
    socket.write(frame(0x01, 0, Buffer.alloc(0), 1000))
    const drip = setInterval(() => socket.write(Buffer.alloc(1)), 50)
    onTestFinished(() => clearInterval(drip))
    await over
  })

  test('a HELLO of a role that does not dial', async () => {
    const socket = await tunnelSocket()
    const over = rest(socket)
    socket.write(await helloBytes('gateway'))
    expect((await over).toString('latin1')).toContain('peer.role')
  })

  test.for([
    { name: 'an unknown type', bytes: frame(0x7f, 0, Buffer.alloc(4)), code: 'frame.type' },
    { name: 'DATA on no stream', bytes: frame(0x05, 1, Buffer.alloc(4)), code: 'stream.unknown' },
    {
      name: 'OPEN with our parity',
      bytes: frame(0x02, 2, Buffer.from([1])),
      code: 'stream.parity',
    },
    { name: 'OPEN on stream 0', bytes: frame(0x02, 0, Buffer.from([1])), code: 'frame.stream' },
    { name: 'a second HELLO', bytes: 'hello', code: 'hello.repeated' },
    {
      name: 'metadata of 1 MiB',
      bytes: frame(0x02, 1, Buffer.alloc(1_048_576)),
      code: 'frame.length',
    },
    {
      name: 'PONG that answers nothing',
      bytes: frame(0x0c, 0, Buffer.alloc(8)),
      code: 'ping.unsolicited',
    },
    { name: 'noise', bytes: Buffer.alloc(512, 0x42), code: 'frame.' },
  ])('after HELLO: $name', async ({ bytes, code }) => {
    const socket = await tunnelSocket()
    const over = rest(socket)
    const hello = await helloBytes()
    socket.write(hello)
    socket.write(bytes === 'hello' ? hello : (bytes as Buffer))
    expect((await over).toString('latin1')).toContain(code)
  })

  test('a frame that breaks off', async () => {
    const socket = await tunnelSocket()
    const over = rest(socket)
    socket.write(await helloBytes())
    socket.end(frame(0x02, 1, Buffer.alloc(10)).subarray(0, 12))
    await over
  })

  test('ten thousand streams opened only to be reset', async () => {
    await using client = await Client.dial(node)
    let closed = false
    void client.tunnel.closed.then(() => (closed = true))
    for (let at = 0; at < 10_000 && !closed; at++) {
      const stop = new AbortController()
      client.tunnel.open('tcp', new Uint8Array(), { signal: stop.signal }).catch(() => {})
      stop.abort()
      if (at % 500 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await until('the gateway has had enough', () => closed)
    expect((await client.tunnel.closed).code).toMatch(/^rate\./)
  })
})

describe('HTTP', () => {
  test.for([
    { name: 'noise', text: '\0\0\0\0\r\n\r\n', status: 400 },
    { name: 'a method that is none', text: 'G\0T / HTTP/1.1\r\nHost: x\r\n\r\n', status: 400 },
    { name: 'no host', text: 'GET / HTTP/1.1\r\n\r\n', status: 400 },
    { name: 'two hosts', text: 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', status: 400 },
    { name: 'HTTP/2 without TLS’s word', text: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', status: 400 },
    {
      name: 'a head of 20 KiB',
      text: `GET / HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`,
      status: 431,
    },
    {
      name: 'length and chunked',
      text: 'POST /api/v1/bootstrap HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      status: 400,
    },
  ])('$name', async ({ text, status }) => {
    const socket = await tunnelSocket({ ALPNProtocols: ['http/1.1'] })
    const over = rest(socket)
    socket.write(text)
    expect((await over).toString('latin1')).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
  })

  const key = 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n'
  const ours = 'Sec-WebSocket-Protocol: sallyport.1\r\n'
  test.for([
    { name: 'elsewhere', path: '/tunnels', host: 'localhost', more: `${key}${ours}`, status: 404 },
    {
      name: 'at an app, by nobody',
      path: '/tunnel',
      host: 'a--b.apps.localhost',
      more: `${key}${ours}`,
      status: 401,
    },
    {
      name: 'with a body in chunks, for which Node has no socket',
      path: '/tunnel',
      host: 'localhost',
      more: `${key}${ours}Transfer-Encoding: chunked\r\n`,
      status: 400,
    },
    {
      name: 'from a page',
      path: '/tunnel',
      host: 'localhost',
      more: `${key}${ours}Origin: https://evil.example\r\n`,
      status: 403,
    },
    {
      name: 'of two hosts',
      path: '/tunnel',
      host: 'localhost\r\nHost: b',
      more: `${key}${ours}`,
      status: 400,
    },
    { name: 'without a key', path: '/tunnel', host: 'localhost', more: ours, status: 400 },
    {
      name: 'by POST',
      method: 'POST',
      path: '/tunnel',
      host: 'localhost',
      more: `${key}${ours}`,
      status: 400,
    },
  ])(
    'an upgrade $name is answered $status',
    async ({ method = 'GET', path, host, more, status }) => {
      const socket = await tunnelSocket({ ALPNProtocols: ['http/1.1'] })
      const over = rest(socket)
      socket.write(
        `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${more}\r\n`,
      )
      expect((await over).toString('latin1')).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    },
  )

  test('what asks for a tunnel in WebSocket and then speaks otherwise is cut off', async () => {
    const socket = await tunnelSocket({ ALPNProtocols: ['http/1.1'] })
    const over = rest(socket)
    socket.write(
      `GET /tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${key}${ours}\r\n`,
    )
    // A masked binary message that is not HELLO.
    socket.write(Buffer.concat([Buffer.from([0x82, 0x88, 0, 0, 0, 0]), Buffer.from('GET / HT')]))
    expect((await over).toString('latin1')).toMatch(/^HTTP\/1\.1 101 /)
  })

  test('an upgrade that nobody ends: the gateway does', async () => {
    // A peer that does not close when it is told the end, and goes on sending.
    const socket = await tunnelSocket({
      ALPNProtocols: ['http/1.1'],
      socket: connectTcp({ port: node.port, host: '127.0.0.1', allowHalfOpen: true }),
    })
    const gone = new Promise((resolve) => socket.once('error', resolve).once('close', resolve))
    let reply = ''
    socket.on('data', (chunk: Buffer) => (reply += chunk.toString('latin1')))
    socket.write(
      'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    )
    await until('the answer', () => reply.startsWith('HTTP/1.1 404 '))
    const pushing = setInterval(() => socket.write('x'), 20)
    onTestFinished(() => clearInterval(pushing))
    await soon('the gateway has closed it', gone)
  })

  test('a body that is announced and never comes does not hold others up', async () => {
    const sockets = await Promise.all(
      Array.from({ length: 50 }, () => tunnelSocket({ ALPNProtocols: ['http/1.1'] })),
    )
    for (const socket of sockets)
      socket.write(
        'POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n',
      )
    expect((await send(node, { method: 'GET', path: '/api/v1/info' })).status).toBe(200)
  })
})

test('a node that is told to stop does, with people and devices connected', async () => {
  const own = await startNode()
  try {
    const identity = await own.device('press-07', { plc: expecting() })
    const agent = await attach(own, identity)
    const client = await Client.dial(own)
    const idle = await dial(own, { ALPNProtocols: ['http/1.1'] })
    idle.on('error', () => {})
    await own.stop()
    expect((await soon('the device is told', agent.tunnel.closed)).code).toBe('node.stopping')
    await soon('the client is told', client.tunnel.closed)
    // Heads of the decision journal are recorded at their own moments, in between or behind.
    const codes = own.events().flatMap(({ code }) => (code === 'policy.decision' ? [] : [code]))
    expect(codes.slice(-3).toSorted()).toEqual(['log.close', 'node.stop', 'tunnel.down'])
    expect(own.events().at(-1)?.code).toBe('log.close')
  } finally {
    await own[Symbol.asyncDispose]()
  }
})

test('a node that may drain lets its sessions go on, tells devices where else to go, and takes nothing new', async () => {
  const own = await startNode({ config: 'drain_s: 60\nalternatives: ["gw2.plant.example:8443"]\n' })
  try {
    const identity = await own.device('press-07', { plc: expecting() })
    const operator = await own.person('otto', { party: 'staff', roles: ['operator'] })
    const vendor = await own.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
    await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
    const agent = await attach(own, identity, { listeners: { plc: seen(PLC, 'listener') } })
    const told = new Promise<Goaway>((resolve) => (agent.tunnel.onGoaway = resolve))
    const client = await Client.dial(own)
    const session = await openSession(vendor, 'press-07', 'plc')
    const line = await client.line(session)
    let over = false
    const stopped = own.stop().then(() => (over = true))
    expect(await soon('the device is told', told)).toMatchObject({
      code: 'node.draining',
      retryAfterMs: 1000,
      alternatives: ['gw2.plant.example:8443'],
    })
    line.write('still here')
    await line.until('the echo', ({ text }) => text === 'still here')
    await expect(client.stream(session)).rejects.toThrow()
    expect(over).toBe(false)
    await vendor.ask('POST', `/sessions/${session.id}/end`)
    await soon('the node stops', stopped)
    expect((await agent.tunnel.closed).code).toBe('node.stopping')
  } finally {
    await own[Symbol.asyncDispose]()
  }
})
