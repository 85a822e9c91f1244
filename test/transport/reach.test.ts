/** Going out by a proxy: what is asked for, and every answer there is, in words. */
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { printAddress, ProxyError, reach, readProxy, readProxyLogin } from '#tunnel'
import type { Proxy } from '#tunnel'
import { httpProxy, socksProxy, type TestProxy } from '../support/proxy.ts'
import { freePort, soon, until } from '../support/node.ts'

const patiently = () => AbortSignal.timeout(60_000)
const proxyOf = (url: string, login?: string): Proxy => {
  const proxy = readProxy(url)
  const read = login === undefined ? undefined : readProxyLogin(login)
  if (typeof proxy === 'string' || typeof read === 'string') throw new Error('not a proxy')
  return { ...proxy, login: read }
}

let echo: Server
beforeAll(async () => {
  echo = createServer((socket) => void socket.on('error', () => {}).pipe(socket))
  echo.listen(0, '127.0.0.1')
  await once(echo, 'listening')
})
afterAll(() => void echo.close())
const there = () => ({ host: '127.0.0.1', port: (echo.address() as AddressInfo).port })

/** What comes back of `text`. */
async function echoed(socket: Socket, text: string): Promise<string> {
  socket.write(text)
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  socket.destroy()
  return chunk.toString()
}

async function failure(attempt: Promise<unknown>): Promise<ProxyError> {
  const error: unknown = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!(error instanceof ProxyError)) throw new Error(`not a ProxyError: ${String(error)}`)
  return error
}

const login = 'press:pa:ss wörd'
const kinds = [
  { name: 'HTTP CONNECT', start: httpProxy },
  { name: 'SOCKS5', start: socksProxy },
] as const

describe.each(kinds)('$name', ({ start }) => {
  test('carries what it is asked to', async () => {
    await using proxy = await start()
    const socket = await reach(there(), proxyOf(proxy.url), patiently())
    expect(await echoed(socket, 'hello')).toBe('hello')
    expect(proxy.asked).toEqual([printAddress(there())])
  })

  test('looks up the name itself', async () => {
    await using proxy = await start()
    const { port } = there()
    const socket = await reach({ host: 'localhost', port }, proxyOf(proxy.url), patiently())
    expect(await echoed(socket, 'hello')).toBe('hello')
    expect(proxy.asked).toEqual([`localhost:${port}`])
  })

  test('is told user and password, with colons, spaces and umlauts', async () => {
    await using proxy = await start({ login: 'press:pa:ss w\u00f6rd' })
    const socket = await reach(there(), proxyOf(proxy.url, login), patiently())
    expect(await echoed(socket, 'hello')).toBe('hello')
  })

  test('wants a login, and there is none', async () => {
    await using proxy = await start({ login })
    const { code, message, next } = await failure(reach(there(), proxyOf(proxy.url), patiently()))
    expect(code).toBe('proxy.auth')
    expect(message).toContain('wants a')
    expect(next).toContain('file')
  })

  test('does not take this password', async () => {
    await using proxy = await start({ login })
    const { code, message } = await failure(
      reach(there(), proxyOf(proxy.url, 'press:wrong'), patiently()),
    )
    expect(code).toBe('proxy.auth')
    expect(message).toContain('does not accept the user press')
    expect(message).not.toContain('wrong')
  })

  test('cannot reach the gateway', async () => {
    await using proxy = await start()
    const nowhere = { host: '127.0.0.1', port: await freePort() }
    const { code, message } = await failure(reach(nowhere, proxyOf(proxy.url), patiently()))
    expect(code).toBe('proxy.gateway_unreachable')
    expect(message).toContain(printAddress(nowhere))
  })

  test('is not there', async () => {
    const scheme = start === httpProxy ? 'http' : 'socks5'
    const url = `${scheme}://127.0.0.1:${await freePort()}`
    expect((await failure(reach(there(), proxyOf(url), patiently()))).code).toBe(
      'proxy.unreachable',
    )
  })

  test('has a name that nobody knows', async () => {
    const url = `${start === httpProxy ? 'http' : 'socks5'}://egress.invalid:1`
    const { code } = await failure(reach(there(), proxyOf(url), patiently()))
    expect(code).toBe('proxy.name_unknown')
  })

  test('says nothing: the connection ends in time', async () => {
    await using mute = await speaking('')
    const late = new AbortController()
    const failing = failure(reach(there(), proxyOf(mute.as(start)), late.signal))
    await soon('it is asked', mute.asked)
    late.abort(new DOMException('too late', 'TimeoutError'))
    const { code, message } = await failing
    expect(code).toBe('proxy.answer')
    expect(message).toContain('in time')
    await expect.poll(() => mute.open()).toBe(0)
  })

  test.for(['SSH-2.0-OpenSSH_9.2\r\n', '\u0000'.repeat(40_000), 'HTTP/1.1 2000 OK\r\n\r\n'])(
    'is another kind of server: %j',
    async (greeting) => {
      await using other = await speaking(greeting)
      const { code } = await failure(reach(there(), proxyOf(other.as(start)), patiently()))
      expect(code).toBe('proxy.answer')
    },
  )

  test('hangs up', async () => {
    await using other = await speaking(undefined)
    const { code, message } = await failure(reach(there(), proxyOf(other.as(start)), patiently()))
    expect(code).toBe('proxy.answer')
    expect(message).toContain('ended the connection')
  })
})

