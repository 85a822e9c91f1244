/** WebSocket, and any other protocol behind a request, to a web app on a device: who may, what passes, how it ends. */
import { once } from 'node:events'
import { createServer, ServerResponse, type IncomingMessage } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { duplexPair } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { WebSocket, WebSocketServer, type ClientOptions } from 'ws'
import type { OpenedSession, Problem } from '#api'
import { Openings } from '../../../../gateway/access/openings.ts'
import { carryUpgrade, takeSocket, upgradeToken } from '../../../../gateway/access/upgrade.ts'
import { dial, soon, until } from '../../../support/node.ts'
import { oblige } from '../../../support/policy.ts'
import { hostOf, WebApp } from './web-app.ts'

const MiB = 1024 * 1024

const sockets = new WebSocketServer({ noServer: true, maxPayload: 64 * MiB })
/** What the app does with a WebSocket; each test says. */
let onSocket: (socket: WebSocket, request: IncomingMessage) => void

let web: WebApp
beforeAll(async () => {
  web = await WebApp.start()
  web.hmi.on('upgrade', (request, socket, head) =>
    sockets.handleUpgrade(request, socket, head, (one) => onSocket(one, request)),
  )
})
afterAll(() => web[Symbol.asyncDispose]())
beforeEach(() => {
  web.reset()
  onSocket = (socket) =>
    socket.on('message', (data: Buffer, binary) => socket.send(data, { binary }))
})

const originOf = (process: string) => `https://${hostOf(process)}:${web.node.port}`

interface Entered {
  readonly session: OpenedSession
  readonly cookie: string
}

/** A session and the browser's cookie for it; with the test it ends, and then nothing is open. */
async function enter(process = 'hmi'): Promise<Entered> {
  onTestFinished(() => web.nothingOpen())
  return await web.enter(process)
}

/** A WebSocket as a browser opens it, before anything was answered. */
function browse(
  cookie: string,
  { process = 'hmi', origin = originOf(process), protocols = [] as string[] } = {},
): WebSocket {
  const options: ClientOptions & { readonly servername: string } = {
    ca: web.node.anchor,
    servername: hostOf(process),
    headers: { host: `${hostOf(process)}:${web.node.port}`, cookie, origin },
    maxPayload: 64 * MiB,
  }
  const socket = new WebSocket(`wss://127.0.0.1:${web.node.port}/live?x=1`, protocols, options)
  socket.on('error', () => {})
  onTestFinished(() => socket.terminate())
  return socket
}

async function opened(socket: WebSocket): Promise<WebSocket> {
  await soon('the WebSocket opens', once(socket, 'open'))
  return socket
}

/** As many connections of whoever asks wait for their turn as may, until the test is over. */
function crowded(): void {
  const turn = vi.spyOn(Openings.prototype, 'turn').mockResolvedValue('full')
  onTestFinished(() => turn.mockRestore())
}

/** Status and code with which an upgrade was refused. */
async function refused(socket: WebSocket): Promise<[number, string]> {
  const { promise, resolve } = Promise.withResolvers<IncomingMessage>()
  socket.on('unexpected-response', (_request, answer: IncomingMessage) => resolve(answer))
  const answer = await soon('a refusal', promise)
  let text = ''
  for await (const chunk of answer.setEncoding('utf8')) text += String(chunk)
  const code = text.startsWith('{') ? (JSON.parse(text) as Problem).code : text
  return [answer.statusCode ?? 0, code]
}

const asking = (process: string, cookie: string, more = '') =>
  `GET /x HTTP/1.1\r\nHost: ${hostOf(process)}\r\nCookie: ${cookie}\r\nConnection: Upgrade\r\n` +
  `Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${more}\r\n`

interface Talk {
  readonly socket: TLSSocket
  text: string
  readonly closed: Promise<unknown>
}
/** Bytes as they are, to one app. */
async function talk(process: string, text: string): Promise<Talk> {
  const socket = await dial(web.node, {
    servername: hostOf(process),
    ALPNProtocols: ['http/1.1'],
  })
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()))
  const one: Talk = { socket, text: '', closed }
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => (one.text += chunk.toString('latin1')))
  onTestFinished(() => void socket.destroy())
  socket.write(text, 'latin1')
  return one
}

const SWITCHED =
  'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
