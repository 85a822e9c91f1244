/** Signing in to a web app: by a ticket, once, in one browser, for one app; and how that ends. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { OpenedSession, Problem } from '#api'
import { grantFor, openSession, soon, until } from '../../../support/node.ts'
import { hostOf, WebApp } from './web-app.ts'

const COOKIE = '__Host-sallyport-app'

let web: WebApp
beforeAll(async () => {
  web = await WebApp.start()
})
afterAll(() => web[Symbol.asyncDispose]())
beforeEach(() => web.reset())

describe('signing in to an app', () => {
  test('a ticket opens it once', async () => {
    const { session } = await web.enter()
    const { pathname, search } = new URL(session.url ?? '')
    const again = await web.ask(pathname + search)
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
    const reply = await web.ask(`/.sallyport/enter${ticket}`)
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([401, 'app.ticket'])
  })

  test('a ticket that is posted, as a form elsewhere could', async () => {
    const session = await openSession(web.vendor, 'press-07', 'hmi')
    const { pathname, search } = new URL(session.url ?? '')
    expect((await web.ask(pathname + search, { method: 'POST' })).status).toBe(401)
    expect(await web.redeem(session)).toContain(COOKIE)
    await web.vendor.ask('POST', `/sessions/${session.id}/end`)
  })

  test('a ticket of one app at another', async () => {
    const session = await openSession(web.vendor, 'press-07', 'hmi')
    const { pathname, search } = new URL(session.url ?? '')
    const reply = await web.ask(pathname + search, { host: hostOf('wire') })
    expect([reply.status, reply.headers['set-cookie']]).toEqual([401, undefined])
    await web.vendor.ask('POST', `/sessions/${session.id}/end`)
  })

  test('the cookie of one app at another', async () => {
    const { cookie } = await web.enter('hmi')
    let reached = false
    web.onWire = () => (reached = true)
    const reply = await web.ask('/', { host: hostOf('wire'), headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([401, 'app.cookie'])
    expect([reached, web.agent.open()]).toEqual([false, 0])
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
    const { cookie } = await web.enter('hmi')
    const reply = await web.ask('/', { method, headers: { cookie, ...headers } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([403, 'app.foreign'])
  })

  test('a link into the app from elsewhere is followed', async () => {
    const { cookie } = await web.enter('hmi')
    const headers = { cookie, 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' }
    expect((await web.ask('/', { headers })).status).toBe(200)
  })

  const strangers: readonly { readonly name: string; readonly cookie: string }[] = [
    { name: 'no cookie', cookie: '' },
    { name: 'a guessed cookie', cookie: `${COOKIE}=AAAA` },
    { name: 'a cookie whose name only ends alike', cookie: `x${COOKIE}=AAAA` },
    { name: 'a cookie header of noise', cookie: ';;;=;==;a' },
  ]
  test.for(strangers)('$name', async ({ cookie }) => {
    const before = web.agent.opened.length
    const reply = await web.ask('/', { headers: { cookie } })
    expect([reply.status, (JSON.parse(reply.text) as Problem).code]).toEqual([401, 'app.cookie'])
    expect(web.agent.opened.length).toBe(before)
  })

  test('a person gets a page, with nothing in it that a browser would run or load', async () => {
    const reply = await web.ask('/', { headers: { accept: 'text/html' } })
    expect(reply.status).toBe(401)
    expect(reply.headers['content-type']).toBe('text/html; charset=utf-8')
    expect(reply.headers['content-security-policy']).toContain("default-src 'none'")
    expect(reply.text).toContain('sallyport open press-07/hmi')
    expect(reply.text).not.toMatch(/<script|src=|href=/)
  })

  const names = ['press-07', 'hmi--press-07--x', 'a.hmi--press-07', '--', 'HMI_--press-07', 'hmi--']
  test.for(names)('a host that names no app: %s', async (label) => {
    const host = `${label}.apps.localhost`
    const text = await web.send(
      `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
      hostOf('hmi'),
    )
    expect(text).toMatch(/^HTTP\/1\.1 404 /)
  })

  test.for(['/api/v1/info', '/oidc/jwks', '/.well-known/est/cacerts'])(
    'under the name of an app, the gateway’s own %s is not there',
    async (path) => {
      expect((await web.ask(path)).status).toBe(401)
    },
  )
})

describe('the session ends', () => {
  test('the next request gets the page, and reaches nothing', async () => {
    const { session, cookie } = await web.enter()
    expect((await web.ask('/', { headers: { cookie } })).text).toBe('hello')
    await web.vendor.ask('POST', `/sessions/${session.id}/end`)
    await web.nothingOpen()
    const before = web.agent.opened.length
    const reply = await web.ask('/', { headers: { cookie, accept: 'text/html' } })
    expect([reply.status, web.agent.opened.length]).toEqual([401, before])
    expect(reply.text).toContain('app.cookie')
  })

  test('its grant is revoked while an answer is on its way', async () => {
    const grant = await grantFor(web.vendor, web.node.admin, { device: 'press-07', process: 'hmi' })
    const session = await web.vendor.ask<OpenedSession>('POST', '/sessions', {
      device: 'press-07',
      process: 'hmi',
      grant: grant.id,
    })
    const cookie = await web.redeem(session)
    let gone = false
    web.app = (_request, response) => {
      response.on('close', () => (gone = true))
      response.write('the first part')
    }
    const socket = await web.browse('/', cookie)
    await until('the answer has begun', () => socket.text.includes('the first part'))
    const revoked = await web.node.admin.ask<{ cut: { sessions: { id: string }[] } }>(
      'POST',
      `/grants/${grant.id}/revoke`,
      { reason: 'enough' },
    )
    expect(revoked.cut.sessions.map(({ id }) => id)).toEqual([session.id])
    await soon('the browser is cut off', socket.closed)
    expect(socket.text).not.toMatch(/\r\n0\r\n\r\n$/)
    await until('the app is cut off', () => gone)
    await web.nothingOpen()
    expect((await web.ask('/', { headers: { cookie } })).status).toBe(401)
  })
})

test('what was asked is in the log, without query and without cookies', async () => {
  const { cookie, session } = await web.enter()
  const from = web.node.size()
  await web.ask('/page?secret=1', { headers: { cookie } })
  const events = web.node.acts(from).map(({ code }) => code)
  expect(events).toEqual(['http.request', 'policy.decision'])
  const [event] = web.node.acts(from)
  expect(event?.text).toContain('"/page"')
  expect(event?.text).toContain(session.id)
  expect(event?.text).not.toContain('secret')
  expect(event?.text).not.toContain(cookie.split('=')[1])
  expect(web.grants.hmi.state).toBe('approved')
})
