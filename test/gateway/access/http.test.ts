/** Web apps behind a device: what a browser and what the app may do to each other through the gateway, and what not. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { request as httpsRequest } from 'node:https'
import {
  createServer as createTcpServer,
  type AddressInfo,
  type Server as TcpServer,
  type Socket,
} from 'node:net'
import type { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { Grant, OpenedSession, Problem, Session } from '#api'
import {
  dial,
  grantFor,
  openSession,
  soon,
  startNode,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { oblige } from '../../support/policy.ts'
import { attach, expecting, PLC, seen, toPort, type FakeAgent } from '../../support/tunnels.ts'

const COOKIE = '__Host-sallyport-app'
const MiB = 1024 * 1024

let node: TestNode
let vendor: Person
let identity: DeviceIdentity
let agent: FakeAgent
let hmi: Server
let wire: TcpServer
let grants: { readonly hmi: Grant; readonly wire: Grant }
/** What the app does with a request; each test says. */
let app: (request: IncomingMessage, response: ServerResponse) => void
/** What the app on a bare socket does with the bytes of a connection; each test says. */
let onWire: (socket: Socket) => void

beforeAll(async () => {
  node = await startNode()
  hmi = createServer((request, response) => app(request, response))
  hmi.on('clientError', (_error, socket) => socket.destroy())
  wire = createTcpServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    onWire(socket)
  })
  for (const server of [hmi, wire]) server.listen(0, '127.0.0.1')
  await Promise.all([once(hmi, 'listening'), once(wire, 'listening')])
  identity = await node.device('press-07', {
    hmi: expecting(PLC, 'http'),
    wire: expecting(PLC, 'http'),
  })
  const listener = seen(PLC, 'listener')
  ;[vendor, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    attach(node, identity, { listeners: { hmi: listener, wire: listener } }),
  ])
  const ports = { hmi, wire }
  agent.target = (stream, { process }) => {
    const { port } = ports[process as keyof typeof ports].address() as AddressInfo
    toPort(port)(stream)
  }
  grants = {
    hmi: await grantFor(vendor, node.admin, { device: 'press-07', process: 'hmi' }),
    wire: await grantFor(vendor, node.admin, { device: 'press-07', process: 'wire' }),
  }
})
afterAll(async () => {
  hmi.closeAllConnections()
  hmi.close()
  wire.close()
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})
beforeEach(() => {
  app = (_request, response) => response.end('hello')
  onWire = (socket) => socket.destroy()
})

interface Reply {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly raw: readonly string[]
  readonly text: string
  readonly trailers: NodeJS.Dict<string>
}

const hostOf = (process: string) => `${process}--press-07.apps.localhost`

interface Asked {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string | string[]>>
  readonly body?: string | Uint8Array
  readonly host?: string
}

/** One request as a browser would send it, on a connection of its own. */
async function ask(path: string, asked: Asked = {}): Promise<Reply> {
  const { method = 'GET', headers = {}, body, host = hostOf('hmi') } = asked
  const request = httpsRequest({
    host: '127.0.0.1',
    port: node.port,
    servername: host,
    ca: node.anchor,
    agent: false,
    method,
    path,
    headers: { host: `${host}:${node.port}`, ...headers },
  })
  request.end(body)
  const [response] = (await soon('an answer', once(request, 'response'))) as [IncomingMessage]
  const chunks: Buffer[] = []
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    raw: response.rawHeaders,
    text: Buffer.concat(chunks).toString(),
    trailers: response.trailers,
  }
}

/** A session and the browser's cookie for it; both end with the test. */
async function enter(process = 'hmi'): Promise<{ session: OpenedSession; cookie: string }> {
  const session = await openSession(vendor, 'press-07', process)
  onTestFinished(async () => void (await vendor.call('POST', `/sessions/${session.id}/end`)))
  return { session, cookie: await redeem(session) }
}
async function redeem({ url }: OpenedSession): Promise<string> {
  if (url === null) throw new Error('not a web process')
  const { pathname, search, hostname } = new URL(url)
  const entered = await ask(pathname + search, { host: hostname })
  expect([entered.status, entered.headers.location]).toEqual([303, '/'])
  const [line = ''] = entered.headers['set-cookie'] ?? []
  expect(line).toMatch(/; Path=\/; Secure; HttpOnly; SameSite=Lax$/)
  expect(line).not.toMatch(/domain/i)
  return line.split(';')[0] ?? ''
}

async function nothingOpen(): Promise<void> {
  await until('no stream is left on the device', () => agent.open() === 0)
}