/** The app on a bare socket answers each request head with `answer`, then does `then` with the rest. */
function answering(answer: string, then: (socket: Socket, heard: () => string) => void = () => {}) {
  const got = { text: '', connections: 0, gone: 0 }
  web.onWire = (socket) => {
    let head = true
    got.connections++
    socket.on('close', () => got.gone++)
    socket.on('data', (chunk: Buffer) => {
      got.text += chunk.toString('latin1')
      if (!head || !got.text.includes('\r\n\r\n')) return
      head = false
      socket.write(answer, 'latin1')
      then(socket, () => got.text.slice(got.text.indexOf('\r\n\r\n') + 4))
    })
    socket.on('end', () => socket.end())
  }
  return got
}

describe('a WebSocket', () => {
  test('goes through with its subprotocol and its address, and never shows our cookie', async () => {
    const { cookie, session } = await enter()
    let asked: IncomingMessage | undefined
    const echo = onSocket
    onSocket = (socket, request) => {
      asked = request
      echo(socket, request)
    }
    const from = web.node.size()
    const socket = await opened(browse(`${cookie}; own=1`, { protocols: ['hmi.v2', 'hmi.v1'] }))
    socket.send('hello')
    const [data] = (await soon('an echo', once(socket, 'message'))) as [Buffer]
    expect([data.toString(), socket.protocol]).toEqual(['hello', 'hmi.v2'])
    expect([asked?.url, asked?.headers.cookie, asked?.headers.origin]).toEqual([
      '/live?x=1',
      'own=1',
      originOf('hmi'),
    ])
    const events = web.node.events(from).filter(({ code }) => code === 'http.request')
    expect(events.map(({ message }) => message)).toEqual(['GET forwarded'])
    socket.close(4000, 'done')
    const [code] = (await soon('the close', once(socket, 'close'))) as [number]
    expect(code).toBe(4000)
    await until('its bytes are counted', async () => {
      const { bytes_in, bytes_out } = await web.vendor.ask<{ bytes_in: number; bytes_out: number }>(
        'GET',
        `/sessions/${session.id}`,
      )
      return bytes_in > 100 && bytes_out > 100
    })
  })

  test('frames of 64 KiB, and of 5 MiB, both ways at once', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000 })
    const { cookie } = await enter()
    const socket = await opened(browse(cookie))
    const frames = [64 * 1024, 64 * 1024 + 1, 5 * MiB].map((size) => randomBytes(size))
    const back: Buffer[] = []
    socket.on('message', (data: Buffer) => back.push(data))
    for (const frame of frames) socket.send(frame)
    await until('all came back', () => back.length === frames.length)
    expect(back.map((frame, at) => frame.equals(frames[at] ?? frame))).toEqual([true, true, true])
  })

  test('a browser that does not read holds the app back', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000 })
    const { cookie } = await enter()
    let app: WebSocket | undefined
    onSocket = (socket) => (app = socket)
    const socket = await opened(browse(cookie))
    socket.pause()
    for (let n = 0; n < 64; n++) app?.send(Buffer.alloc(MiB))
    await until('some has left', () => (app?.bufferedAmount ?? 0) < 63 * MiB)
    const waiting = app?.bufferedAmount ?? 0
    expect(waiting).toBeGreaterThan(16 * MiB)
  })

  test('the app hangs up: the browser is told', async () => {
    const { cookie } = await enter()
    onSocket = (socket) => socket.terminate()
    const socket = browse(cookie)
    const [code] = (await soon('the close', once(socket, 'close'))) as [number]
    expect(code).toBe(1006)
  })

  test('the browser goes: the app is told', async () => {
    const { cookie } = await enter()
    let gone = false
    onSocket = (socket) => socket.on('close', () => (gone = true))
    const socket = await opened(browse(cookie))
    socket.terminate()
    await until('the app is told', () => gone)
    await web.nothingOpen()
  })

  test('the session is cut in the middle: both sides see the end', async () => {
    const { cookie, session } = await enter()
    let gone = false
    onSocket = (socket) => {
      socket.on('close', () => (gone = true))
      const timer = setInterval(() => socket.send('tick'), 5)
      socket.on('close', () => clearInterval(timer))
    }
    const socket = await opened(browse(cookie))
    await once(socket, 'message')
    const closed = once(socket, 'close')
    await web.node.admin.ask('POST', `/sessions/${session.id}/cut`, { reason: 'enough' })
    const [code] = (await soon('the browser is cut off', closed)) as [number]
    expect(code).toBe(1006)
    await until('the app is cut off', () => gone)
    expect(await refused(browse(cookie))).toEqual([401, 'app.cookie'])
  })

  test('more than the grant allows to be carried ends it', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000, max_bytes: MiB })
    const { cookie } = await enter()
    const socket = await opened(browse(cookie))
    const closed = once(socket, 'close')
    for (let n = 0; n < 32; n++) socket.send(Buffer.alloc(64 * 1024))
    await soon('the end', closed)
  })

  test('a hundred at once: as many as the session allows, the others are told so', async () => {
    oblige({ max_streams: 5 })
    const { cookie } = await enter()
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, async () => {
        const socket = browse(cookie)
        return await Promise.race([
          once(socket, 'open').then(() => 'open'),
          refused(socket).then(([status, code]) => `${status} ${code}`),
        ])
      }),
    )
    expect(outcomes.filter((one) => one === 'open')).toHaveLength(5)
    expect(new Set(outcomes)).toEqual(new Set(['open', '429 session.limit']))
  })
})

