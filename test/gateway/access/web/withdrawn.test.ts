/** A permission is withdrawn within the second in which alike requests have one answer: the next one has it no more. */
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Account, Locked, OpenedSession } from '#api'
import { grantFor, openSession, until } from '../../../support/node.ts'
import { answer } from '../../../support/policy.ts'
import { expecting, PLC, seen } from '../../../support/tunnels.ts'
import { WebApp } from './web-app.ts'

let web: WebApp
beforeAll(async () => {
  web = await WebApp.start()
})
afterAll(() => web[Symbol.asyncDispose]())
beforeEach(() => web.reset())

/** The node's clock stands, so that the second does not end by itself; a page has been answered twice, and decided once. */
async function answeredFromMemory(
  enter: () => Promise<{ session: OpenedSession; cookie: string }> = () => web.enter(),
): Promise<{ session: OpenedSession; readonly page: () => Promise<number> }> {
  let asked = 0
  answer((decision, point) => {
    if (point === 'http.request') asked++
    return decision
  })
  const { session, cookie } = await enter()
  // What is remembered is forgotten by a timer when its second is over: one that stands at its end would be over at once.
  const at = await until('a second is young', () => {
    const now = Date.now()
    return now % 1000 < 300 ? now : undefined
  })
  const still = vi.spyOn(Date, 'now').mockReturnValue(at)
  onTestFinished(() => still.mockRestore())
  const page = async () => (await web.ask('/page', { headers: { cookie } })).status
  await until('a page is answered out of memory', async () => {
    const before = asked
    expect(await page()).toBe(200)
    return asked === before
  })
  return { session, page }
}

const admin = () => web.node.admin

describe('the next request is refused, and reaches nothing', () => {
  test.for<{
    readonly name: string
    readonly withdraw: (session: OpenedSession) => Promise<unknown>
    readonly back?: (withdrawn: unknown) => Promise<unknown>
  }>([
    {
      name: 'its session is ended by its holder',
      withdraw: ({ id }) => web.vendor.ask('POST', `/sessions/${id}/end`),
    },
    {
      name: 'its session is cut',
      withdraw: ({ id }) => admin().ask('POST', `/sessions/${id}/cut`, { reason: 'odd' }),
    },
    {
      name: 'its device is quarantined',
      withdraw: () => admin().ask('POST', '/devices/press-07/quarantine', { reason: 'odd' }),
      back: () => admin().ask('POST', '/devices/press-07/resume', { reason: 'fine' }),
    },
    {
      name: 'its process must be another executable',
      withdraw: () =>
        admin().ask('PUT', '/devices/press-07/processes/hmi', expecting('/usr/bin/newer', 'http')),
      back: () => admin().ask('PUT', '/devices/press-07/processes/hmi', expecting(PLC, 'http')),
    },
    {
      name: 'its person is locked',
      withdraw: () =>
        admin().ask('POST', '/locks', {
          scope: 'identity',
          target: web.vendor.email,
          reason: 'incident',
        }),
      back: (put) =>
        admin().ask('POST', `/locks/${(put as Locked).lock.id}/lift`, { reason: 'over' }),
    },
    {
      name: 'everything is locked',
      withdraw: () => admin().ask('POST', '/locks', { scope: 'everything', reason: 'incident' }),
      back: (put) =>
        admin().ask('POST', `/locks/${(put as Locked).lock.id}/lift`, { reason: 'over' }),
    },
  ])('$name', async ({ withdraw, back }) => {
    const { session, page } = await answeredFromMemory()
    const withdrawn = await withdraw(session)
    if (back !== undefined) onTestFinished(async () => void (await back(withdrawn)))
    let reached = 0
    web.app = (_request, response) => {
      reached++
      response.end()
    }
    expect(await page()).toBe(401)
    expect(reached).toBe(0)
    await web.nothingOpen()
  })

  test('the device sees another owner of its socket', async () => {
    const { session, page } = await answeredFromMemory()
    web.agent.report({
      type: 'owner_changed',
      session: session.id,
      observed: seen('/tmp/evil'),
    })
    await until('it is refused', async () => (await page()) === 401)
    await web.nothingOpen()
  })

  test('its grant is revoked, and what was answered out of memory is in the log before the end', async () => {
    const { session, page } = await answeredFromMemory()
    await admin().ask('POST', `/grants/${web.grants.hmi.id}/revoke`, { reason: 'enough' })
    expect(await page()).toBe(401)
    const told = web.node.events(0).filter(({ text }) => text.includes(session.id))
    const codes = told.map(({ code }) => code)
    expect(told.filter(({ message }) => message === 'GET forwarded, once more')).toHaveLength(1)
    expect(codes.lastIndexOf('http.request')).toBeLessThan(codes.indexOf('session.end'))
  })

  test('its account is disabled', async () => {
    const other = await web.node.person('vito', {
      party: 'vendor',
      roles: ['vendor'],
      vendor: 'acme',
    })
    await grantFor(other, web.node.admin, { device: 'press-07', process: 'hmi' })
    const { page } = await answeredFromMemory(async () => {
      const session = await openSession(other, 'press-07', 'hmi')
      return { session, cookie: await web.redeem(session) }
    })
    const { items } = await admin().ask<{ items: Account[] }>(
      'GET',
      `/accounts?email=${other.email}`,
    )
    await admin().ask('POST', `/accounts/${items[0]?.sub}/disable`, {})
    await until('it is refused', async () => (await page()) === 401)
    await web.nothingOpen()
  })
})