/** A server that greets with `text` and ends, says nothing ('') or hangs up at once (undefined). */
async function speaking(text: string | undefined) {
  const sockets = new Set<Socket>()
  const asked = Promise.withResolvers<void>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.once('data', () => asked.resolve())
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    socket.resume()
    if (text === undefined) socket.once('data', () => socket.end())
    else if (text !== '') socket.end(text, 'latin1')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    as: (start: unknown) =>
      `${start === httpProxy ? 'http' : 'socks5'}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    open: () => sockets.size,
    /** Something was said to it. */
    asked: asked.promise,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

describe('HTTP CONNECT', () => {
  const rows = [
    ['HTTP/1.1 403 Forbidden', 'proxy.refused', /allow CONNECT/],
    ['HTTP/1.0 405 Method Not Allowed\r\nAllow: GET', 'proxy.refused', /does not know CONNECT/],
    ['HTTP/1.1 401 Unauthorized', 'proxy.auth', /auth file/],
    ['HTTP/1.1 502 Bad Gateway', 'proxy.gateway_unreachable', /gateway runs/],
    ['HTTP/1.1 504 Gateway Timeout', 'proxy.gateway_unreachable', /gateway runs/],
    ['HTTP/1.1 302 Found\r\nLocation: http://portal.example/', 'proxy.refused', /Ask whoever/],
    [
      'HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM',
      'proxy.auth',
      /Basic login/,
    ],
    ['HTTP/2 200', 'proxy.answer', /SOCKS5/],
  ] as const
  test.for(rows)('%s', async ([says, wanted, remedy]) => {
    await using proxy = await httpProxy({ says })
    const { code, next } = await failure(reach(there(), proxyOf(proxy.url, 'a:b'), patiently()))
    expect(code).toBe(wanted)
    expect(next).toMatch(remedy)
  })

  test('an answer in single octets, with the first octets of the gateway behind it', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => void drip(socket, 'HTTP/1.1 200 OK\r\nVia: x\r\n\r\nearly'))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const socket = await reach(there(), proxyOf(url), patiently())
    let got = ''
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      got += chunk.toString()
      if (got.length >= 5) break
    }
    expect(got).toBe('early')
    server.close()
  })
})

async function drip(socket: Socket, text: string): Promise<void> {
  for (const octet of text) {
    socket.write(octet)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

describe('SOCKS5', () => {
  const rows = [
    ['1', 'proxy.gateway_unreachable'],
    ['2', 'proxy.refused'],
    ['3', 'proxy.gateway_unreachable'],
    ['4', 'proxy.gateway_unreachable'],
    ['5', 'proxy.gateway_unreachable'],
    ['6', 'proxy.gateway_unreachable'],
    ['7', 'proxy.refused'],
    ['8', 'proxy.refused'],
    ['99', 'proxy.refused'],
  ] as const
  test.for(rows)('reply %s is %s', async ([says, wanted]) => {
    await using proxy = await socksProxy({ says })
    expect((await failure(reach(there(), proxyOf(proxy.url), patiently()))).code).toBe(wanted)
  })

  test.for([
    ['::1', '0:0:0:0:0:0:0:1'],
    ['2001:db8::1:2', '2001:db8:0:0:0:0:1:2'],
    ['::ffff:192.0.2.1', '0:0:0:0:0:ffff:c000:201'],
    ['fe80::', 'fe80:0:0:0:0:0:0:0'],
  ])('the address %s is sent as sixteen octets', async ([host = '', told = '']) => {
    await using proxy: TestProxy = await socksProxy()
    const asked = new AbortController()
    const attempt = reach({ host, port: 9 }, proxyOf(proxy.url), asked.signal).catch(() => {})
    // Whether anything is there is nobody's question: a link-local address without a link never answers.
    await until('the proxy is asked', () => proxy.asked.length > 0)
    asked.abort()
    await attempt
    expect(proxy.asked).toEqual([`${told}:9`])
  })
})

test('SOCKS5: a name longer than its length octet is refused here, not sent as another one', async () => {
  const seen: Buffer[] = []
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => seen.push(chunk))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  const to = { host: `${'a'.repeat(255)}.example`, port: 443 }
  const proxy = { scheme: 'socks5', host: '127.0.0.1', port } as const
  await expect(reach(to, proxy, AbortSignal.timeout(60_000))).rejects.toMatchObject({
    code: 'proxy.gateway_unreachable',
    message: expect.stringContaining('263') as string,
  })
  expect(seen).toEqual([])
})

describe('names of proxies', () => {
  test.for([
    ['http://egress.example', { scheme: 'http', host: 'egress.example', port: 3128 }],
    ['http://egress.example:80', { scheme: 'http', host: 'egress.example', port: 80 }],
    ['http://[::1]:8080/', { scheme: 'http', host: '::1', port: 8080 }],
    ['https://egress.example', { scheme: 'https', host: 'egress.example', port: 443 }],
    ['https://egress.example:443', { scheme: 'https', host: 'egress.example', port: 443 }],
    ['https://egress.example:3129/', { scheme: 'https', host: 'egress.example', port: 3129 }],
    ['socks5://10.0.0.1', { scheme: 'socks5', host: '10.0.0.1', port: 1080 }],
  ] as const)('%s', ([text, proxy]) => {
    expect(readProxy(text)).toEqual(proxy)
  })
  test.for([
    ['', /a URL like/],
    ['egress.example:3128', /a URL like/],
    ['socks4://egress.example', /a URL like/],
    ['http://user:pw@egress.example', /no user and no password/],
    ['http://egress.example/path', /nothing after/],
    ['http://egress.example?x', /nothing after/],
  ] as const)('%j is refused', ([text, why]) => {
    expect(readProxy(text)).toMatch(why)
  })
  test.for(['', 'user', ':pw', 'user:', 'a:b\nc', 'a:b\r\nX: y', `a:${'x'.repeat(256)}`])(
    'login %j is refused',
    (text) => {
      expect(readProxyLogin(text)).toMatch(/user:password/)
    },
  )
  test('the end of the line is not part of the password', () => {
    expect(readProxyLogin('a:b c\r\n')).toEqual({ user: 'a', password: 'b c' })
  })
})