test('where as many of their connections wait as may, neither a page nor a socket has one more', async () => {
  const { cookie } = await enter()
  crowded()
  expect(await refused(browse(cookie))).toEqual([429, 'session.limit'])
  const page = await web.ask('/', { headers: { cookie } })
  expect([page.status, page.text]).toEqual([429, expect.stringContaining('session.limit')])
})

describe('nobody is upgraded', () => {
  test.for([
    { name: 'without a cookie', cookie: '' },
    { name: 'with a guessed cookie', cookie: '__Host-sallyport-app=AAAA' },
  ])('$name', async ({ cookie }) => {
    const before = web.agent.opened.length
    expect(await refused(browse(cookie))).toEqual([401, 'app.cookie'])
    expect(web.agent.opened.length).toBe(before)
  })

  test.for([
    { name: 'for another site', origin: 'https://evil.example' },
    { name: 'for a sibling app', origin: 'https://wire--press-07.apps.localhost' },
    { name: 'for nobody in particular', origin: 'null' },
  ])('$name', async ({ origin }) => {
    const { cookie } = await enter()
    const before = web.agent.opened.length
    expect(await refused(browse(cookie, { origin }))).toEqual([403, 'app.foreign'])
    expect(web.agent.opened.length).toBe(before)
  })

  test('with the cookie of another app', async () => {
    const { cookie } = await enter('hmi')
    const socket = browse(cookie, { process: 'wire' })
    expect(await refused(socket)).toEqual([401, 'app.cookie'])
  })

  test('where policy forbids the request', async () => {
    const { cookie } = await enter()
    oblige({ methods: ['POST'] })
    expect(await refused(browse(cookie))).toEqual([403, 'policy.denied'])
  })

  const bent: readonly { readonly name: string; readonly head: string }[] = [
    { name: 'to HTTP/2, which would hide requests', head: 'GET /x HTTP/1.1\r\nUpgrade: h2c\r\n' },
    { name: 'to HTTP again', head: 'GET /x HTTP/1.1\r\nUpgrade: HTTP/2.0\r\n' },
    { name: 'to TLS', head: 'GET /x HTTP/1.1\r\nUpgrade: TLS/1.2\r\n' },
    { name: 'to a choice', head: 'GET /x HTTP/1.1\r\nUpgrade: websocket, h2c\r\n' },
    {
      name: 'twice',
      head: 'GET /x HTTP/1.1\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n',
    },
    { name: 'by POST', head: 'POST /x HTTP/1.1\r\nUpgrade: websocket\r\n' },
    {
      name: 'with a body',
      head: 'GET /x HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 5\r\n',
    },
    {
      name: 'with a body in chunks',
      head: 'GET /x HTTP/1.1\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n',
    },
  ]
  test.for(bent)('$name', async ({ head }) => {
    const { cookie } = await enter('wire')
    const got = answering(SWITCHED)
    const host = hostOf('wire')
    const one = await talk(
      'wire',
      `${head}Connection: Upgrade\r\nHost: ${host}\r\nCookie: ${cookie}\r\n\r\nhello`,
    )
    await soon('the connection closes', one.closed)
    expect(one.text).toMatch(/^HTTP\/1\.1 400 /)
    expect(got.connections).toBe(0)
  })
})

