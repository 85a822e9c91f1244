/** One request of a browser stays one request of the app: framing, addresses that read in two ways, headers of one hop. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { until } from '../../../support/node.ts'
import { hostOf, requestsIn, WebApp } from './web-app.ts'

const COOKIE = '__Host-sallyport-app'

let web: WebApp
beforeAll(async () => {
  web = await WebApp.start()
})
afterAll(() => web[Symbol.asyncDispose]())
beforeEach(() => web.reset())

describe('one request never becomes two', () => {
  const chunked = 'transfer-encoding: chunked\r\n'
  const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n'
  const body = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`
  test.for(['DELETE', 'OPTIONS', 'GET', 'POST', 'PUT', 'PATCH', 'HEAD'])(
    '%s with a chunked body that is a request',
    async (method) => {
      const { cookie } = await web.enter('wire')
      const got = web.recording()
      const host = hostOf('wire')
      const head = `${method} /first HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\nConnection: close\r\n`
      await web.send(`${head}${chunked}\r\n${body}`, host)
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
    const { cookie, session } = await web.enter('wire')
    const got = web.recording()
    const host = hostOf('wire')
    const reply = await web.send(
      `POST /x HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\nConnection: close\r\n${head}\r\n${sent}`,
      host,
    )
    expect(reply).toMatch(/^(HTTP\/1\.1 400 |$)/)
    expect(requestsIn(got.text.replace(/^POST \/x HTTP\/1\.1\r$/m, ''))).toBe(0)
    await web.vendor.ask('POST', `/sessions/${session.id}/end`)
    await web.nothingOpen()
  })

  test('bytes after an answer are nobody’s answer', async () => {
    const { cookie } = await web.enter('wire')
    let connections = 0
    web.onWire = (socket) => {
      connections++
      socket.on('data', () =>
        socket.write(
          'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil',
        ),
      )
    }
    for (let round = 0; round < 3; round++) {
      const reply = await web
        .ask('/', { host: hostOf('wire'), headers: { cookie } })
        .catch(() => undefined)
      expect(reply?.text ?? 'ok').not.toContain('evil')
    }
    expect(connections).toBeGreaterThan(1)
  })

  test('two requests in one write are two, each decided', async () => {
    const { cookie } = await web.enter()
    const paths: string[] = []
    web.app = (request, response) => {
      paths.push(request.url ?? '')
      response.end('x')
    }
    const from = web.node.size()
    const one = (path: string, last: boolean) =>
      `GET ${path} HTTP/1.1\r\nHost: ${hostOf('hmi')}\r\nCookie: ${cookie}\r\n${last ? 'Connection: close\r\n' : ''}\r\n`
    await web.send(one('/a', false) + one('/b', true), hostOf('hmi'))
    expect(paths.toSorted()).toEqual(['/a', '/b'])
    expect(web.node.events(from).filter(({ code }) => code === 'http.request')).toHaveLength(2)
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
    const { cookie } = await web.enter('wire')
    const got = web.recording()
    const host = hostOf('wire')
    const method = path === '*' ? 'OPTIONS' : 'GET'
    const reply = await web.send(
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
    const { cookie } = await web.enter('wire')
    const got = web.recording()
    const from = web.node.size()
    const host = hostOf('wire')
    const reply = await web.send(
      `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\nConnection: close\r\n\r\n`,
      host,
    )
    expect(reply).toMatch(/^HTTP\/1\.1 200 /)
    expect(got.text).toMatch(/^GET /)
    const [event] = web.node.events(from).filter(({ code }) => code === 'http.request')
    expect(event?.text).toContain(`"${decided}"`)
    expect(event?.text).not.toContain('x=')
  })
})

describe('headers', () => {
  test('those of one hop are not passed on to the app', async () => {
    const { cookie } = await web.enter('wire')
    const got = web.recording()
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
    expect(await web.send(text, host)).toMatch(/HTTP\/1\.1 200 OK/)
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
    const { cookie } = await web.enter('wire')
    const got = web.recording()
    const host = hostOf('wire')
    const text = `GET /x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\nCookie: ${cookie}\r\nCookie: ${COOKIE}=second; c=3\r\n\r\n`
    expect(await web.send(text, host)).toMatch(/^HTTP\/1\.1 200/)
    expect(got.text).not.toContain('sallyport')
    expect(got.text).not.toContain(cookie.split('=')[1])
    expect(got.text).toMatch(/cookie: c=3/i)
  })

  test('those of one hop are not passed on to the browser, and cookies stay with their app', async () => {
    const { cookie } = await web.enter('wire')
    web.recording(
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
    const reply = await web.ask('/', { host: hostOf('wire'), headers: { cookie } })
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
    const { cookie } = await web.enter('wire')
    web.recording(`HTTP/1.1 200 OK\r\n${line}\r\ncontent-length: 2\r\n\r\nok`)
    const reply = await web.ask('/', { host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, reply.headers['set-cookie']]).toEqual([200, undefined])
  })
})
