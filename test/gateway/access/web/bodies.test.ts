/** Browsers that leave, and bodies of any size: at whose pace, up to what the session may carry. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Session } from '#api'
import { soon, until } from '../../../support/node.ts'
import { oblige } from '../../../support/policy.ts'
import { WebApp } from './web-app.ts'

const MiB = 1024 * 1024

let web: WebApp
beforeAll(async () => {
  web = await WebApp.start()
})
afterAll(() => web[Symbol.asyncDispose]())
beforeEach(() => web.reset())

describe('a browser that leaves', () => {
  test('before the answer', async () => {
    const { cookie } = await web.enter()
    let waiting = 0
    web.app = () => waiting++
    const all = await Promise.all(Array.from({ length: 8 }, () => web.browse('/', cookie)))
    await until('the app has them', () => waiting === 8)
    expect(web.agent.open()).toBe(8)
    for (const { socket } of all) socket.destroy()
    await web.nothingOpen()
  })

  test('while it waits for one of the session’s connections', async () => {
    const { cookie, session } = await web.enter()
    let waiting = 0
    web.app = () => waiting++
    const all = await Promise.all(Array.from({ length: 20 }, () => web.browse('/', cookie)))
    await until('the app has as many as it may', () => waiting === 8)
    for (const { socket } of all) socket.destroy()
    await until('the session carries nothing', async () => {
      const { connections } = await web.vendor.ask<Session>('GET', `/sessions/${session.id}`)
      return connections === 0
    })
    await web.nothingOpen()
  })

  test('in the middle of the answer', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000 })
    const { cookie } = await web.enter()
    web.app = (_request, response) => {
      const pour = () => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536))) continue
      }
      response.on('drain', pour)
      pour()
    }
    const all = await Promise.all(Array.from({ length: 4 }, () => web.browse('/', cookie)))
    for (const browsing of all)
      await until('the answer has begun', () => browsing.text.length > 100_000)
    for (const { socket } of all) socket.destroy()
    await web.nothingOpen()
  })

  test('in the middle of an upload', async () => {
    const { cookie } = await web.enter()
    let got = 0
    web.app = (request) => void request.on('data', (chunk: Buffer) => (got += chunk.length))
    const head = 'content-length: 100000000\r\n'
    const all = await Promise.all(
      Array.from({ length: 4 }, () => web.browse('/', cookie, { method: 'POST', head })),
    )
    for (const { socket } of all) socket.write(Buffer.alloc(50_000))
    await until('the app has some of each', () => got >= 200_000)
    for (const { socket } of all) socket.destroy()
    await web.nothingOpen()
  })

  test('in the middle of a chunked upload', async () => {
    const { cookie } = await web.enter()
    let got = 0
    web.app = (request) => void request.on('data', (chunk: Buffer) => (got += chunk.length))
    const browsing = await web.browse('/', cookie, {
      method: 'PUT',
      head: 'transfer-encoding: chunked\r\n',
    })
    browsing.socket.write('5\r\nhello\r\n')
    await until('the app has it', () => got === 5)
    browsing.socket.destroy()
    await web.nothingOpen()
  })
})

describe('large bodies', () => {
  test('a download arrives whole, at the browser’s pace', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000 })
    const { cookie } = await web.enter()
    let written = 0
    web.app = (_request, response) => {
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
    const browsing = await web.browse('/', cookie, { head: 'Connection: close\r\n' })
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
    const { cookie } = await web.enter()
    let got = 0
    const { promise: opened, resolve: open } = Promise.withResolvers<void>()
    web.app = (request, response) => {
      request.on('end', () => response.end(String(got)))
      void opened.then(() => request.on('data', (chunk: Buffer) => (got += chunk.length)))
    }
    const head = `content-length: ${24 * MiB}\r\nConnection: close\r\n`
    const browsing = await web.browse('/', cookie, { method: 'PUT', head })
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
    const { cookie, session } = await web.enter()
    let got = 0
    web.app = (request, response) => {
      request.on('data', (chunk: Buffer) => (got += chunk.length))
      if (method === 'GET') response.end(Buffer.alloc(4 * MiB))
    }
    const head = method === 'PUT' ? `content-length: ${4 * MiB}\r\n` : ''
    const browsing = await web.browse('/', cookie, { method, head })
    if (method === 'PUT') browsing.socket.write(Buffer.alloc(4 * MiB))
    const ended = await until('the session has ended', async () => {
      const now = await web.vendor.ask<Session>('GET', `/sessions/${session.id}`)
      return now.state === 'ended' ? now : undefined
    })
    expect(ended.reason).toBe('byte_limit')
    await soon('the browser is cut off', browsing.closed)
    expect(got).toBeLessThanOrEqual(MiB)
    expect(browsing.text.length).toBeLessThanOrEqual(MiB + 4096)
    await web.nothingOpen()
  })

  test('no faster than the session may', async () => {
    oblige({ max_bandwidth_bps: 8_000_000 })
    const { cookie } = await web.enter()
    web.app = (_request, response) => response.end(Buffer.alloc(600_000))
    const began = performance.now()
    const reply = await web.ask('/', { headers: { cookie } })
    expect(reply.text.length).toBe(600_000)
    // A megabyte a second, and a tenth of it at once.
    expect(performance.now() - began).toBeGreaterThan(400)
  })
})