describe('what the app answers to an upgrade', () => {
  test.for([200, 403, 426])('%i is an answer like any other, and ends it', async (status) => {
    const { cookie } = await enter('wire')
    const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n'
    const got = answering(`HTTP/1.1 ${status} So\r\ncontent-length: 2\r\nx-app: 1\r\n\r\nno`)
    const one = await talk('wire', asking('wire', cookie) + smuggled)
    await soon('the connection closes', one.closed)
    expect(one.text).toMatch(new RegExp(`^HTTP/1\\.1 ${status} So\r\n[^]*x-app: 1[^]*\r\n\r\nno$`))
    // What came behind the head is nobody's request: not the gateway's, not the app's.
    expect(one.text.match(/HTTP\/1\.1/g)).toHaveLength(1)
    expect(got.text).not.toContain('/smuggled')
    await web.nothingOpen()
  })

  test.for([
    {
      name: '101 to another protocol',
      answer: 'HTTP/1.1 101 So\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n',
    },
    { name: '101 to no protocol', answer: 'HTTP/1.1 101 So\r\n\r\n' },
    { name: 'what is not HTTP', answer: 'SSH-2.0-OpenSSH\r\n\r\n' },
  ])('$name is no switch', async ({ answer }) => {
    const { cookie } = await enter('wire')
    answering(answer, (socket) => socket.end())
    const one = await talk('wire', `${asking('wire', cookie)}early`)
    await soon('the connection closes', one.closed)
    expect(one.text).toMatch(/^HTTP\/1\.1 502 /)
    expect(one.text).not.toContain('101')
    await web.nothingOpen()
  })

  test('bytes at once behind the 101 arrive, and so do those at once behind the request, once', async () => {
    const { cookie } = await enter('wire')
    const garbage = '\0\xffnot a frame\r\n\r\nHTTP/1.1 200 OK\r\n\r\n'
    const got = answering(SWITCHED + garbage)
    const early = 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n'
    const one = await talk('wire', asking('wire', cookie) + early)
    await until('both have it', () => one.text.endsWith(garbage) && got.text.endsWith(early))
    expect(one.text).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/)
    expect(got.text.indexOf('\r\n\r\n') + 4).toBe(got.text.length - early.length)
    expect(got.connections).toBe(1)
    one.socket.destroy()
    await web.nothingOpen()
  })

  test('nothing while the browser leaves: the app is let go', async () => {
    const { cookie } = await enter('wire')
    const got = answering('')
    const one = await talk('wire', asking('wire', cookie))
    await until('the app has the request', () => got.text.includes('\r\n\r\n'))
    one.socket.destroy()
    await until('the app is let go', () => got.gone === 1)
    await web.nothingOpen()
  })

  test('nothing while the browser sends on: it is made to wait', async () => {
    const { cookie } = await enter('wire')
    const got = answering('')
    const one = await talk('wire', asking('wire', cookie))
    await until('the app has the request', () => got.text.includes('\r\n\r\n'))
    const asked = got.text.length
    for (let n = 0; n < 64; n++) one.socket.write(Buffer.alloc(MiB))
    await new Promise((done) => setTimeout(done, 200))
    expect(one.socket.writableLength).toBeGreaterThan(16 * MiB)
    expect(got.text.length).toBe(asked)
    one.socket.destroy()
  })

  test('the session is cut before the app has answered', async () => {
    const { cookie, session } = await enter('wire')
    const got = answering('')
    const one = await talk('wire', asking('wire', cookie))
    await until('the app has the request', () => got.text.includes('\r\n\r\n'))
    await web.node.admin.ask('POST', `/sessions/${session.id}/cut`, { reason: 'enough' })
    await soon('the browser hears of it', one.closed)
    expect(one.text).not.toContain('101')
    await until('the app is let go', () => got.gone === 1)
  })

  test('a browser that has said all it has to say: the app hears all of it, and the end', async () => {
    const { cookie } = await enter('wire')
    const got = answering(SWITCHED)
    const one = await talk('wire', asking('wire', cookie))
    await until('it has switched', () => one.text.startsWith('HTTP/1.1 101'))
    one.socket.end('the last word')
    await until('the app has ended too', () => got.gone === 1)
    expect(got.text.endsWith('the last word')).toBe(true)
    await soon('the connection closes', one.closed)
    await web.nothingOpen()
  })
})

test('an app that never answers has its time, and no more', async () => {
  const [target, app] = duplexPair()
  app.resume()
  const front = createServer()
  const outcome = new Promise<unknown>((resolve) => {
    front.on('upgrade', (request, raw, head) => {
      const socket = raw as TLSSocket
      const response = new ServerResponse(request)
      takeSocket(response, socket)
      const token = upgradeToken(request)
      carryUpgrade({ request, response, socket, head, token, target, patienceMs: 20 }).then(
        resolve,
        resolve,
      )
    })
  })
  front.listen(0, '127.0.0.1')
  await once(front, 'listening')
  const client = connect((front.address() as AddressInfo).port, '127.0.0.1')
  client.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
  expect(await soon('the time is over', outcome)).toMatchObject({ code: 'UND_ERR_HEADERS_TIMEOUT' })
  expect(target.destroyed).toBe(true)
  client.destroy()
  front.close()
})
