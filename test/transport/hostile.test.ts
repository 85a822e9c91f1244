/** Peers that ignore the protocol, on a real port: a precise error, once, and nothing left open. */
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import tls from 'node:tls'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { acceptWebSocket, ALPN, Budget, dialTls, driveTunnel, memoryPair, MuxError } from '#tunnel'
import type { Tunnel, TunnelOptions } from '#tunnel'
import { certificate, portOf, tlsServer } from './carriers.ts'

const options: TunnelOptions = { role: 'gateway', side: 'acceptor', instance: 'g', epoch: 1 }

describe('a tunnel port on TLS', () => {
  let server: tls.Server
  let outcomes: string[]
  let sockets: tls.TLSSocket[]
  /** Short where only that can end it. */
  let helloTimeoutMs: number
  beforeEach(async () => {
    helloTimeoutMs = 60_000
    outcomes = []
    sockets = []
    server = await tlsServer((socket) => {
      sockets.push(socket)
      driveTunnel(socket, { ...options, limits: { helloTimeoutMs } }).then(
        () => outcomes.push('tunnel'),
        (error: unknown) => outcomes.push(error instanceof MuxError ? error.code : String(error)),
      )
    })
  })
  afterEach(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })

  async function stranger(): Promise<tls.TLSSocket> {
    const { cert } = await certificate()
    const socket = tls.connect({
      host: '127.0.0.1',
      port: portOf(server),
      ca: cert,
      ALPNProtocols: [ALPN],
    })
    socket.on('error', () => undefined)
    socket.resume()
    await once(socket, 'secureConnect')
    return socket
  }

  const hello = Buffer.from(
    '0100002300000000000100010100001000000400000004000001000000000000000000000000000001' + '0161',
    'hex',
  )
  const rows: { name: string; sends: (socket: tls.TLSSocket) => void; code: string }[] = [
    { name: 'HTTP', sends: (s) => s.write('GET / HTTP/1.1\r\n\r\n'), code: 'hello.http' },
    {
      name: 'TLS in TLS',
      sends: (s) => s.write(Buffer.from('1603010200010001fc0303', 'hex')),
      code: 'hello.tls',
    },
    { name: 'garbage', sends: (s) => s.write(Buffer.alloc(100_000, 0xa5)), code: 'hello.missing' },
    { name: 'silence', sends: () => undefined, code: 'hello.timeout' },
    { name: 'an immediate end', sends: (s) => s.end(), code: 'hello.missing' },
    {
      name: 'half a HELLO and silence',
      sends: (s) => s.write(hello.subarray(0, 20)),
      code: 'hello.timeout',
    },
    {
      name: 'half a HELLO and the end',
      sends: (s) => s.end(hello.subarray(0, 20)),
      code: 'frame.truncated',
    },
    {
      name: 'a HELLO without end',
      sends: (s) => s.write(Buffer.from('01ffffff00000000', 'hex')),
      code: 'frame.length',
    },
    {
      name: 'a HELLO that drips',
      sends(socket) {
        let at = 0
        const timer = setInterval(() => {
          if (at >= 20 || socket.destroyed) clearInterval(timer)
          else socket.write(hello.subarray(at, ++at))
        }, 40)
      },
      code: 'hello.timeout',
    },
  ]
  test.for(rows)('$name: $code, then the connection is closed', async ({ sends, code }) => {
    if (code === 'hello.timeout') helloTimeoutMs = 300
    const socket = await stranger()
    sends(socket)
    await expect.poll(() => outcomes).toEqual([code])
    await expect.poll(() => sockets[0]?.destroyed).toBe(true)
  })

  test('a peer that had a tunnel and then sends garbage loses it, with the code', async () => {
    const { cert } = await certificate()
    const socket = await stranger()
    socket.write(hello)
    await expect.poll(() => outcomes).toEqual(['tunnel'])
    const good = await dialTls(
      { host: '127.0.0.1', port: portOf(server), ca: cert },
      { role: 'agent', instance: 'good', epoch: 1 },
    )
    const parts: Buffer[] = []
    socket.on('data', (part: Buffer) => parts.push(part))
    socket.write(Buffer.from('7f00000000000001', 'hex'))
    await expect.poll(() => Buffer.concat(parts).toString('latin1')).toContain('frame.type')
    await expect.poll(() => sockets[0]?.destroyed).toBe(true)
    // Nobody else noticed.
    expect(good.stats().streams).toBe(0)
    good.close('test.over')
    await good.closed
  })

  test('a server without our ALPN is carrier.failed for the dialler', async () => {
    const { key, cert } = await certificate()
    const web = tls.createServer({ key, cert, ALPNProtocols: ['http/1.1'] })
    web.on('tlsClientError', () => undefined)
    web.listen(0, '127.0.0.1')
    await once(web, 'listening')
    const dialling = dialTls(
      { host: '127.0.0.1', port: portOf(web), ca: cert },
      { role: 'agent', instance: 'a', epoch: 0 },
    )
    // OpenSSL refuses the handshake by itself where the server has an ALPN list without ours.
    await expect(dialling).rejects.toThrow()
    web.close()
  })

  test('a server that never finishes TLS does not hold the dialler', async () => {
    const mute = net.createServer((socket) => socket.on('error', () => undefined))
    mute.listen(0, '127.0.0.1')
    await once(mute, 'listening')
    const dialling = dialTls(
      { host: '127.0.0.1', port: portOf(mute) },
      { role: 'agent', instance: 'a', epoch: 0, limits: { helloTimeoutMs: 200 } },
    )
    await expect(dialling).rejects.toThrow()
    mute.close()
  })
})

