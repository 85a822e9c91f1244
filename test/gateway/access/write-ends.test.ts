/** What ends that somebody may write to a controller, and what begins later: at once, to the second, and for nobody else. */
import { describe, expect, onTestFinished, test } from 'vitest'
import type { EndedGrant, Grant } from '#api'
import { setBefore, setForward } from '../../support/clock.ts'
import { until } from '../../support/node.ts'
import { Client, PLC, refusalOf, seen, serve } from '../../support/tunnels.ts'
import {
  exchange,
  here,
  hex,
  oneController,
  READ,
  reading,
  session,
  WRITE,
  writes,
  writing,
} from './writing.ts'

oneController()

describe('what ends it', () => {
  async function elevated() {
    const base = await reading()
    const opened = await session()
    const client = await Client.dial(here.node)
    onTestFinished(() => client[Symbol.asyncDispose]())
    const reader = await client.line(opened)
    const grant = await writing()
    const line = await client.line(opened)
    await exchange(line, WRITE)
    return { base, grant, opened, client, reader, line }
  }

  test.for(['revoke', 'done'] as const)(
    '%s: the connection that may write is cut, measured and recorded; who reads goes on',
    async (how) => {
      const { grant, opened, client, reader, line } = await elevated()
      const from = here.node.size()
      const who = how === 'done' ? here.vendor : here.node.admin
      const ended = await who.ask<EndedGrant>(
        'POST',
        `/grants/${grant.id}/${how}`,
        how === 'done' ? undefined : { reason: 'enough' },
      )
      expect((await line.gone()).code).toBe('grant.narrowed')
      // Of the session, which goes on, no end is told: a client would give up all of it.
      expect(line.signals).toEqual([])
      expect(ended.cut.sessions).toEqual([])
      expect(ended.cut.connections).toMatchObject([{ session: opened.id }])
      expect(ended.cut.slowest_ms).toBeGreaterThan(0)
      const [cut] = here.node.events(from).filter(({ code }) => code === 'session.kill')
      expect(cut?.text).toContain('"scope":"connection"')
      expect(cut?.text).toMatch(/"time_to_cut_ms":\d/)
      expect(await exchange(reader, READ)).toContain('0302002a')
      const again = await client.line(opened)
      expect(await exchange(again, WRITE)).toBe('000200000003018601')
      expect(await exchange(again, READ)).toContain('0302002a')
    },
  )

  test('the grant of the session is revoked: all of it ends, the grant to write keeps nobody in', async () => {
    const { base, opened, reader, line } = await elevated()
    const ended = await here.node.admin.ask<EndedGrant>('POST', `/grants/${base.id}/revoke`, {
      reason: 'x',
    })
    expect(ended.cut.sessions.map(({ id }) => id)).toEqual([opened.id])
    await Promise.all([line.gone(), reader.gone()])
  })

  test('its time is over: the session ends to the second, and nothing is written after', async () => {
    await reading()
    const from = here.node.size()
    const grant = await writing()
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    await exchange(line, WRITE)
    setBefore(grant.not_after, 1000)
    await line.gone()
    expect(Date.now()).toBeGreaterThanOrEqual(grant.not_after * 1000)
    const end = await until('its end is in the log', () =>
      here.node
        .events(from)
        .find(({ code, text }) => code === 'session.end' && text.includes(opened.id)),
    )
    expect(end.text).toContain('window_end')
  })

  test('one of two is over: the connection that has its addresses is cut then, and a new one has the other’s', async () => {
    await reading()
    await writing()
    const short = await writing({ ot_windows: [{ unit: 2, from: 0, to: 9 }], duration_s: 300 })
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    setBefore(short.not_after, 1000)
    expect((await line.gone()).code).toBe('grant.narrowed')
    expect(Date.now()).toBeGreaterThanOrEqual(short.not_after * 1000)
    const again = await client.line(opened)
    expect(await exchange(again, hex('000500000006020600050001'))).toBe('000500000003' + '02860b')
    expect(await exchange(again, WRITE)).toBe(WRITE.toString('hex'))
  })

  test('one of two is over, and a connection is opened in that moment: the one that has its addresses is cut all the same', async () => {
    await reading()
    await writing()
    const short = await writing({ ot_windows: [{ unit: 2, from: 0, to: 9 }], duration_s: 300 })
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    setBefore(short.not_after, 0)
    // Refused or not: it was decided without the grant that is over.
    await client.line(opened).catch(() => undefined)
    expect((await line.gone()).code).toBe('grant.narrowed')
  })

  test('its grant is over: another for the same addresses, approved meanwhile and never used, lets it write nothing', async () => {
    // Each has an hour in which to begin, and from its first use on ten minutes.
    const begin = () => ({ not_after: Math.floor(Date.now() / 1000) + 3000 })
    await reading()
    const first = await writing(begin())
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    expect(await exchange(line, WRITE)).toBe(WRITE.toString('hex'))
    const second = await writing(begin())
    setForward(600_000)
    expect((await here.vendor.ask<Grant>('GET', `/grants/${first.id}`)).state).toBe('expired')
    expect(await exchange(line, WRITE)).toBe('000200000003018601')
    expect((await here.vendor.ask<Grant>('GET', `/grants/${second.id}`)).first_used_at).toBeNull()
    // A new connection is its first use, and from then on its time runs.
    expect(await exchange(await client.line(opened), WRITE)).toBe(WRITE.toString('hex'))
    expect(
      (await here.vendor.ask<Grant>('GET', `/grants/${second.id}`)).first_used_at,
    ).not.toBeNull()
  })

  test('it begins later: a connection opened then may write', async () => {
    await reading()
    const opened = await session()
    const begins = Math.floor(Date.now() / 1000) + 300
    const grant = await writing({ not_before: begins })
    await using client = await Client.dial(here.node)
    expect(await exchange(await client.line(opened), WRITE)).toBe('000200000003018601')
    setBefore(begins, 0)
    await until('a new connection may write', async () => {
      const line = await client.line(opened)
      const reply = await exchange(line, WRITE)
      line.stream.end()
      await line.gone()
      return reply === WRITE.toString('hex')
    })
    expect((await here.vendor.ask<Grant>('GET', `/grants/${grant.id}`)).state).toBe('active')
  })

  test('reads under one and writes under another: the event names the one that it writes under', async () => {
    await reading()
    await writing()
    const second = await writing({ ot_windows: [{ unit: 1, from: 100, to: 109 }], duration_s: 500 })
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    const from = here.node.size()
    line.write(hex('00070000000d0117' + '00000001' + '00640001' + '02' + '1234'))
    const event = await until('it is in the log', () => writes(from)[0])
    expect(event.text).toContain(`"grant":"${second.id}"`)
  })

  test('approved while a connection is being opened: that one reads, and the next may write', async () => {
    await reading()
    const opened = await session()
    await using client = await Client.dial(here.node)
    const held = Promise.withResolvers<void>()
    onTestFinished(() => (here.agent.answer = undefined))
    here.agent.answer = (offer, metadata) =>
      void held.promise.then(() => serve(here.agent, offer, metadata))
    const before = here.agent.opened.length
    const asking = client.line(opened)
    await until('the device is asked', () => here.agent.opened.length > before)
    await writing()
    held.resolve()
    const line = await asking
    expect(await exchange(line, READ)).toContain('0302002a')
    expect(await exchange(line, WRITE)).toBe('000200000003018601')
    expect(await exchange(await client.line(opened), WRITE)).toBe(WRITE.toString('hex'))
  })

  test('revoked while a connection is being opened: it never carries a byte', async () => {
    await reading()
    const grant = await writing()
    const opened = await session()
    await using client = await Client.dial(here.node)
    const normal = here.agent.observed
    onTestFinished(() => {
      here.agent.observed = normal
      here.agent.answer = undefined
    })
    const proceeded = here.agent.proceeded
    const held = Promise.withResolvers<void>()
    here.agent.answer = (offer) =>
      void held.promise.then(() =>
        offer.accept(Buffer.from(JSON.stringify({ v: 1, observed: seen(PLC) }))),
      )
    const asked = here.agent.opened.length
    const asking = client.stream(opened)
    await until('the device is asked', () => here.agent.opened.length > asked)
    await here.node.admin.ask('POST', `/grants/${grant.id}/revoke`, { reason: 'x' })
    held.resolve()
    expect((await refusalOf(asking)).code).toBe('grant.narrowed')
    expect(here.agent.proceeded).toBe(proceeded)
  })
})
