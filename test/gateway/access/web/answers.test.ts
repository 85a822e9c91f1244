/** What an app may answer, and what becomes of answers that are none. */
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { Problem, Session } from '#api'
import { soon } from '../../../support/node.ts'
import { PLC, seen } from '../../../support/tunnels.ts'
import { hostOf, requestsIn, WebApp } from './web-app.ts'

const MiB = 1024 * 1024

let web: WebApp
beforeAll(async () => {
  web = await WebApp.start()
})
afterAll(() => web[Symbol.asyncDispose]())
beforeEach(() => web.reset())

describe('answers', () => {
  test('a 103 before the answer', async () => {
    const { cookie } = await web.enter('wire')
    web.recording(
      'HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok',
    )
    const reply = await web.ask('/', { host: hostOf('wire'), headers: { cookie } })
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
    const { cookie } = await web.enter('wire')
    web.recording(`HTTP/1.1 ${status} X\r\n${head}\r\n`)
    const host = hostOf('wire')
    const reply = await web.ask('/', { method, host, headers: { cookie } })
    expect([reply.status, reply.text]).toEqual([status, ''])
    // The connection is still in step.
    const again = await web.ask('/', { method, host, headers: { cookie } })
    expect(again.status).toBe(status)
  })

  test('trailers end a chunked answer and smuggle nothing', async () => {
    const { cookie } = await web.enter('wire')
    web.recording(
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n2\r\nok\r\n0\r\nx-t: 1\r\nset-cookie: evil=1\r\n\r\n',
    )
    const reply = await web.ask('/', { host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, reply.text]).toEqual([200, 'ok'])
    expect(reply.headers['set-cookie']).toBeUndefined()
    expect(reply.trailers['set-cookie']).toBeUndefined()
  })

  test('trailers of a request reach the app as no headers', async () => {
    const { cookie } = await web.enter()
    let seenHeaders: IncomingMessage['headers'] = {}
    web.app = (request, response) => {
      seenHeaders = request.headers
      request.resume().on('end', () => response.end('x'))
    }
    const host = hostOf('hmi')
    await web.send(
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
    const { cookie, session } = await web.enter('wire')
    web.onWire = behave
    const reply = await web.ask('/', { host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([502, 'app.upstream'])
    await web.nothingOpen()
    const still = await web.vendor.ask<Session>('GET', `/sessions/${session.id}`)
    expect([still.state, still.connections]).toEqual(['open', 0])
  })

  test.for(['content-length: 100\r\n', 'transfer-encoding: chunked\r\n'])(
    'an app that dies in the middle of its answer: %s',
    async (head) => {
      const { cookie } = await web.enter('wire')
      web.onWire = (socket) =>
        socket.once('data', () => {
          const start = head.startsWith('content') ? 'part' : '4\r\npart\r\n'
          socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n${start}`, () => socket.destroy())
        })
      const browsing = await web.browse('/', cookie, { host: hostOf('wire') })
      await soon('the browser is cut off', browsing.closed)
      expect(browsing.text).toContain('200 OK')
      expect(browsing.text).not.toContain('\r\n0\r\n\r\n')
      await web.nothingOpen()
    },
  )

  test('the device answers with another executable', async () => {
    const { cookie } = await web.enter()
    web.agent.observed = seen('/tmp/evil')
    onTestFinished(() => void (web.agent.observed = seen(PLC)))
    const from = web.node.size()
    let reached = false
    web.app = () => (reached = true)
    const reply = await web.ask('/', { headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([
      403,
      'process.mismatch',
    ])
    expect(reached).toBe(false)
    expect(
      web.node.events(from).find(({ code }) => code === 'finding.process_mismatch')?.text,
    ).toContain('/tmp/evil')
    await web.nothingOpen()
  })

  test('an upgrade to HTTP/2 is refused, and what follows it is no request', async () => {
    const { cookie } = await web.enter('wire')
    const got = web.recording()
    const host = hostOf('wire')
    const head =
      'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n'
    const reply = await web.send(
      `GET / HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\n${head}\r\nGET /smuggled HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\n\r\n`,
      host,
    )
    expect(reply).toMatch(/^HTTP\/1\.1 400 /)
    expect(requestsIn(reply)).toBe(0)
    expect(got.text).toBe('')
  })

  test('CONNECT', async () => {
    const { cookie } = await web.enter('wire')
    const got = web.recording()
    const reply = await web.send(
      `CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: ${hostOf('wire')}\r\nCookie: ${cookie}\r\n\r\n`,
      hostOf('wire'),
    )
    expect(reply).not.toMatch(/^HTTP\/1\.1 2/)
    expect(got.text).toBe('')
  })

  test('TRACE is not for this kind of app', async () => {
    const { cookie } = await web.enter('wire')
    const got = web.recording()
    const reply = await web.ask('/', { method: 'TRACE', host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([
      403,
      'http.method_refused',
    ])
    expect(got.text).toBe('')
  })
})