describe('over memory', () => {
  async function pair(limits: object = {}): Promise<[Tunnel, Tunnel, () => void]> {
    const [a, b] = memoryPair()
    const tunnels = await Promise.all([
      driveTunnel(a, { ...options, side: 'dialler', role: 'agent', limits }),
      driveTunnel(b, { ...options, limits }),
    ])
    return [...tunnels, () => a.destroy()] as [Tunnel, Tunnel, () => void]
  }

  test('a cut cable ends streams and opens at both ends, each told why', async () => {
    const [one, two, cut] = await pair()
    two.onOpen = (offer) => void (offer.kind === 'tcp' && offer.accept(Buffer.alloc(0)))
    const stream = await one.open('tcp', Buffer.alloc(0))
    const closed = new Promise((resolve) => (stream.onClose = resolve))
    const waiting = one.open('relay', Buffer.alloc(0))
    cut()
    await expect(waiting).rejects.toMatchObject({ name: 'TunnelClosed' })
    expect(await closed).toMatchObject({ fault: 'remote' })
    expect((await two.closed).code).toBe('peer.lost')
    await one.closed
  })

  test('a peer that falls silent is dead after three intervals', async () => {
    const [a, b] = memoryPair()
    const limits = { keepaliveMs: [20, 30] } as const
    const driving = driveTunnel(a, { ...options, side: 'dialler', limits })
    // A peer that says HELLO and then nothing.
    b.resume()
    b.write(
      Buffer.from(
        '010000230000000000010001010000100000040000000400000100000000000000000000000000000101' +
          '61',
        'hex',
      ),
    )
    const tunnel = await driving
    expect(await tunnel.closed).toMatchObject({ code: 'peer.silent', fault: 'remote' })
  })

  test('tunnels that share a budget stay within it together', async () => {
    const budget = new Budget(300_000)
    const small = { maxWindow: 1 << 20, initialWindow: 32_768 }
    const joined = await Promise.all(
      [0, 1].map(async () => {
        const [a, b] = memoryPair()
        return Promise.all([
          driveTunnel(a, { ...options, side: 'dialler', limits: small }),
          driveTunnel(b, { ...options, limits: small, budget }),
        ])
      }),
    )
    for (const [one, two] of joined) {
      two.onOpen = (offer) => {
        const stream = offer.accept(Buffer.alloc(0))
        stream.onData = (chunk) => stream.consumed(chunk.length)
      }
      const stream = await one.open('tcp', Buffer.alloc(0))
      const fill = (): void => {
        while (stream.bytesOut < 3_000_000 && stream.write(Buffer.alloc(32_768)));
      }
      stream.onDrain = fill
      fill()
      await expect.poll(() => stream.bytesOut).toBeGreaterThan(2_900_000)
      expect(budget.used).toBeLessThanOrEqual(300_000)
    }
    for (const [one, two] of joined) {
      one.close('test.over')
      await two.closed
    }
    expect(budget.used).toBe(0)
  })

  test('a handler that resets in the middle of a chunk gets nothing more of that stream', async () => {
    const [one, two] = await pair()
    let calls = 0
    two.onOpen = (offer) => {
      const stream = offer.accept(Buffer.alloc(0))
      stream.onData = () => {
        calls++
        stream.reset('enough.now')
      }
    }
    const stream = await one.open('tcp', Buffer.alloc(0))
    const other = await one.open('tcp', Buffer.alloc(0))
    for (let at = 0; at < 5; at++) {
      stream.write(Buffer.from('x'))
      other.signal(Buffer.from('between'))
    }
    await new Promise((resolve) => (stream.onClose = resolve))
    expect(calls).toBe(1)
    one.close('test.over')
    await two.closed
  })
})

describe('WebSocket', () => {
  let server: http.Server
  let outcomes: string[]
  beforeEach(async () => {
    outcomes = []
    server = http.createServer()
    server.on('upgrade', (request, socket, head) => {
      acceptWebSocket({ request, socket, head }, options).then(
        () => outcomes.push('tunnel'),
        (error: unknown) => outcomes.push(error instanceof MuxError ? error.code : String(error)),
      )
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  })
  afterEach(() => {
    server.closeAllConnections()
    server.close()
  })

  test('a request that is no handshake is refused', async () => {
    const socket = net.connect(portOf(server), '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
    await expect.poll(() => outcomes).toEqual(['carrier.failed'])
    socket.destroy()
  })

  test('another subprotocol is refused', async () => {
    const ws = new WebSocket(`ws://127.0.0.1:${portOf(server)}/`, 'chat')
    ws.on('error', () => undefined)
    await expect.poll(() => outcomes).toEqual(['carrier.failed'])
  })

  test('a text message is carrier.text', async () => {
    const ws = new WebSocket(`ws://127.0.0.1:${portOf(server)}/`, 'sallyport.1')
    ws.on('error', () => undefined)
    await once(ws, 'open')
    const closed = once(ws, 'close')
    ws.send('hello')
    await closed
    await expect.poll(() => outcomes).toEqual(['carrier.text'])
  })
})