/** Bytes as they are, to one app; gives the whole reply once the gateway has closed, or what `enough` says is enough. */
async function send(
  text: string,
  host: string,
  enough: (reply: string) => boolean = () => false,
): Promise<string> {
  const socket = await dial(node, { servername: host, ALPNProtocols: ['http/1.1'] })
  let reply = ''
  const closed = once(socket, 'close')
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    reply += chunk
    if (enough(reply)) socket.destroy()
  })
  socket.on('error', () => {})
  socket.write(text, 'latin1')
  await soon(`the connection closes; came: ${reply.slice(0, 300)}`, closed)
  return reply
}

/** What one request made arrive at the app's socket, which answers it and keeps the connection. */
function recording(answer = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'): {
  text: string
  connections: number
} {
  const got = { text: '', connections: 0 }
  onWire = (socket) => {
    got.connections++
    socket.on('data', (chunk: Buffer) => {
      got.text += chunk.toString('latin1')
      if (/\r\n\r\n/.test(got.text)) socket.write(answer, 'latin1')
    })
    socket.on('end', () => socket.end())
  }
  return got
}

const requestsIn = (text: string) => text.match(/^[A-Z]+ \S+ HTTP\/1\.1\r$/gm)?.length ?? 0

describe('signing in to an app', () => {
  test('a ticket opens it once', async () => {
    const { session } = await enter()
    const { pathname, search } = new URL(session.url ?? '')
    const again = await ask(pathname + search)
    expect(again.status).toBe(401)
    expect(JSON.parse(again.text)).toMatchObject({ code: 'app.ticket' })
    expect(again.headers['set-cookie']).toBeUndefined()
  })

  const bad: readonly {
    readonly name: string
    readonly ticket: string
    readonly method?: string
  }[] = [
    { name: 'no ticket', ticket: '' },
    { name: 'a guessed ticket', ticket: '?ticket=AAAA' },
    { name: 'a ticket of 10 KiB', ticket: `?ticket=${'A'.repeat(10_000)}` },
    { name: 'a ticket that is not UTF-8', ticket: '?ticket=%ff%fe' },
  ]
  test.for(bad)('$name', async ({ ticket }) => {
    const reply = await ask(`/.sallyport/enter${ticket}`)
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([401, 'app.ticket'])
  })

  test('a ticket that is posted, as a form elsewhere could', async () => {
    const session = await openSession(vendor, 'press-07', 'hmi')
    const { pathname, search } = new URL(session.url ?? '')
    expect((await ask(pathname + search, { method: 'POST' })).status).toBe(401)
    expect(await redeem(session)).toContain(COOKIE)
    await vendor.ask('POST', `/sessions/${session.id}/end`)
  })

  test('a ticket of one app at another', async () => {
    const session = await openSession(vendor, 'press-07', 'hmi')
    const { pathname, search } = new URL(session.url ?? '')
    const reply = await ask(pathname + search, { host: hostOf('wire') })
    expect([reply.status, reply.headers['set-cookie']]).toEqual([401, undefined])
    await vendor.ask('POST', `/sessions/${session.id}/end`)
  })

  test('the cookie of one app at another', async () => {
    const { cookie } = await enter('hmi')
    let reached = false
    onWire = () => (reached = true)
    const reply = await ask('/', { host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([401, 'app.cookie'])
    expect([reached, agent.open()]).toEqual([false, 0])
  })

  test.for([
    {
      name: 'a form of a sibling app',
      method: 'POST',
      headers: { origin: 'https://evil--press-07.apps.localhost' },
    },
    {
      name: 'a fetch of a sibling app',
      method: 'GET',
      headers: { 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'no-cors' },
    },
    {
      name: 'a form of a foreign site',
      method: 'POST',
      headers: { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' },
    },
  ])('$name, with the cookie that the browser adds', async ({ method, headers }) => {
    const { cookie } = await enter('hmi')
    const reply = await ask('/', { method, headers: { cookie, ...headers } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([403, 'app.foreign'])
  })

  test('a link into the app from elsewhere is followed', async () => {
    const { cookie } = await enter('hmi')
    const headers = { cookie, 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' }
    expect((await ask('/', { headers })).status).toBe(200)
  })

  const strangers: readonly { readonly name: string; readonly cookie: string }[] = [
    { name: 'no cookie', cookie: '' },
    { name: 'a guessed cookie', cookie: `${COOKIE}=AAAA` },
    { name: 'a cookie whose name only ends alike', cookie: `x${COOKIE}=AAAA` },
    { name: 'a cookie header of noise', cookie: ';;;=;==;a' },
  ]
  test.for(strangers)('$name', async ({ cookie }) => {
    const before = agent.opened.length
    const reply = await ask('/', { headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([401, 'app.cookie'])
    expect(agent.opened.length).toBe(before)
  })

  test('a person gets a page, with nothing in it that a browser would run or load', async () => {
    const reply = await ask('/', { headers: { accept: 'text/html' } })
    expect(reply.status).toBe(401)
    expect(reply.headers['content-type']).toBe('text/html; charset=utf-8')
    expect(reply.headers['content-security-policy']).toContain("default-src 'none'")
    expect(reply.text).toContain('sallyport open press-07/hmi')
    expect(reply.text).not.toMatch(/<script|src=|href=/)
  })

  const names = ['press-07', 'hmi--press-07--x', 'a.hmi--press-07', '--', 'HMI_--press-07', 'hmi--']
  test.for(names)('a host that names no app: %s', async (label) => {
    const host = `${label}.apps.localhost`
    const text = await send(
      `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
      hostOf('hmi'),
    )
    expect(text).toMatch(/^HTTP\/1\.1 404 /)
  })

  test.for(['/api/v1/info', '/oidc/jwks', '/.well-known/est/cacerts'])(
    'under the name of an app, the gateway’s own %s is not there',
    async (path) => {
      expect((await ask(path)).status).toBe(401)
    },
  )
})

describe('the session ends', () => {
  test('the next request gets the page, and reaches nothing', async () => {
    const { session, cookie } = await enter()
    expect((await ask('/', { headers: { cookie } })).text).toBe('hello')
    await vendor.ask('POST', `/sessions/${session.id}/end`)
    await nothingOpen()
    const before = agent.opened.length
    const reply = await ask('/', { headers: { cookie, accept: 'text/html' } })
    expect([reply.status, agent.opened.length]).toEqual([401, before])
    expect(reply.text).toContain('app.cookie')
  })

  test('its grant is revoked while an answer is on its way', async () => {
    const grant = await grantFor(vendor, node.admin, { device: 'press-07', process: 'hmi' })
    const session = await vendor.ask<OpenedSession>('POST', '/sessions', {
      device: 'press-07',
      process: 'hmi',
      grant: grant.id,
    })
    const cookie = await redeem(session)
    let gone = false
    app = (_request, response) => {
      response.on('close', () => (gone = true))
      response.write('the first part')
    }
    const socket = await browse('/', cookie)
    await until('the answer has begun', () => socket.text.includes('the first part'))
    const revoked = await node.admin.ask<{ cut: { sessions: { id: string }[] } }>(
      'POST',
      `/grants/${grant.id}/revoke`,
      { reason: 'enough' },
    )
    expect(revoked.cut.sessions.map(({ id }) => id)).toEqual([session.id])
    await soon('the browser is cut off', socket.closed)
    expect(socket.text).not.toMatch(/\r\n0\r\n\r\n$/)
    await until('the app is cut off', () => gone)
    await nothingOpen()
    expect((await ask('/', { headers: { cookie } })).status).toBe(401)
  })
})

interface Browsing {
  text: string
  readonly socket: TLSSocket
  readonly closed: Promise<unknown>
}

/** A request whose connection the test holds in its hand. */
async function browse(
  path: string,
  cookie: string,
  { method = 'GET', head = '', host = hostOf('hmi') } = {},
): Promise<Browsing> {
  const socket = await dial(node, { servername: host, ALPNProtocols: ['http/1.1'] })
  // Not once(): it rejects with the error of a socket that is cut off while it writes.
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()))
  const browsing = { text: '', socket, closed }
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => (browsing.text += chunk.toString('latin1')))
  socket.write(`${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\n${head}\r\n`)
  return browsing
}

describe('one request never becomes two', () => {
  const chunked = 'transfer-encoding: chunked\r\n'
  const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n'
  const body = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`
  test.for(['DELETE', 'OPTIONS', 'GET', 'POST', 'PUT', 'PATCH', 'HEAD'])(
    '%s with a chunked body that is a request',
    async (method) => {
      const { cookie } = await enter('wire')
      const got = recording()
      const host = hostOf('wire')
      const head = `${method} /first HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\nConnection: close\r\n`
      await send(`${head}${chunked}\r\n${body}`, host)
      await until(
        'the app has the body',
        () => got.text.includes('/smuggled') || got.text.length > 0,
      )
      const [first = ''] = got.text.split('\r\n\r\n', 1)
      expect(first).toMatch(new RegExp(`^${method} /first HTTP/1.1\r\n`))
      // Framed anew: by a length that is the body's, or in chunks of our own.
      if (/content-length: (\d+)/i.test(first))
        expect(first).toMatch(new RegExp(`content-length: ${smuggled.length}`, 'i'))
      else expect(first).toMatch(/transfer-encoding: chunked/i)
      expect(got.connections).toBe(1)
    },
  )

  const refused: readonly {
    readonly name: string
    readonly head: string
    readonly body: string
  }[] = [
    { name: 'length and chunked', head: `content-length: 3\r\n${chunked}`, body: '0\r\n\r\nabc' },
    { name: 'chunked and length', head: `${chunked}content-length: 3\r\n`, body: '0\r\n\r\nabc' },
    { name: 'two lengths', head: 'content-length: 3\r\ncontent-length: 4\r\n', body: 'abcd' },
    { name: 'a length with a sign', head: 'content-length: +3\r\n', body: 'abc' },
    { name: 'an encoding that is not chunked', head: 'transfer-encoding: xchunked\r\n', body: '' },
    { name: 'chunked twice', head: 'transfer-encoding: chunked, identity\r\n', body: '0\r\n\r\n' },
    {
      name: 'a space before the colon',
      head: 'transfer-encoding : chunked\r\n',
      body: '0\r\n\r\n',
    },
    {
      name: 'a folded header',
      head: 'x: a\r\n b\r\ntransfer-encoding:\r\n chunked\r\n',
      body: '0\r\n\r\n',
    },
    { name: 'a bare line feed', head: 'x: a\ncontent-length: 3\n', body: 'abc' },
    { name: 'a chunk size that is none', head: chunked, body: 'zz\r\nabc\r\n0\r\n\r\n' },
    { name: 'NUL in a header', head: 'x: a\0b\r\n', body: '' },
    { name: 'two hosts', head: 'host: evil.example\r\n', body: '' },
  ]
  test.for(refused)('$name', async ({ head, body: sent }) => {
    const { cookie, session } = await enter('wire')
    const got = recording()
    const host = hostOf('wire')
    const reply = await send(
      `POST /x HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\nConnection: close\r\n${head}\r\n${sent}`,
      host,
    )
    expect(reply).toMatch(/^(HTTP\/1\.1 400 |$)/)
    expect(requestsIn(got.text.replace(/^POST \/x HTTP\/1\.1\r$/m, ''))).toBe(0)
    await vendor.ask('POST', `/sessions/${session.id}/end`)
    await nothingOpen()
  })

  test('bytes after an answer are nobody’s answer', async () => {
    const { cookie } = await enter('wire')
    let connections = 0
    onWire = (socket) => {
      connections++
      socket.on('data', () =>
        socket.write(
          'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil',
        ),
      )
    }
    for (let round = 0; round < 3; round++) {
      const reply = await ask('/', { host: hostOf('wire'), headers: { cookie } }).catch(
        () => undefined,
      )
      expect(reply?.text ?? 'ok').not.toContain('evil')
    }
    expect(connections).toBeGreaterThan(1)
  })

  test('two requests in one write are two, each decided', async () => {
    const { cookie } = await enter()
    const paths: string[] = []
    app = (request, response) => {
      paths.push(request.url ?? '')
      response.end('x')
    }
    const from = node.size()
    const one = (path: string, last: boolean) =>
      `GET ${path} HTTP/1.1\r\nHost: ${hostOf('hmi')}\r\nCookie: ${cookie}\r\n${last ? 'Connection: close\r\n' : ''}\r\n`
    await send(one('/a', false) + one('/b', true), hostOf('hmi'))
    expect(paths.toSorted()).toEqual(['/a', '/b'])
    expect(node.events(from).filter(({ code }) => code === 'http.request')).toHaveLength(2)
  })
})

describe('addresses that could be read in two ways', () => {
  test.for([
    '/a%2fb',
    '/a%2Fb',
    '/a%5cb',
    '/a\\b',
    '/a%00b',
    '/%',
    '/%zz',
    '/%c3%28',
    'http://evil.example/',
    'https://hmi--press-07.apps.localhost/',
    '*',
  ])('%s', async (path) => {
    const { cookie } = await enter('wire')
    const got = recording()
    const host = hostOf('wire')
    const method = path === '*' ? 'OPTIONS' : 'GET'
    const reply = await send(
      `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\nConnection: close\r\n\r\n`,
      host,
    )
    expect(reply).toMatch(/^HTTP\/1\.1 400 /)
    expect(got.text).toBe('')
  })

  test.for([
    { path: '/a/%2e%2e/b', decided: '/b' },
    { path: '/a/../b', decided: '/b' },
    { path: '//evil.example/b', decided: '/evil.example/b' },
    { path: '/a//b', decided: '/a/b' },
    { path: '/a/./b?x=%2f', decided: '/a/b' },
  ])('$path is decided as $decided', async ({ path, decided }) => {
    const { cookie } = await enter('wire')
    const got = recording()
    const from = node.size()
    const host = hostOf('wire')
    const reply = await send(
      `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\nConnection: close\r\n\r\n`,
      host,
    )
    expect(reply).toMatch(/^HTTP\/1\.1 200 /)
    expect(got.text).toMatch(/^GET /)
    const [event] = node.events(from).filter(({ code }) => code === 'http.request')
    expect(event?.text).toContain(`"${decided}"`)
    expect(event?.text).not.toContain('x=')
  })
})

describe('headers', () => {
  test('those of one hop are not passed on to the app', async () => {
    const { cookie } = await enter('wire')
    const got = recording()
    const host = hostOf('wire')
    const head = [
      'Connection: close, x-secret, host, cookie',
      'X-Secret: 1',
      'Keep-Alive: timeout=5',
      'Proxy-Authorization: Basic AAAA',
      'Proxy-Connection: keep-alive',
      'TE: trailers',
      'Trailer: x',
      'X-Forwarded-For: 6.6.6.6',
      'Forwarded: for=6.6.6.6',
      'X-Forwarded-Host: evil',
      'Expect: 100-continue',
      'X-Kept: yes',
      `Cookie: a=1; ${cookie}; b=2`,
      'content-length: 2',
    ]
    const text = `POST /x HTTP/1.1\r\nHost: ${host}\r\n${head.join('\r\n')}\r\n\r\nhi`
    expect(await send(text, host)).toMatch(/HTTP\/1\.1 200 OK/)
    const lines = got.text.split('\r\n').map((line) => line.toLowerCase())
    const names = new Set(lines.slice(1).map((line) => line.split(':')[0]))
    for (const gone of [
      'x-secret',
      'keep-alive',
      'proxy-authorization',
      'proxy-connection',
      'te',
      'trailer',
      'x-forwarded-for',
      'forwarded',
      'x-forwarded-host',
      'expect',
    ])
      expect([gone, names.has(gone)]).toEqual([gone, false])
    expect(lines).toContain('x-kept: yes')
    expect(lines).toContain(`host: ${host}`)
    expect(lines).toContain('cookie: a=1; b=2')
    expect(lines).toContain('content-length: 2')
  })

  test('our cookie never reaches the app, wherever it stands', async () => {
    const { cookie } = await enter('wire')
    const got = recording()
    const host = hostOf('wire')
    const text = `GET /x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\nCookie: ${cookie}\r\nCookie: ${COOKIE}=second; c=3\r\n\r\n`
    expect(await send(text, host)).toMatch(/^HTTP\/1\.1 200/)
    expect(got.text).not.toContain('sallyport')
    expect(got.text).not.toContain(cookie.split('=')[1])
    expect(got.text).toMatch(/cookie: c=3/i)
  })

  test('those of one hop are not passed on to the browser, and cookies stay with their app', async () => {
    const { cookie } = await enter('wire')
    recording(
      [
        'HTTP/1.1 200 Fine',
        'Connection: keep-alive, x-hop',
        'X-Hop: 1',
        'Keep-Alive: timeout=1',
        'Proxy-Authenticate: Basic',
        'Upgrade: h2c',
        'Set-Cookie: a=1; Domain=apps.localhost; Path=/; Secure',
        'Set-Cookie: b=2; DOMAIN = .localhost ;HttpOnly',
        `Set-Cookie: ${COOKIE}=stolen; Path=/; Secure`,
        'Content-Length: 2',
        '',
        'ok',
      ].join('\r\n'),
    )
    const reply = await ask('/', { host: hostOf('wire'), headers: { cookie } })
    for (const gone of ['x-hop', 'proxy-authenticate', 'upgrade'])
      expect(reply.headers[gone]).toBeUndefined()
    expect(reply.headers['set-cookie']?.map((line) => line.replaceAll(' ', ''))).toEqual([
      'a=1;Path=/;Secure',
      'b=2;HttpOnly',
    ])
  })

  test.for([
    { name: 'in other letters', line: `set-cookie: __HOST-Sallyport-App=x; Path=/; Secure` },
    { name: 'after white space', line: `Set-Cookie:   \t${COOKIE}=x; Path=/` },
    { name: 'as the value of one without a name', line: `Set-Cookie: =${COOKIE}=x; Path=/` },
    { name: 'with a space before the equals sign', line: `Set-Cookie: ${COOKIE} =x; Path=/` },
  ])('the app cannot set our cookie, $name', async ({ line }) => {
    const { cookie } = await enter('wire')
    recording(`HTTP/1.1 200 OK\r\n${line}\r\ncontent-length: 2\r\n\r\nok`)
    const reply = await ask('/', { host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, reply.headers['set-cookie']]).toEqual([200, undefined])
  })
})

describe('answers', () => {
  test('a 103 before the answer', async () => {
    const { cookie } = await enter('wire')
    recording(
      'HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok',
    )
    const reply = await ask('/', { host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, reply.text]).toEqual([200, 'ok'])
  })

  const bodyless: readonly {
    readonly status: number
    readonly head: string
    readonly method: string
  }[] = [
    { status: 204, head: '', method: 'GET' },
    { status: 304, head: 'etag: "x"\r\n', method: 'GET' },
    { status: 304, head: 'content-length: 500\r\n', method: 'GET' },
    { status: 200, head: 'content-length: 500\r\n', method: 'HEAD' },
    { status: 200, head: 'transfer-encoding: chunked\r\n', method: 'HEAD' },
  ]
  test.for(bodyless)('$method $status $head without a body', async ({ status, head, method }) => {
    const { cookie } = await enter('wire')
    recording(`HTTP/1.1 ${status} X\r\n${head}\r\n`)
    const host = hostOf('wire')
    const reply = await ask('/', { method, host, headers: { cookie } })
    expect([reply.status, reply.text]).toEqual([status, ''])
    // The connection is still in step.
    const again = await ask('/', { method, host, headers: { cookie } })
    expect(again.status).toBe(status)
  })

  test('trailers end a chunked answer and smuggle nothing', async () => {
    const { cookie } = await enter('wire')
    recording(
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n2\r\nok\r\n0\r\nx-t: 1\r\nset-cookie: evil=1\r\n\r\n',
    )
    const reply = await ask('/', { host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, reply.text]).toEqual([200, 'ok'])
    expect(reply.headers['set-cookie']).toBeUndefined()
    expect(reply.trailers['set-cookie']).toBeUndefined()
  })

  test('trailers of a request reach the app as no headers', async () => {
    const { cookie } = await enter()
    let seenHeaders: IncomingMessage['headers'] = {}
    app = (request, response) => {
      seenHeaders = request.headers
      request.resume().on('end', () => response.end('x'))
    }
    const host = hostOf('hmi')
    await send(
      `POST / HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\nConnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-admin: 1\r\n\r\n`,
      host,
    )
    expect(seenHeaders['x-admin']).toBeUndefined()
  })

  const broken: readonly { readonly name: string; readonly app: (socket: Socket) => void }[] = [
    { name: 'closes before an answer', app: (socket) => socket.once('data', () => socket.end()) },
    {
      name: 'resets before an answer',
      app: (socket) => socket.once('data', () => socket.resetAndDestroy()),
    },
    { name: 'is not there', app: (socket) => socket.resetAndDestroy() },
    { name: 'does not speak HTTP', app: (socket) => socket.end('SSH-2.0-OpenSSH\r\n') },
    {
      name: 'answers with two lengths',
      app: (socket) =>
        socket.once('data', () =>
          socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc'),
        ),
    },
    {
      name: 'answers with a head of 1 MiB',
      app: (socket) =>
        socket.once('data', () => socket.end(`HTTP/1.1 200 OK\r\nx: ${'a'.repeat(MiB)}\r\n\r\n`)),
    },
  ]
  test.for(broken)('an app that $name', async ({ app: behave }) => {
    const { cookie, session } = await enter('wire')
    onWire = behave
    const reply = await ask('/', { host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([502, 'app.upstream'])
    await nothingOpen()
    const still = await vendor.ask<Session>('GET', `/sessions/${session.id}`)
    expect([still.state, still.connections]).toEqual(['open', 0])
  })

  test.for(['content-length: 100\r\n', 'transfer-encoding: chunked\r\n'])(
    'an app that dies in the middle of its answer: %s',
    async (head) => {
      const { cookie } = await enter('wire')
      onWire = (socket) =>
        socket.once('data', () => {
          const start = head.startsWith('content') ? 'part' : '4\r\npart\r\n'
          socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n${start}`, () => socket.destroy())
        })
      const browsing = await browse('/', cookie, { host: hostOf('wire') })
      await soon('the browser is cut off', browsing.closed)
      expect(browsing.text).toContain('200 OK')
      expect(browsing.text).not.toContain('\r\n0\r\n\r\n')
      await nothingOpen()
    },
  )

  test('the device answers with another executable', async () => {
    const { cookie } = await enter()
    agent.observed = seen('/tmp/evil')
    onTestFinished(() => void (agent.observed = seen(PLC)))
    const from = node.size()
    let reached = false
    app = () => (reached = true)
    const reply = await ask('/', { headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([
      403,
      'process.mismatch',
    ])
    expect(reached).toBe(false)
    expect(
      node.events(from).find(({ code }) => code === 'finding.process_mismatch')?.text,
    ).toContain('/tmp/evil')
    await nothingOpen()
  })

  test('an upgrade to HTTP/2 is refused, and what follows it is no request', async () => {
    const { cookie } = await enter('wire')
    const got = recording()
    const host = hostOf('wire')
    const head =
      'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n'
    const reply = await send(
      `GET / HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\n${head}\r\nGET /smuggled HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\n\r\n`,
      host,
    )
    expect(reply).toMatch(/^HTTP\/1\.1 400 /)
    expect(requestsIn(reply)).toBe(0)
    expect(got.text).toBe('')
  })

  test('CONNECT', async () => {
    const { cookie } = await enter('wire')
    const got = recording()
    const reply = await send(
      `CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: ${hostOf('wire')}\r\nCookie: ${cookie}\r\n\r\n`,
      hostOf('wire'),
    )
    expect(reply).not.toMatch(/^HTTP\/1\.1 2/)
    expect(got.text).toBe('')
  })

  test('TRACE is not for this kind of app', async () => {
    const { cookie } = await enter('wire')
    const got = recording()
    const reply = await ask('/', { method: 'TRACE', host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([
      403,
      'http.method_refused',
    ])
    expect(got.text).toBe('')
  })
})

describe('a browser that leaves', () => {
  test('before the answer', async () => {
    const { cookie } = await enter()
    let waiting = 0
    app = () => waiting++
    const all = await Promise.all(Array.from({ length: 8 }, () => browse('/', cookie)))
    await until('the app has them', () => waiting === 8)
    expect(agent.open()).toBe(8)
    for (const { socket } of all) socket.destroy()
    await nothingOpen()
  })

  test('while it waits for one of the session’s connections', async () => {
    const { cookie, session } = await enter()
    let waiting = 0
    app = () => waiting++
    const all = await Promise.all(Array.from({ length: 20 }, () => browse('/', cookie)))
    await until('the app has as many as it may', () => waiting === 8)
    for (const { socket } of all) socket.destroy()
    await until('the session carries nothing', async () => {
      const { connections } = await vendor.ask<Session>('GET', `/sessions/${session.id}`)
      return connections === 0
    })
    await nothingOpen()
  })

  test('in the middle of the answer', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000 })
    const { cookie } = await enter()
    app = (_request, response) => {
      const pour = () => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536))) continue
      }
      response.on('drain', pour)
      pour()
    }
    const all = await Promise.all(Array.from({ length: 4 }, () => browse('/', cookie)))
    for (const browsing of all)
      await until('the answer has begun', () => browsing.text.length > 100_000)
    for (const { socket } of all) socket.destroy()
    await nothingOpen()
  })

  test('in the middle of an upload', async () => {
    const { cookie } = await enter()
    let got = 0
    app = (request) => void request.on('data', (chunk: Buffer) => (got += chunk.length))
    const head = 'content-length: 100000000\r\n'
    const all = await Promise.all(
      Array.from({ length: 4 }, () => browse('/', cookie, { method: 'POST', head })),
    )
    for (const { socket } of all) socket.write(Buffer.alloc(50_000))
    await until('the app has some of each', () => got >= 200_000)
    for (const { socket } of all) socket.destroy()
    await nothingOpen()
  })

  test('in the middle of a chunked upload', async () => {
    const { cookie } = await enter()
    let got = 0
    app = (request) => void request.on('data', (chunk: Buffer) => (got += chunk.length))
    const browsing = await browse('/', cookie, {
      method: 'PUT',
      head: 'transfer-encoding: chunked\r\n',
    })
    browsing.socket.write('5\r\nhello\r\n')
    await until('the app has it', () => got === 5)
    browsing.socket.destroy()
    await nothingOpen()
  })
})

describe('large bodies', () => {
  test('a download arrives whole, at the browser’s pace', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000 })
    const { cookie } = await enter()
    let written = 0
    app = (_request, response) => {
      response.setHeader('content-length', 24 * MiB)
      const pour = () => {
        while (written < 24 * MiB) {
          written += 65_536
          if (!response.write(Buffer.alloc(65_536, 1))) return
        }
        response.end()
      }
      response.on('drain', pour)
      pour()
    }
    const browsing = await browse('/', cookie, { head: 'Connection: close\r\n' })
    browsing.socket.pause()
    let before = -1
    await until('the app has stopped', async () => {
      const same = written === before && written > 0
      before = written
      await new Promise((resolve) => setTimeout(resolve, 100))
      return same
    })
    expect(written).toBeLessThan(16 * MiB)
    browsing.socket.resume()
    await soon('the end', browsing.closed)
    const at = browsing.text.indexOf('\r\n\r\n')
    expect(browsing.text.length - at - 4).toBe(24 * MiB)
  })

  test('an upload arrives whole, at the app’s pace', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000 })
    const { cookie } = await enter()
    let got = 0
    const { promise: opened, resolve: open } = Promise.withResolvers<void>()
    app = (request, response) => {
      request.on('end', () => response.end(String(got)))
      void opened.then(() => request.on('data', (chunk: Buffer) => (got += chunk.length)))
    }
    const head = `content-length: ${24 * MiB}\r\nConnection: close\r\n`
    const browsing = await browse('/', cookie, { method: 'PUT', head })
    let sent = 0
    const pour = () => {
      while (sent < 24 * MiB) {
        sent += 65_536
        if (!browsing.socket.write(Buffer.alloc(65_536))) return
      }
    }
    browsing.socket.on('drain', pour)
    pour()
    let before = -1
    await until('the browser has to wait', async () => {
      const same = sent === before
      before = sent
      await new Promise((resolve) => setTimeout(resolve, 100))
      return same
    })
    expect(sent).toBeLessThan(16 * MiB)
    open()
    await soon('the end', browsing.closed)
    expect(browsing.text).toMatch(new RegExp(`${24 * MiB}\r\n0\r\n\r\n$|${24 * MiB}$`))
  })

  test.for(['PUT', 'GET'])('%s of more than the session may carry ends it', async (method) => {
    oblige({ max_bandwidth_bps: 1_000_000_000, max_bytes: MiB })
    const { cookie, session } = await enter()
    let got = 0
    app = (request, response) => {
      request.on('data', (chunk: Buffer) => (got += chunk.length))
      if (method === 'GET') response.end(Buffer.alloc(4 * MiB))
    }
    const head = method === 'PUT' ? `content-length: ${4 * MiB}\r\n` : ''
    const browsing = await browse('/', cookie, { method, head })
    if (method === 'PUT') browsing.socket.write(Buffer.alloc(4 * MiB))
    const ended = await until('the session has ended', async () => {
      const now = await vendor.ask<Session>('GET', `/sessions/${session.id}`)
      return now.state === 'ended' ? now : undefined
    })
    expect(ended.reason).toBe('byte_limit')
    await soon('the browser is cut off', browsing.closed)
    expect(got).toBeLessThanOrEqual(MiB)
    expect(browsing.text.length).toBeLessThanOrEqual(MiB + 4096)
    await nothingOpen()
  })

  test('no faster than the session may', async () => {
    oblige({ max_bandwidth_bps: 8_000_000 })
    const { cookie } = await enter()
    app = (_request, response) => response.end(Buffer.alloc(600_000))
    const began = performance.now()
    const reply = await ask('/', { headers: { cookie } })
    expect(reply.text.length).toBe(600_000)
    // A megabyte a second, and a tenth of it at once.
    expect(performance.now() - began).toBeGreaterThan(400)
  })
})

test('what was asked is in the log, without query and without cookies', async () => {
  const { cookie, session } = await enter()
  const from = node.size()
  await ask('/page?secret=1', { headers: { cookie } })
  const events = node.events(from).map(({ code }) => code)
  expect(events).toEqual(['http.request', 'policy.decision'])
  const [event] = node.events(from)
  expect(event?.text).toContain('"/page"')
  expect(event?.text).toContain(session.id)
  expect(event?.text).not.toContain('secret')
  expect(event?.text).not.toContain(cookie.split('=')[1])
  expect(grants.hmi.state).toBe('approved')
})
